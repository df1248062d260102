"""The actor of `dpmesh bulk` without Ray: what it does where the output or the reading fails."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bulk_fakes import touchy_predictor, write_photo

from dpmesh.bulk import ray_worker
from dpmesh.bulk.job import Job
from dpmesh.bulk.ray_worker import Ledger, Output, Worker
from dpmesh.bulk.sources import Unit
from dpmesh.errors import OutputError
from dpmesh.inference.options import ModelOptions, PredictOptions


class Calls:
    """A Ledger whose methods are called as an actor's."""

    def __init__(self) -> None:
        ledger = Ledger()
        self.begin, self.end = (SimpleNamespace(remote=one) for one in (ledger.begin, ledger.end))


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda value: value))
    monkeypatch.setattr(ray_worker.time, "sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    job = Job(model=ModelOptions(), people=PredictOptions(), out=Path(), load=touchy_predictor)
    return Worker(job, Output(str(tmp_path / "out"), 2, 100, str(tmp_path)), Calls())


def unit(folder: Path, images: int) -> Unit:
    return Unit("images", tuple(str(write_photo(folder / f"{i}.png", 40, i)) for i in range(images)))


def failing(worker: Worker, fails: Callable[[int], bool]) -> None:
    """Let the output not answer at some of its questions, counted from 1."""
    place, asked = worker.out, [0]

    class Store:
        type_name = place.fs.type_name

        def __getattr__(self, name: str) -> Any:
            return getattr(place.fs, name)

        def get_file_info(self, path: str) -> Any:
            asked[0] += 1
            if fails(asked[0]):
                raise OSError(110, "no answer")
            return place.fs.get_file_info(path)

    worker.out = type(place)(Store(), place.path, place.name)


def test_an_output_that_does_not_answer_is_no_unit_done(worker: Worker, tmp_path: Path) -> None:
    failing(worker, lambda _: True)
    with pytest.raises(OutputError, match="no answer"):
        worker({"unit": [unit(tmp_path / "album", 5).as_json()]})


def test_images_are_counted_once_however_often_a_unit_is_tried(worker: Worker, tmp_path: Path) -> None:
    failing(worker, lambda number: number in (3, 6))  # in the third part of the first try and of the second
    done = worker({"unit": [unit(tmp_path / "album", 5).as_json()]})
    assert done["images"] == [5] and done["people"] == [10] and done["kept"] == [0] and done["errors"] == [[]]
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 3
