"""One run at a time on an output in an object store."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bulk_fakes import touchy_predictor, write_photo

from dpmesh.bulk import lease
from dpmesh.bulk.job import Job
from dpmesh.bulk.lease import LEASE, lease_on
from dpmesh.bulk.ray_run import BulkOptions, BulkRun
from dpmesh.bulk.storage import Place, place_of, read, write
from dpmesh.errors import OutputError
from dpmesh.inference.options import ModelOptions, PredictOptions

LEFT = b'{"run": "00", "machine": "gone", "process": 7}'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "PERIOD", 0.25)


@pytest.fixture(params=["memory://", "flaky://"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = place_of(f"{request.param}{tmp_path}/out")
    yield place
    if place.fs.get_file_info(place.path).is_file:
        place.fs.delete_dir(place.path)


def there(out: Place) -> bool:
    place = out / LEASE
    return bool(place.fs.get_file_info(place.path).is_file)


def test_a_second_run_is_refused_and_the_first_goes_on(out: Place) -> None:
    with lease_on(out) as first:
        with (
            pytest.raises(OutputError, match=r"another bulk run is writing here \(process \d+ on "),
            lease_on(out),
        ):
            pass
        first.check()
        assert there(out)
    assert not there(out)
    with lease_on(out):
        pass


def test_what_a_killed_run_has_left_is_taken_over(out: Place) -> None:
    for left in (LEFT, b"[1]"):
        write(out / LEASE, left)
        start = time.monotonic()
        with lease_on(out) as own:
            assert time.monotonic() - start > 0.8  # it was watched
            own.check()
        assert not there(out)
    write(out / LEASE, b"no JSON")
    with pytest.raises(OutputError, match=r"_lease.json: cannot be read .* Remove it"), lease_on(out):
        pass
    assert there(out)


def test_a_run_whose_output_was_taken_over_ends(out: Place) -> None:
    with lease_on(out) as own:
        write(out / LEASE, LEFT)
        time.sleep(0.6)
        with pytest.raises(OutputError, match="taken this output over \\(process 7 on gone\\)"):
            own.check()
    assert read(out / LEASE, 100) == LEFT  # not ours to remove


def test_of_two_that_start_together_one_goes_on(out: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one writes between our look and our check."""
    original = time.sleep

    def slept(seconds: float) -> None:
        write(out / LEASE, LEFT)
        original(seconds)

    monkeypatch.setattr(lease.time, "sleep", slept)
    with pytest.raises(OutputError, match="process 7 on gone"), lease_on(out):
        pass
    assert there(out)


def test_bulk_runs_hold_it(out: Place, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    photo = write_photo(tmp_path / "a.png")
    job = Job(model=ModelOptions(), people=PredictOptions(), out=Path(), load=touchy_predictor)
    first = BulkRun(job, [str(photo)], out.name, BulkOptions())
    assert json.loads(read(out / LEASE, 1000))["count"] == 1
    with pytest.raises(OutputError, match="another bulk run is writing here"):
        BulkRun(job, [str(photo)], out.name, BulkOptions())
    first.units = []
    assert list(first.run()) == [] and not there(out)
    again = BulkRun(job, [str(photo)], out.name, BulkOptions())  # its own lease is not a file of the user
    again.units = []
    list(again.run())
