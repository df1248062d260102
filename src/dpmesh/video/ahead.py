"""Items of an iterator made ahead of their use, in a thread: detection of the next frames runs beside the network."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def ahead(items: Iterator[T], room: int, latest: bool = False) -> Generator[T]:
    """The same items in order; at most `room` of them wait. An exception of `items` is raised in its place.

    latest: `items` never waits; where there is no room, the oldest item is dropped. Closing the iterator ends the
    thread after the item that it is at.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(room)
    stop = threading.Event()

    def put(item: "T | _End") -> None:
        while not stop.is_set():
            if latest and waiting.full() and not isinstance(item, _End):
                with suppress(queue.Empty):
                    waiting.get_nowait()
            with suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    break
            put(_End(None))
        except BaseException as error:  # noqa: BLE001  it is raised where the items are used
            put(_End(error))
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()

    thread = threading.Thread(target=work, name="dpmesh-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()
        thread.join(timeout=10)


def batches(items: Iterator[T], full: Callable[[list[T]], bool]) -> Iterator[list[T]]:
    """Runs of items, each as long as it takes to be full."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if full(waiting):
            yield waiting
            waiting = []
    if waiting:
        yield waiting
