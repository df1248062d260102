"""What a run on Ray looks at while it waits, without Ray."""

import time
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from dpmesh.bulk import ray_rows
from dpmesh.bulk.ray_rows import Machines, rows_as_they_come
from dpmesh.errors import OutputError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_rows, "EVERY", 0.02)


class Data:
    """Two rows; then what `last` does."""

    def __init__(self, last: Callable[[], object]) -> None:
        self.last = last

    def iter_rows(self) -> Iterator[dict[str, int]]:
        yield from ({"n": 0}, {"n": 1})
        self.last()


def fail() -> None:
    raise OutputError("no space")


def test_rows_and_errors_come_through() -> None:
    assert [row["n"] for row in rows_as_they_come(Data(list), list)] == [0, 1]
    rows = rows_as_they_come(Data(fail), list)
    assert [next(rows)["n"], next(rows)["n"]] == [0, 1]
    with pytest.raises(OutputError, match="no space"):
        next(rows)


def test_a_wait_without_end_is_ended_by_a_look() -> None:
    never, looks = Event(), list[int]()

    def look() -> None:
        looks.append(1)
        if len(looks) == 5:
            fail()

    with pytest.raises(OutputError, match="no space"):
        list(rows_as_they_come(Data(never.wait), look))
    assert len(looks) == 5
    never.set()


def test_machines_that_are_gone_and_those_that_are_awaited() -> None:
    start, never = time.monotonic(), Event()
    rooms: dict[str, Callable[[], bool]] = {
        "there": lambda: True,
        "awaited": lambda: False,  # a cluster that grows
        "lost": lambda: time.monotonic() - start < 0.2,
        "failing": lambda: bool(1 / 0),
        "silent": never.wait,
    }
    machines = {name: Machines(room) for name, room in rooms.items()}
    time.sleep(1)
    assert {name for name, one in machines.items() if one.gone(0.6)} == {"lost", "failing", "silent"}
    never.set()
    for one in machines.values():
        one.close()
