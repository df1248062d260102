"""The results of a run on Ray as they come, and what is looked at meanwhile.

Ray waits without end for machines that are gone, in the call that gives the next result. So that call is made in a
thread, and the run ends where nothing can come of it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

EVERY = 5.0
"""Seconds between two calls of `look`, and between two questions to the cluster."""


def rows_as_they_come(data: Any, look: Callable[[], None]) -> Iterator[Mapping[str, Any]]:
    """The rows of a Ray data set. look: called with each of them and every few seconds; what it raises ends the run.

    Raises what Ray raises.
    """
    found = SimpleQueue[Mapping[str, Any] | BaseException | None]()
    ended = threading.Event()

    def read() -> None:
        try:
            for row in data.iter_rows():
                found.put(row)
                if ended.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  raised by the reader
            found.put(error)
        else:
            found.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            try:
                row = found.get(timeout=EVERY)
            except Empty:
                look()
                continue
            if row is None:
                return
            if isinstance(row, BaseException):
                raise row
            look()
            yield row
    finally:
        ended.set()


class Machines:
    """Whether a cluster has machines for the run. A cluster that is cut off does not answer: a thread asks."""

    def __init__(self, room: Callable[[], bool]) -> None:
        """room: whether there is room for an actor now; it may raise, or never return. Before there was any the cluster
        may be growing: that is waited for."""
        self._room, self._had = room, False
        self._good = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def gone(self, seconds: float) -> bool:
        """Whether for so long there was no room, or no answer."""
        return time.monotonic() - self._good >= seconds

    def close(self) -> None:
        self._ended.set()

    def _ask(self) -> None:
        while not self._ended.wait(EVERY):
            with suppress(Exception):
                room = self._room()
                self._had = self._had or room
                if room or not self._had:
                    self._good = time.monotonic()
