"""The actor of `dpmesh bulk` without Ray: what it does where the output or the reading fails."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from bulk_fakes import EMPTY, touchy_predictor, write_photo
from PIL import Image

from dpmesh.bulk import ray_worker
from dpmesh.bulk.job import Job
from dpmesh.bulk.ray_worker import Ledger, Output, Worker
from dpmesh.bulk.sources import Unit
from dpmesh.errors import OutputError
from dpmesh.inference.options import ModelOptions, PredictOptions
from dpmesh.inference.people_rows import ROW_COLUMNS
from dpmesh.inference.scene import Scene
from dpmesh.inference.scene_drawing import thumbnail


class Calls:
    """A Ledger whose methods are called as an actor's."""

    def __init__(self) -> None:
        ledger = Ledger()
        self.begin, self.end = (SimpleNamespace(remote=one) for one in (ledger.begin, ledger.end))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda value: value))
    monkeypatch.setattr(ray_worker.time, "sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    return Job(model=ModelOptions(), people=PredictOptions(), out=Path(), load=touchy_predictor)


@pytest.fixture
def worker(tmp_path: Path, job: Job) -> Worker:
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


def test_thumbnails(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG in the first row of each image: bodies on the image, none enlarged; an error is that of its image."""
    plain = np.full((180, 240, 3), 100, np.uint8)
    photos = [tmp_path / f"{name}.png" for name in ("large", "faulty", "people", "empty", "damaged")]
    for path, image in zip(
        photos, (plain, plain[:90, :120], plain[:30, :40], plain[:5, :EMPTY]), strict=False
    ):
        Image.fromarray(image).save(path)
    photos[-1].write_text("no image")

    def drawn(scene: Scene, longest: int) -> bytes:
        if scene.image_size == (90, 120):
            raise ZeroDivisionError("no such body")
        return thumbnail(scene, longest)

    monkeypatch.setattr(ray_worker, "thumbnail", drawn)
    output = Output(str(tmp_path / "out"), 10, 100, str(tmp_path), thumbnails=60)
    done = Worker(job, output, Calls())({"unit": [Unit("images", (*map(str, photos),)).as_json()]})
    assert done["images"] == [5] and done["people"] == [4]
    assert [error.partition(".png: ")[2][:28] for error in done["errors"][0]] == [
        "unexpected ZeroDivisionError",
        "is not an image that can be ",
    ]
    table = ds.dataset(tmp_path / "out").to_table()
    assert (
        table.column_names == [*ROW_COLUMNS, "thumbnail"] and table.schema.field("thumbnail").type == "binary"
    )
    found = [(Path(row["image"]).stem, row["person"], row["thumbnail"]) for row in table.to_pylist()]
    files = {(name, person): Image.open(io.BytesIO(data)) for name, person, data in found if data is not None}
    assert {key: (file.format, file.size) for key, file in files.items()} == {
        ("large", 0): ("JPEG", (60, 45)),
        ("people", 0): ("JPEG", (40, 30)),
        ("empty", None): ("JPEG", (5, 5)),
    }
    assert len(found) == 7
    assert np.abs(np.asarray(files["empty", None], int) - 100).max() < 5
    assert np.ptp(np.asarray(files["large", 0])) > 50  # bodies
