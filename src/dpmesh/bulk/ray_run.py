"""`dpmesh bulk`: units of images on the actors of a Ray cluster, by Ray Data."""

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from dpmesh.bulk.job import Job
from dpmesh.bulk.lease import Lease, lease_on
from dpmesh.bulk.output import THUMBNAILS, check_output, done_keys, drop_errors, start_output
from dpmesh.bulk.ray_rows import Machines, rows_as_they_come
from dpmesh.bulk.ray_worker import Ledger, Output, Worker
from dpmesh.bulk.sources import Unit, list_units
from dpmesh.bulk.storage import is_uri, place_of
from dpmesh.errors import ConfigError, DPMeshError, OutputError
from dpmesh.io import LOCK, folder_lock

PATIENCE = 300.0
"""Seconds for which a run waits for machines that are gone."""
_LEAVE = 20.0
"""Seconds to take leave of a cluster, which may not answer."""
_AGAIN = "Run it again: it goes on where it was."


class ClusterGone(OutputError):
    """The cluster's machines are gone, or do not answer. Ray may then keep the process from ending."""


@dataclass(frozen=True, kw_only=True)
class BulkOptions:
    """How a run uses the cluster, and how it reads and writes."""

    address: str = ""
    """Of a Ray cluster; empty starts Ray on this machine."""
    actors: int = 0
    """Processes with a model; 0: as many as the cluster has room for."""
    cpus: float = 1.0
    """Cores of an actor."""
    gpus: float = 0.0
    """GPUs of an actor; a fraction shares one."""
    part: int = 256
    """Images of an output file, and of a unit of loose images."""
    recycle: int = 20_000
    """Images after which an actor's process is replaced, which gives its memory back."""
    image_column: str = ""
    key_column: str = ""
    retry_errors: bool = False
    """Do images again that have failed before."""
    thumbnails: int = 0
    """Longest side of thumbnails, pixels; 0: none."""


class BulkRun:
    """A run over sources. Raises DPMeshError where sources or output cannot be used, before anything is computed."""

    def __init__(
        self, job: Job, sources: Sequence[str], out: str, options: BulkOptions, *, recursive: bool = False
    ) -> None:
        """job: its `out` is not used."""
        ray_module()
        self.job, self.out, self.options = job, place_of(out), options
        recorded = job.model.record() | job.people.record() | {THUMBNAILS: options.thumbnails or None}
        self._held = ExitStack()
        self._lease: Lease | None = None
        if self.out.fs.type_name == "local":
            self._held.enter_context(_local_folder(Path(self.out.path)))
        else:
            self._lease = self._held.enter_context(lease_on(self.out))
        with ExitStack() as failed:
            failed.callback(self._held.close)
            check_output(self.out, recorded)
            done = dict(done_keys(self.out))
            if options.retry_errors:
                done = {key: error for key, error in done.items() if not error}
            self.done, self.failed_before = len(done), sum(map(bool, done.values()))
            self.units = list_units(
                sources,
                done,
                images=options.part,
                recursive=recursive,
                image_column=options.image_column,
                key_column=options.key_column,
            )
            start_output(self.out, recorded)
            if options.retry_errors:
                drop_errors(self.out, lambda key: any(unit.may_have(key) for unit in self.units))
            failed.pop_all()

    def run(self) -> Iterator[Mapping[str, Any]]:
        """What became of each unit, as Worker gives it, in the order of their ends. Raises OutputError where the
        cluster fails, or another run has taken the output over."""
        check = self._lease.check if self._lease else lambda: None
        with self._held:
            if self.units:
                yield from _on_ray(self.job, self.units, self.out.name, self.options, check)


@contextmanager
def _local_folder(folder: Path) -> Generator[None]:
    """Hold the output's folder; afterwards its lock is removed, and the folder if nothing is in it."""
    with folder_lock(folder, "bulk run"):
        yield
        with suppress(OSError):
            (folder / LOCK).unlink()
            folder.rmdir()


def _on_ray(
    job: Job, units: Sequence[Unit], out: str, options: BulkOptions, check: Callable[[], None]
) -> Iterator[Mapping[str, Any]]:
    """check: called now and then; what it raises ends the run."""
    ray = ray_module()
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ours = not ray.is_initialized()
    if ours:
        local: dict[str, Any] = {"include_dashboard": False}
        try:
            more = {"address": options.address} if options.address else local
            ray.init(log_to_driver=False, logging_level="ERROR", **more)
        except (ConnectionError, ValueError) as error:
            fix = "Start one with: ray start --head, or leave --address out."
            raise ConfigError(f"no cluster there ({error})"[:300], where=options.address, fix=fix) from None
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.raise_original_map_exception = True
        # No error is expected to come out of an actor: the run is to end at one, not to go on without its images.
        context.max_errored_blocks = 0
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote()
        most = min(_room(ray.cluster_resources(), options), len(units))
        data = ray.data.from_items(
            [{"unit": unit.as_json()} for unit in units], override_num_blocks=len(units)
        )
        place = out if is_uri(out) else os.path.abspath(out)
        output = Output(place, options.part, options.recycle, os.getcwd(), options.thumbnails)
        results = data.map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(job, output, ledger),
            # Ray Data starts a lost actor anew and repeats its tasks. At most one task waits at an actor: where one is
            # lost, what waits there comes late.
            compute=ActorPoolStrategy(
                min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=options.cpus,
            num_gpus=options.gpus,
        )
        machines = Machines(lambda: _fit(ray.cluster_resources(), options) > 0)

        def look() -> None:
            check()
            if machines.gone(PATIENCE):
                what = f"no machine with room for an actor has answered for {PATIENCE:g} s"
                raise ClusterGone(what, where=options.address or "Ray", fix=_AGAIN)

        with closing(machines):
            yield from rows_as_they_come(results, look)
    except RayError as error:
        if (cause := _cause(error)) is not None:
            raise cause from None
        raise OutputError(f"Ray has ended the run ({error})"[:400], where=out, fix=_AGAIN) from None
    finally:
        if ours:
            leave = Thread(target=ray.shutdown, daemon=True)
            leave.start()
            leave.join(_LEAVE)


def _room(cluster: Mapping[str, float], options: BulkOptions) -> int:
    """How many actors to start. Raises ConfigError where there is room for none: Ray would wait for ever."""
    if most := options.actors or _fit(cluster, options):  # a cluster that grows may have none yet
        return most
    has = ", ".join(f"{cluster.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
    raise ConfigError(f"the cluster has room for no actor (it has {has})", where="--num-cpus, --num-gpus")


def _fit(cluster: Mapping[str, float], options: BulkOptions) -> int:
    """How many actors its machines have room for."""
    wanted = {"CPU": options.cpus, "GPU": options.gpus}
    return int(min((cluster.get(name, 0) / each for name, each in wanted.items() if each), default=1) + 1e-6)


def _cause(error: BaseException | None) -> DPMeshError | None:
    """Our own error that an actor has raised: the output cannot be written, or the model cannot be loaded."""
    while error is not None:
        if isinstance(cause := getattr(error, "cause", None) or error.__cause__, DPMeshError):
            return cause
        error = cause
    return None


def ray_module() -> Any:
    """ray; raises ConfigError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it writes to our stderr
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError(
            "needs Ray, which is not installed",
            where="dpmesh bulk",
            fix='Install it with: pip install "dpmesh[ray]"',
        ) from None
    return ray
