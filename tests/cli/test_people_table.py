"""`dpmesh predict --save jsonl,parquet` and `--glb-image`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpmesh.cli.main import main
from dpmesh.inference.options import ModelOptions


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, name in enumerate("ab"):
        Image.fromarray(np.full((60, 80 + i, 3), 120, np.uint8)).save(tmp_path / f"{name}.jpg")
    return tmp_path


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


def images(out: Path) -> list[str]:
    return [Path(image).name for image in pd.read_json(out / "people.jsonl", lines=True)["image"]]


def test_one_table_for_the_whole_folder(
    photos: Path, loads: list[ModelOptions], capfd: pytest.CaptureFixture[str]
) -> None:
    out = photos / "out"
    assert predict(photos, "--out", out, "--save", "overlay,jsonl") == 0
    assert f"2 people of all results in {out} → {out / 'people.jsonl'}" in capfd.readouterr().out
    assert images(out) == ["a.jpg", "b.jpg"]
    assert {p.name for p in (out / "a").iterdir()} == {
        ".dpmesh.json",
        "overlay.png",
        "side.png",
        "scene.json",
    }
    first = (out / "people.jsonl").read_bytes()
    assert predict(photos, "--out", out, "--save", "jsonl") == 0 and len(loads) == 1  # all is kept
    assert (out / "people.jsonl").read_bytes() == first
    Image.fromarray(np.full((60, 90, 3), 120, np.uint8)).save(photos / "c.jpg")
    assert predict(photos / "c.jpg", "--out", out, "--save", "json") == 0  # a table that is there is kept up
    assert images(out) == ["a.jpg", "b.jpg", "c.jpg"]
    assert predict(photos, "--out", out, "--save", "parquet", "--overwrite") == 0
    assert len(pd.read_parquet(out / "people.parquet")) == len(images(out)) == 3


def test_the_table_of_a_recursive_run_has_the_people_of_every_folder(
    photos: Path, loads: list[ModelOptions], capfd: pytest.CaptureFixture[str]
) -> None:
    """Also of images of one name in several folders, and of those that an earlier run wrote without a table."""
    deep, out = photos / "deep" / "er", photos / "out"
    deep.mkdir(parents=True)
    for path in (deep / "a.jpg", deep / "v1.2.jpg", photos / "deep" / "a.jpg"):
        Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(path)
    names = ["a.jpg", "b.jpg", "a.jpg", "a.jpg", "v1.2.jpg"]
    assert predict(photos / "deep", photos / "a.jpg", "--recursive", "--out", out, "--save", "json") == 0
    assert predict(photos, "--recursive", "--out", photos / "all", "--save", "overlay,jsonl") == 0
    assert f"5 people of all results in {photos / 'all'}" in capfd.readouterr().out
    assert sorted(images(photos / "all")) == sorted(names)
    (photos / "list.txt").write_text("deep/er/a.jpg\ndeep/a.jpg\na.jpg\n")
    assert predict(photos / "list.txt", "--out", photos / "listed", "--save", "jsonl") == 0
    assert images(photos / "listed") == ["a.jpg"] * 3
    assert predict(photos / "b.jpg", "--out", out, "--save", "jsonl") == 0
    assert sorted(images(out)) == sorted(names)


def test_a_table_is_refused_before_the_model_is_loaded(
    photos: Path, loads: list[ModelOptions], capfd: pytest.CaptureFixture[str]
) -> None:
    out = photos / "out"
    out.mkdir()
    (out / "people.jsonl").write_text("mine")
    assert predict(photos, "--out", out, "--save", "jsonl") == 1 and not loads
    assert "people.jsonl: was not written by dpmesh" in capfd.readouterr().err
    assert [p.name for p in out.iterdir()] == ["people.jsonl"]
    with pytest.raises(SystemExit):
        predict(photos, "--out", out, "--save", "csv")
    assert "none of overlay,glb,obj,npz,json,jsonl,parquet" in capfd.readouterr().err


def test_a_damaged_result_fails_the_table_not_the_images(
    photos: Path, loads: list[ModelOptions], capfd: pytest.CaptureFixture[str]
) -> None:
    out = photos / "out"
    assert predict(photos / "a.jpg", "--out", out, "--save", "json") == 0
    (out / "a" / "scene.json").write_text("{")
    assert predict(photos / "b.jpg", "--out", out, "--save", "jsonl") == 1
    streams = capfd.readouterr()
    assert "a/scene.json: is not JSON" in streams.err and list((out / "people.rows").glob("part-*.jsonl"))
    assert not (out / "people.jsonl").exists()


def test_the_image_in_the_glb(
    photos: Path, loads: list[ModelOptions], capfd: pytest.CaptureFixture[str]
) -> None:
    words = (photos / "a.jpg", "--out", photos / "out", "--save", "glb")
    assert predict(*words) == 0
    plain = (photos / "out" / "a" / "scene.glb").read_bytes()
    assert predict(*words, "--glb-image") == 1 and len(loads) == 1
    assert "--glb-image was off, is on" in capfd.readouterr().err
    assert predict(*words, "--glb-image", "--overwrite") == 0
    assert b"image/jpeg" in (photos / "out" / "a" / "scene.glb").read_bytes() and b"image/jpeg" not in plain
