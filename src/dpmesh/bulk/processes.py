"""Worker processes: each has the model in its memory and does one group of images at a time.

Each worker is an executor of the standard library with one process, so that a process that ends (killed, out of memory,
a crash in a library) breaks its own executor only. Its images are then done one by one in a new process; an image whose
process ends again is reported. Workers end with the command, also where that is killed.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from typing import Any

from dpmesh.bulk.job import Job, Outcome, Task
from dpmesh.errors import OutputError

_IDLE = 0.3
"""Seconds between looks at images that another command has claimed."""

NextGroup = Callable[[], Sequence[Task] | None]
"""The next images to do, whose claims are held; none for now: empty; None: no more."""


def in_processes(job: Job, next_group: NextGroup, count: int) -> Generator[Outcome | str]:
    """The outcomes of all images as they are done; a text tells of a worker that ended.

    Raises DPMeshError where the model cannot be loaded. Closing it ends the workers after the images they are at.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, min(job.model.threads, cores // count))
    job = replace(job, model=replace(job.model, threads=threads))
    stop = multiprocessing.get_context("spawn").Event()
    workers = [_Worker(job, stop) for _ in range(count)]
    try:
        yield from _run(workers, next_group)
    finally:
        stop.set()
        for worker in workers:
            worker.executor.shutdown(wait=True, cancel_futures=True)


def _run(workers: list["_Worker"], next_group: NextGroup) -> Iterator[Outcome | str]:
    again: deque[Task] = deque()  # to be done alone
    died: set[Task] = set()
    more = True
    while True:
        for worker in workers:
            if worker.future is not None:
                continue
            if again:
                worker.start([again.popleft()])
            elif more:
                group = next_group()
                more = group is not None
                if group:
                    worker.start(group)
        busy = {worker.future: worker for worker in workers if worker.future is not None}
        if not busy:
            if not more and not again:
                return
            time.sleep(_IDLE)
            continue
        for future in wait(busy, _IDLE if more and len(busy) < len(workers) else None, FIRST_COMPLETED).done:
            worker, tasks = busy[future], busy[future].tasks
            worker.future = None
            try:
                yield from future.result()
            except BrokenProcessPool:
                at_work = worker.renew()
                yield f"a worker process ended (killed, or out of memory) at {', '.join(str(t.path) for t in tasks)}"
                for task in tasks:
                    if at_work and task in died:
                        yield Outcome(task, _ENDED.format(task.path))
                    else:
                        again.append(task)
                if at_work and len(tasks) == 1:  # of several images any may be the cause
                    died.update(tasks)


_MOST_LOADS = 3
"""How often in a row a worker may end before its model is loaded."""
_ENDED = "{}: its process ended twice (killed, or out of memory). Shrink it, or use fewer --processes."


class _Worker:
    """One process, and what it is at."""

    def __init__(self, job: Job, stop: Event) -> None:
        self.job, self.stop = job, stop
        self.future: Future[list[Outcome]] | None = None
        self.tasks: Sequence[Task] = ()
        self.broken_loads = 0
        self._new()

    def _new(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.loaded = context.Event()
        self.executor = ProcessPoolExecutor(1, context, _prepare, (self.job, self.stop, self.loaded))

    def start(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        with _without_interrupts():
            self.future = self.executor.submit(_do, tasks)

    def renew(self) -> bool:
        """A new process for one that has ended; whether that had its model. Raises OutputError where none has."""
        self.executor.shutdown(wait=True)
        at_work = self.loaded.is_set()
        self.broken_loads = 0 if at_work else self.broken_loads + 1
        if self.broken_loads == _MOST_LOADS:
            raise OutputError(
                "the worker processes end while they load the model (killed, or out of memory)",
                fix="Use fewer --processes.",
            )
        self._new()
        return at_work


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started here does not get Ctrl-C: this one ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the worker process

_state: dict[str, Any] = {}


def _prepare(job: Job, stop: Event, loaded: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _state.update(job=job, stop=stop, loaded=loaded)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(tasks: Sequence[Task]) -> list[Outcome]:
    """Raises DPMeshError where the model cannot be loaded."""
    job: Job = _state["job"]
    from dpmesh.bulk.work import do_tasks  # imports torch

    predictor = _state.get("predictor")
    if predictor is None:
        import cv2

        cv2.setNumThreads(job.model.threads)
        predictor = _state["predictor"] = job.predictor()
        _state["loaded"].set()
    done: list[Outcome] = []
    for outcome in do_tasks(predictor, job, tasks):
        done.append(outcome)
        if _state["stop"].is_set():
            break
    return done
