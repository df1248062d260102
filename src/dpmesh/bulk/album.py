"""All images of a list into one folder of results: what is done already, who does what, and what became of it."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dpmesh.bulk.claims import Claims
from dpmesh.bulk.job import GROUP, Job, Outcome, Task
from dpmesh.bulk.processes import in_processes
from dpmesh.errors import DPMeshError, OutputError
from dpmesh.inference.options import RecordedOptions, file_sha256
from dpmesh.inference.output_formats import wanted_scene
from dpmesh.inference.people_rows import error_row, table_text
from dpmesh.inference.record import Record, installed, unlike
from dpmesh.inference.result_folder import plan_result
from dpmesh.inference.row_parts import Entry, RowIndex, RowWriter, drop

if TYPE_CHECKING:
    from dpmesh.inference.predictor import Predictor

_IDLE = 0.3
"""Seconds between looks at images that another command has claimed."""


class Kept(NamedTuple):
    """An image whose result is there already. where: its folder, or that of the rows."""

    path: Path
    where: Path


class Album:
    """The images of a run and the state of their results. Raises OutputError where `people.rows` is not ours."""

    def __init__(
        self,
        job: Job,
        names: Mapping[Path, str],
        formats: Sequence[str],
        *,
        overwrite: bool = False,
        refuse: Callable[[Path], None] = lambda target: None,
    ) -> None:
        """names: result's name of each image. formats: of its folder; none streams rows. refuse: raises DPMeshError for
        a folder that must not be written."""
        self.job, self.names, self.formats, self.overwrite = job, names, tuple(formats), overwrite
        self.index, self._refuse = RowIndex(job.out), refuse
        self._model: RecordedOptions = {}
        self._runs: dict[str, dict[str, object]] = {}

    def sort_out(self) -> tuple[list[Kept], dict[Path, str], list[Task]]:
        """(done before, failed, to do). An existing result is kept if it is of the same image and options."""
        self.index.update()
        self._runs = dict(self.index.runs())
        kept: list[Kept] = []
        failed: dict[Path, str] = {}
        todo: list[Task] = []
        for path in self.names:
            try:
                found = self.look(path)
                kept.append(found) if isinstance(found, Kept) else todo.append(found)
            except DPMeshError as error:
                failed[path] = str(error)
        return kept, failed, todo

    def look(self, path: Path, *, overwrite: bool | None = None) -> Kept | Task:
        """Whether an image is done, or its task. Raises DPMeshError where its result cannot be written."""
        name, overwrite = self.names[path], self.overwrite if overwrite is None else overwrite
        target = self.job.out / name
        there = os.path.lexists(target)
        formats = self.formats or (("json",) if there else ())
        if there:  # else there is nothing to compare with
            self._refuse(target)
            wanted = self._wanted(path, formats, overwrite)
            if plan_result(target, wanted, overwrite).kind == "keep":
                return Kept(path, target)
        elif not formats and not overwrite:
            entry = self.index.entries.get(table_text(str(path)))
            if entry is not None and not entry.error:
                self._compare(path, entry)
                return Kept(path, self.index.folder)
        return Task(path, name, formats, overwrite)

    def rows_of(self, path: Path) -> Entry | None:
        """The streamed rows of an image, as they are now."""
        self.index.update()
        return self.index.entries.get(table_text(str(path)))

    def _wanted(self, path: Path, formats: Sequence[str], overwrite: bool) -> Record:
        job = self.job
        digest = "" if overwrite else file_sha256(path)
        if not self._model and not overwrite:
            self._model = job.model.record()
        options = {} if overwrite else dict(self._model) | job.people.record_of(str(path), digest)
        return wanted_scene(digest, str(path), options, formats, job.colour, job.glb_image)

    def _compare(self, path: Path, entry: Entry) -> None:
        """Raise OutputError where rows are of another image or of other options."""
        if entry.run not in self._runs:
            self._runs = dict(self.index.runs())
        options = self._runs.get(entry.run, {}).get("options")
        record = Record(
            "predict",
            entry.sha256,
            options if isinstance(options, dict) else None,
            (),
            (),
            version=installed(),
        )
        if different := unlike(record, self._wanted(path, (), False)):
            where = f"{self.index.folder}, {path}"
            raise OutputError(different, where=where, fix="Use --overwrite or another folder.")

    def run(self, tasks: Sequence[Task], processes: int = 1) -> Iterator[Outcome | Kept | str]:
        """What became of each image, as it is done; a text tells of a worker process that ended.

        One process predicts here. Each image is done by one of the commands that share the folder; the others wait for
        the last images of it. Raises DPMeshError where the model cannot be loaded, or no result can be written.
        """
        streamed = [table_text(str(task.path)) for task in tasks if not task.formats]
        old = [image for image in streamed if image in self.index.entries]  # failed, or overwritten
        if old:
            if drop(self.job.out, old) and self.overwrite:
                raise OutputError("another run is writing these images", where=str(self.index.folder))
            self.index.update()
        with ExitStack() as stack:
            claims = stack.enter_context(closing(Claims(self.job.out)))
            queue = _Queue(self, tasks, claims)
            several = processes > 1
            outcomes = (
                in_processes(self.job, queue.next_group, processes) if several else _here(self.job, queue)
            )
            writer = stack.enter_context(closing(RowWriter(self.job.out)))
            stack.enter_context(closing(outcomes))
            for outcome in outcomes:
                yield from queue.found()
                if isinstance(outcome, Outcome):
                    if outcome.rows:
                        writer.put(outcome.rows, outcome.run)
                    elif outcome.error and not outcome.task.formats:
                        writer.put([error_row(str(outcome.task.path), outcome.error, outcome.task.name)])
                    claims.release(outcome.task.name)
                yield outcome._replace(rows=()) if isinstance(outcome, Outcome) else outcome
            yield from queue.found()


class _Queue:
    """Hands out groups of images whose claims are held.

    Groups are at fixed places of the list, so that the images of a group, and with them the last digits of its numbers,
    do not depend on how many processes there are.
    """

    def __init__(self, album: Album, tasks: Sequence[Task], claims: Claims) -> None:
        self.album, self.claims = album, claims
        self._left = deque(tasks)
        self._taken: deque[Task] = deque()  # claimed by other commands
        self._found: list[Kept | Outcome] = []

    def found(self) -> Iterator[Kept | Outcome]:
        """What other commands have done meanwhile."""
        while self._found:
            yield self._found.pop(0)

    def next_group(self) -> list[Task] | None:
        """The next images; none for now: an empty list; None: no more."""
        while self._left:
            group = [self._left.popleft() for _ in range(min(GROUP, len(self._left)))]
            if claimed := [task for task in group if self._claim(task, self._taken)]:
                return claimed
        again: deque[Task] = deque()
        while self._taken:
            if self._claim(task := self._taken.popleft(), again):
                self._taken += again
                return [task]
        self._taken = again
        return [] if again else None

    def _claim(self, task: Task, others: deque[Task]) -> bool:
        """Whether the image is to be done here: it is claimed, and not done."""
        if not self.claims.take(task.name):
            others.append(task)
            return False
        found: Kept | Outcome | Task = task
        try:
            if task.formats:
                found = task if task.overwrite else self.album.look(task.path)
            elif (
                entry := self.album.rows_of(task.path)
            ) is not None:  # made by another run since this one began
                found = (
                    Outcome(task, entry.error) if entry.error else self.album.look(task.path, overwrite=False)
                )
        except DPMeshError as error:
            found = Outcome(task, str(error))
        if isinstance(found, Task):
            return True
        self._found.append(found)
        self.claims.release(task.name)
        return False


def _here(job: Job, queue: _Queue) -> Generator[Outcome | str]:
    predictor: Predictor | None = None
    while (group := queue.next_group()) is not None:
        if not group:
            time.sleep(_IDLE)
            continue
        predictor = predictor or job.predictor()
        from dpmesh.bulk.work import do_tasks  # imports torch

        yield from do_tasks(predictor, job, group)
