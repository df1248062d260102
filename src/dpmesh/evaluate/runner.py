"""A run: persons in batches through a model, in parts that are kept, by one process or several.

Person i always is in the same batch with the same others, whatever the number of processes, and every part belongs to
one process, so the answer is the same to the bit and nobody is counted twice. A part is written aside and renamed: a
killed run goes on where it was.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpmesh.assets import sha256, weights_folder
from dpmesh.body.resolve import choose_body
from dpmesh.checkpoint import CONFIG, WEIGHTS
from dpmesh.device import pick_device
from dpmesh.errors import ConfigError, InputError
from dpmesh.evaluate.baselines import METHODS, WITHOUT_NETWORK, Method, method_of
from dpmesh.evaluate.interfaces import Source
from dpmesh.evaluate.names import line
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.registry import open_set
from dpmesh.evaluate.results import Rows, concatenate, load, save
from dpmesh.evaluate.score import inputs_of, predicted, require_joints, score
from dpmesh.inference.predictor import MeshModel
from dpmesh.model import DPMesh

PARTS = "parts"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One protocol (a name, or a folder of records: opening.entry), one model. method: what is measured
    (methods.METHODS). limit: the first so many persons only. part: persons between two saves (about)."""

    protocol: str
    out: Path
    data: Path | None = None
    weights: str = "embedded"
    body: str | None = None
    regressors: str | None = None
    method: Method = "network"
    device: str = "auto"
    threads: int = 1
    batch: int = 16
    limit: int | None = None
    part: int = 256

    def __post_init__(self) -> None:
        for name in ("threads", "batch", "part", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1", where="Job")

    @property
    def folder(self) -> Path:
        name = Path(self.protocol).resolve().name  # of a folder of records the last part
        return self.out / (name if self.method == "network" else f"{name}+{self.method}")


@dataclass(frozen=True, eq=False)
class Opened:
    """A model and a source, ready. record: what the result says of the weights."""

    job: Job
    protocol: Protocol
    source: Source
    model: MeshModel
    record: Mapping[str, Any]
    device: torch.device

    @property
    def count(self) -> int:
        return len(self.source) if self.job.limit is None else min(self.job.limit, len(self.source))

    @property
    def parts(self) -> list[range]:
        size = max(self.job.part // self.job.batch, 1) * self.job.batch
        return [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]

    @property
    def header(self) -> dict[str, Any]:
        """What parts must agree in to belong together, by the names that an error tells."""
        from importlib.metadata import version

        return {
            "protocol": self.protocol.full_name,
            "hash": self.protocol.hash,
            "package": version("dpmesh"),
            "persons": self.count,
            "device": self.device.type,
            "weights": self.record["sha256"],
            "weights' config": self.record.get("config_sha256", ""),
            "method": self.job.method,
            "body": _digest(self.record["body"]),
            "data": _digest(dict(self.source.census.files)),
            "batch": self.job.batch,
            "save-every": self.job.part,
        }


def _digest(value: object) -> str:
    """Of plain data, short: to be compared."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def open_job(job: Job, rank: int = 0) -> Opened:
    """rank: of this process on its machine; with several CUDA devices each has its own.

    Raises ConfigError, InputError, AssetError, WeightsError.
    """
    protocol, source = open_set(job.protocol, job.data)
    device = pick_device(job.device)
    torch.set_num_threads(job.threads)
    if device.type == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    chosen = choose_body(job.weights, job.body, job.regressors)
    model = DPMesh.from_pretrained(job.weights, chosen.arrays).to(device).eval()
    require_joints(model)
    record = {
        **weights_record(job),
        "provenance": {} if job.method in WITHOUT_NETWORK else dict(model.provenance),
        "body": dict(chosen.record) or "the free body",
        "notes": list(chosen.notes),
    }
    return Opened(job, protocol, source, method_of(job.method, model), record, device)


def weights_record(job: Job) -> dict[str, str]:
    """What the answers are made by: for people (name, method), and to compare (sha256; "" without a file: T-pose)."""
    folder = weights_folder(job.weights)
    config = None if job.method in WITHOUT_NETWORK else folder / CONFIG
    record = {
        "name": job.weights,
        "sha256": _sum(WITHOUT_NETWORK.get(job.method, folder / WEIGHTS)),
        "config_sha256": _sum(config),
    }
    if job.method == "network":
        return record
    # A row of its own in the tables.
    name = job.method if job.method in WITHOUT_NETWORK else f"{job.weights}: {job.method}"
    return record | {"name": name, "method": METHODS[job.method]}


def _sum(path: Path | None) -> str:
    return sha256(path) if path is not None and path.is_file() else ""


def run_parts(opened: Opened, rank: int, world: int, say: Say = lambda _: None) -> None:
    """Make this process's parts (number rank, rank + world, ...) that are not there yet."""
    place, header = opened.job.folder / PARTS, opened.header
    mine = list(enumerate(opened.parts))[rank::world]
    for done, (number, indices) in enumerate(mine, start=1):
        path = place / f"part-{number:05d}.npz"
        if not path.is_file():
            save(path, evaluate(opened, indices), {**header, "part": number})
        else:
            refuse_foreign(path, load(path)[1], {**header, "part": number})
        say(
            f"{line(opened.protocol.full_name)}: part {done} of {len(mine)} ({indices.stop} of {opened.count} persons)"
        )


@torch.inference_mode()
def evaluate(opened: Opened, indices: range) -> Rows:
    """Rows of some persons; `indices` begins at a multiple of the batch."""
    found: list[Rows] = []
    for start in range(indices.start, indices.stop, opened.job.batch):
        batch = list(range(start, min(start + opened.job.batch, indices.stop)))
        persons = opened.source.persons(batch)
        answer = opened.model(inputs_of(persons, opened.model.camera, opened.device))
        measure = opened.protocol.measure
        found.append(score(measure, batch, persons, predicted(measure, opened.model, answer, persons)))
    return concatenate(found)


def merge(opened: Opened) -> Rows:
    """All parts as one; raises InputError unless every person is there exactly once."""
    place, header = opened.job.folder / PARTS, opened.header
    parts: list[Rows] = []
    for number in range(len(opened.parts)):
        path = place / f"part-{number:05d}.npz"
        if not path.is_file():
            raise InputError("a part of the run is missing", where=str(path), fix="Run the command again.")
        rows, about = load(path)
        refuse_foreign(path, about, {**header, "part": number})
        parts.append(rows)
    joined = concatenate(parts)
    if not np.array_equal(joined.index, np.arange(opened.count)):
        raise InputError(
            "the parts do not hold every person exactly once",
            where=str(place),
            fix="Delete the folder and run again.",
        )
    return joined


def refuse_foreign(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InputError for a part of another run."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise InputError(
                f"this part is of another run, with another {name} ({found.get(name)!r}; now {value!r})",
                where=str(path),
                fix="Choose another --out, or --overwrite.",
            )


def torchrun() -> tuple[int, int] | None:
    """(rank, world) where torchrun started this process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def plain(job: Job) -> dict[str, Any]:
    """The job as it stands in a result."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(job).items()}
