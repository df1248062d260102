"""The actor of `dpmesh bulk`: it has the model, reads the images of a unit, predicts, and writes the unit's parts.

It runs within Ray Data, which starts an actor and a task again where a process or a machine has ended. What Ray does
not do is done here: no exception leaves an actor (Ray would end the run); reading is tried again; an image on which the
process ends twice is reported, not tried for ever; and a process gives its memory back after so many images.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from dpmesh.bulk.job import GROUP, Job
from dpmesh.bulk.output import THUMBNAIL, part_name, write_part, write_run
from dpmesh.bulk.sources import Item, Unit, items_of
from dpmesh.bulk.storage import place_of
from dpmesh.bulk.work import rows_of, scenes_of, unexpected
from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.inference.people_rows import Row, error_row
from dpmesh.inference.scene import Scene
from dpmesh.inference.scene_drawing import thumbnail

_TRIES = 3
"""How often a file that cannot be read is tried."""
_PAUSE = 0.5
"""Seconds before the second try; twice as long before each further one."""
_ENDED = "its process ended twice (killed, or out of memory)"


@dataclass(frozen=True)
class Output:
    """out: folder or URI of the parts. part: images of a part. recycle: images after which a process ends. folder: that
    relative paths of images refer to. thumbnails: their longest side, pixels; 0: none."""

    out: str
    part: int
    recycle: int
    folder: str
    thumbnails: int = 0


class Ledger:
    """How often work on something has begun without an end. One actor on the machine of the command."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """The number of this try, from 1."""
        self._begun[key] += 1
        return self._begun[key]

    def end(self, key: str) -> None:
        self._begun.pop(key, None)


_Content = tuple[str, bytes | DPMeshError]
"""Key, and the content or the error of an image."""


class _Contents:
    """The images of a unit, some at a time. ended: there are no more. error: why it could not be read to its end."""

    def __init__(self, unit: Unit, last: bool) -> None:
        self._items, self._unit, self._last = items_of(unit), unit, last
        self.ended, self.error = False, ""

    def first(self, number: int) -> Iterator[_Content]:
        """The next `number` images. Raises OSError unless it is the last try."""
        count = 0
        try:
            for item in islice(self._items, number):
                yield item.key, self._read(item)
                count += 1
        except InputError as error:
            self.error = str(error)
        except OSError as error:
            if not self._last:
                raise
            self.error = str(InputError(f"cannot be read ({error})"[:300], where=self._unit.name))
        self.ended = self.ended or count < number

    def _read(self, item: Item) -> bytes | DPMeshError:
        """Raises OSError where a shard or Parquet file breaks off; of a loose image that is its own error."""
        why: OSError | None = None
        for number in range(_TRIES):
            try:
                return item.read()
            except DPMeshError as error:
                return error
            except FileNotFoundError:
                return InputError("no such file", where=item.key)
            except OSError as error:
                if self._unit.kind != "images":
                    raise
                why = error
                time.sleep(_PAUSE * 2**number)
        return InputError(f"cannot be read ({why})"[:300], where=item.key)


class Worker:
    """Called with batches of units; gives a row about each: counts, errors, memory."""

    def __init__(self, job: Job, output: Output, ledger: Any) -> None:
        import cv2

        cv2.setNumThreads(job.model.threads)
        with suppress(OSError):  # another machine may not have it
            os.chdir(output.folder)
        self.job, self.output, self.ledger = job, output, ledger
        self.out = place_of(output.out)
        self.predictor = job.predictor()
        self.images = 0
        self._runs: set[str] = set()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """batch: column "unit" of JSON texts (Unit.as_json)."""
        if self.output.recycle <= self.images:
            os._exit(0)  # Ray starts a new process, which gets this batch
        done = [self._unit(Unit.from_json(str(text))) for text in batch["unit"]]
        return {name: [row[name] for row in done] for name in done[0]}

    def _unit(self, unit: Unit) -> dict[str, Any]:
        """Do a unit; parts that are there, of an actor that was killed, are kept.

        Raises OutputError where the output does not answer: a unit without rows must not pass for done.
        """
        start, count, errors, written = time.perf_counter(), Counter[str](), dict[str, str](), set[str]()
        digest = hashlib.sha256(f"{self.output.part} {unit.as_json()}".encode()).hexdigest()[:16]
        for number in range(1, _TRIES + 1):
            try:
                self._parts(unit, digest, count, errors, written, last=number == _TRIES)
                break
            except OSError as error:
                if number == _TRIES:
                    what = f"cannot be reached ({error})"[:300]
                    fix = "Run it again: it goes on where it was."
                    raise OutputError(what, where=self.output.out, fix=fix) from None
                time.sleep(_PAUSE * 2 ** (number - 1))
        return {
            "images": count["images"],
            "people": count["people"],
            "kept": count["kept"],
            "errors": list(errors.values()),
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time(),
            "rss_mb": _rss_mb(),
            "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
            "process": os.getpid(),
        }

    def _parts(
        self,
        unit: Unit,
        digest: str,
        count: Counter[str],
        errors: dict[str, str],
        written: set[str],
        *,
        last: bool,
    ) -> None:
        """Raises OSError where the unit cannot be read, unless it is the last try: then that is a row.

        count, errors, written: of all tries; written names the parts.
        """
        number, contents = 0, _Contents(unit, last)
        while not contents.ended:
            name = part_name(digest, number)
            place = self.out / name
            if place.fs.get_file_info(place.path).is_file:
                kept = sum(1 for _ in contents.first(self.output.part))
                count["kept"] += kept if name not in written else 0
            else:
                own, failed = Counter[str](), dict[str, str]()  # counted once, also where reading breaks off
                if rows := self._rows(contents.first(self.output.part), f"{digest}-{number}", own, failed):
                    write_part(self.out, name, rows, thumbnails=self.output.thumbnails > 0)
                    written.add(name)
                    self.ledger.end.remote(f"{digest}-{number}")
                    count.update(own)
                    errors.update(failed)
            number += 1
        if contents.error:
            row, thumbnails = error_row(unit.name, contents.error), self.output.thumbnails > 0
            write_part(self.out, part_name(digest, 99999), [row], thumbnails=thumbnails)
            errors[unit.name] = contents.error

    def _rows(
        self, contents: Iterator[_Content], key: str, count: Counter[str], errors: dict[str, str]
    ) -> list[Row]:
        """The rows of one part. Each image alone where a process has ended at this part."""
        alone = _get(self.ledger.begin.remote(key)) > 1
        rows: list[Row] = []
        while group := list(islice(contents, 1 if alone else GROUP)):
            rows += self._group(group, alone, count, errors)
        return rows

    def _group(
        self,
        contents: Sequence[_Content],
        alone: bool,
        count: Counter[str],
        errors: dict[str, str],
    ) -> list[Row]:
        if alone and _get(self.ledger.begin.remote(contents[0][0])) > 2:
            contents = [(contents[0][0], InputError(_ENDED))]
        scenes = scenes_of(
            self.predictor, [data for _, data in contents if isinstance(data, bytes)], self.job
        )
        rows: list[Row] = []
        for key, data in contents:
            scene = data if isinstance(data, DPMeshError) else next(scenes)
            made = scene if isinstance(scene, DPMeshError) else self._made(scene, key)
            del scene
            count["images"] += 1
            if isinstance(made, DPMeshError):
                errors[key] = str(type(made)(made.what, where=key, fix=made.fix))
                rows.append(error_row(key, errors[key]))
            else:
                own, run = made
                count["people"] += cast("int", own[0]["people"])
                rows += own
                if run[0] not in self._runs:
                    write_run(self.out, *run)
                    self._runs.add(run[0])
            if alone:
                self.ledger.end.remote(key)
        self.images += len(contents)
        return rows

    def _made(
        self, scene: Scene, key: str
    ) -> tuple[tuple[Row, ...], tuple[str, dict[str, object]]] | InputError:
        """As work.rows_of, with the thumbnail; an unexpected error is that of the image alone."""
        try:
            own, run = rows_of(scene, key, key)
            if self.output.thumbnails:
                own[0][THUMBNAIL] = thumbnail(scene, self.output.thumbnails)
        except Exception as error:  # noqa: BLE001  it would end the run
            return unexpected(error)
        return own, run


def _get(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _rss_mb() -> float:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    except OSError:
        return 0.0
