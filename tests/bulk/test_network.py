"""`dpmesh bulk` where the cable between two machines is pulled: what is lost."""

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bulk_fakes
import pyarrow.dataset as ds
import pytest
import two_nodes
from bulk_fakes import SLOW, write_photo
from two_nodes import TwoNodes

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SHORT = 3
"""Seconds without a cable, within Ray's health check of the fixture; its own takes a minute."""
IMAGES = 120


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts the cluster, given the cores of its two machines."""
    if why := two_nodes.why_not():
        pytest.skip(why)
    folders = (Path(bulk_fakes.__file__).parent, Path(bulk_fakes.__file__).parents[2] / "src")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]),
        "DPMESH_TEST_PATIENCE": "10",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "6",
    }
    for i in range(IMAGES):
        write_photo(tmp_path / "album" / f"{i:03}.png", SLOW, i)
    yield lambda *cpus: two_nodes.two_nodes(environment, cpus)


class Run:
    """The command on the machine of Ray's head, or of the worker; it is killed after ten minutes."""

    def __init__(self, nodes: TwoNodes, folder: Path, *options: str, on_worker: bool = False) -> None:
        line = "import sys, bulk_fakes; sys.exit(bulk_fakes.command(sys.argv[1:]))"
        words = ["bulk", str(folder / "album"), "--out", str(folder / "out"), "--part", "4", "--log-json"]
        words += ["--address", nodes.address, *options]
        own = {"DPMESH_TEST_ADDRESS": two_nodes.WORKER} if on_worker else {}
        self.process = nodes.command([sys.executable, "-c", line, *words], own, int(on_worker))
        self.lines: list[str] = []
        """On stderr that are no events."""

    def units(self) -> Iterator[dict[str, Any]]:
        """As they are done, to the end of the run."""
        timer = threading.Timer(600, self.process.kill)  # a busy machine starts Ray in minutes
        timer.start()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = json.loads(line) if line.startswith("{") else {"event": ""}
            if event["event"] == "unit":
                yield event
            elif not event["event"]:
                self.lines.append(line.rstrip())
        self.process.wait()
        timer.cancel()


def rows(folder: Path) -> dict[str, int]:
    table = ds.dataset(folder / "out").to_table()
    assert not any(table["error"].to_pylist())
    return dict(Counter(table["image"].to_pylist()))


def all_of(folder: Path) -> dict[str, int]:
    return {str(path): 2 for path in (folder / "album").iterdir()}


def test_a_cable_that_is_pulled_costs_no_row_and_doubles_none(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    """For a short time, and then for good: the other machine does the rest."""
    with start(1, 1) as nodes:
        run = Run(nodes, tmp_path)
        processes = Counter[int]()
        pulled = 0
        for unit in run.units():
            processes[unit["process"]] += 1
            if not pulled and len(processes) > 1:
                nodes.pull()
                time.sleep(SHORT)
                nodes.plug()
                pulled = sum(processes.values())
            elif pulled and sum(processes.values()) == pulled + 6:
                nodes.pull()
        assert pulled and run.process.returncode == 0, run.lines
    assert rows(tmp_path) == all_of(tmp_path)


@pytest.mark.parametrize("on_worker", [False, True], ids=["machines", "command"])
def test_where_all_machines_are_cut_off_the_run_ends_with_a_line_and_goes_on_later(
    tmp_path: Path, start: Callable[..., Any], on_worker: bool
) -> None:
    """Those with room for an actor, from the command and Ray's head; or the command's own, from Ray's head. Ray itself
    would wait for ever."""
    with start(1, 2) as nodes:
        run = Run(nodes, tmp_path, "--num-cpus", "1" if on_worker else "2", on_worker=on_worker)
        for number, _ in enumerate(run.units()):
            if number == 3:
                nodes.pull()
        assert run.process.returncode == 1
        errors = [line for line in run.lines if line.startswith("dpmesh: ")]
        assert len(errors) == 1 and "no machine with room for an actor has answered for 10 s" in errors[0]
        there = rows(tmp_path)
        assert 0 < len(there) < IMAGES and {*there.values()} == {2}
        again = Run(nodes, tmp_path)
        list(again.units())
        assert again.process.returncode == 0, again.lines
    assert rows(tmp_path) == all_of(tmp_path)
