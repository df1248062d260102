"""What one process does alone, and how all of them end where one fails: with one line, and nobody left waiting."""

import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist
from lightning_fabric import Fabric

from dpmesh.errors import DPMeshError

T = TypeVar("T")
PATIENCE = 5.0
"""Seconds for which a process that broke off waits to learn whether another one ended first."""
TOLD = "told by the first process"
"""A note on an error that every process raises: one line of it is enough."""


class ProcessError(DPMeshError):
    """Another process of the training ended with an error."""


def first(fabric: Fabric, action: Callable[[], T]) -> T:
    """What the first process gets, for all; a DPMeshError of it is raised in all."""
    found: tuple[T | None, DPMeshError | None] = (None, None)
    if fabric.global_rank == 0:
        try:
            found = (action(), None)
        except DPMeshError as error:
            found = (None, error)
    if fabric.world_size > 1:
        found = fabric.broadcast(found)
    return _value(fabric, found)


def everyone(fabric: Fabric, action: Callable[[], T]) -> T:
    """What each process gets itself; where one has a DPMeshError, all raise the first of them."""
    found: tuple[T | None, DPMeshError | None]
    try:
        found = (action(), None)
    except DPMeshError as error:
        found = (None, error)
    if fabric.world_size > 1:
        errors: list[DPMeshError | None] = [None] * fabric.world_size
        dist.all_gather_object(errors, found[1])
        if (error := next((e for e in errors if e is not None), None)) is not None:
            found = (None, error)
    return _value(fabric, found)


def _value(fabric: Fabric, found: tuple[Any, DPMeshError | None]) -> Any:
    value, error = found
    if error is None:
        return value
    if fabric.global_rank:
        error.add_note(TOLD)
    raise error


@contextmanager
def ending_together(fabric: Fabric) -> Generator[None]:
    """Where this process started the others (Settings.processes), none of them outlives an error here."""
    launcher: Any = getattr(fabric.strategy, "launcher", None)
    children: list[Any] = list(getattr(launcher, "procs", ()))
    try:
        yield
    except BaseException as error:
        another = isinstance(error, RuntimeError) and (_cut_off(error) or _one_ended(children))
        _end(children)
        if another:  # a collective failed because somebody is gone
            raise ProcessError(
                "another process of this training ended with an error",
                where="processes",
                fix="It has told why, or was killed; the same command goes on from the last checkpoint.",
            ) from error
        raise


def _cut_off(error: RuntimeError) -> bool:
    """Whether gloo or NCCL say that somebody is gone."""
    return isinstance(error, dist.DistError) or "by peer" in str(error)


def _one_ended(children: list[Any]) -> bool:
    """Whether another process ended with an error, now or soon."""
    until = time.monotonic() + PATIENCE
    while children and time.monotonic() < until:
        if any(process.poll() for process in children):
            return True
        time.sleep(0.05)
    return False


def _end(children: list[Any]) -> None:
    if not children:
        return
    for thread in threading.enumerate():  # it would kill this process for what happens here
        if thread.name == "child-process-observer":
            thread._finished = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    for process in children:
        process.terminate()
    for process in children:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it does not listen
            process.kill()
