"""`dpmesh predict` as a user meets it: exit status, one line for what is wrong, files that are whole."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpmesh.cli.main import main
from dpmesh.errors import InputError
from dpmesh.inference.image_list import list_images, result_names
from dpmesh.inference.options import ModelOptions
from dpmesh.inference.record import MARKER
from dpmesh.inference.scene import Scene

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
X = ("predict", "x.png", "--out", "o")
Run = Callable[..., int]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(PHOTO).save(folder / name)
    (folder / "notes.txt").write_text("not an image by its name")
    return folder


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


def names(folder: Path) -> set[str]:
    """All but the record, which is everywhere."""
    return {path.name for path in folder.iterdir()} - {MARKER}


@pytest.mark.usefixtures("loads")
def test_one_image(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(photos / "a.png", "--out", tmp_path / "o") == 0
    out, err = capsys.readouterr()
    assert "1 person" in out and str(tmp_path / "o" / "a") in out and err == ""
    assert "overlay.png" in names(tmp_path / "o" / "a")


@pytest.mark.usefixtures("loads")
def test_what_happened_is_printed_in_words(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Scene.save
    counts = {"turned": 1, "unposed": 2, "translation": 1}

    def save(scene: Scene, *words: Any, **named: Any) -> Path:
        object.__setattr__(scene, "fallbacks", counts)
        return plain(scene, *words, **named)

    monkeypatch.setattr(Scene, "save", save)
    assert predict(photos / "a.png", "--out", tmp_path / "o", "--save", "json") == 0
    out = capsys.readouterr().out
    assert "1 rotated detection; 2 boxes without keypoints; 1 distance from the crop camera" in out
    assert json.loads((tmp_path / "o" / "a" / "scene.json").read_text())["fallbacks"] == counts


def test_options_reach_the_predictor(loads: list[ModelOptions], photos: Path, tmp_path: Path) -> None:
    words = ("--weights", "w", "--device", "cpu", "--threads", 2, "--fast", "--save", "json", "--focal", 123)
    words += ("--body", "b.pkl", "--regressors", "r", "--no-refine", "--no-rotated-detection")
    assert predict(photos / "a.png", "--out", tmp_path / "o", *words) == 0
    wanted = ModelOptions(
        weights="w", device="cpu", threads=2, fast=True, body="b.pkl", regressors="r", refine=False,
        rotated_detection=False,
    )  # fmt: skip
    assert loads == [wanted]
    assert names(tmp_path / "o" / "a") == {"scene.json"}
    data = json.loads((tmp_path / "o" / "a" / "scene.json").read_text())
    assert data["K"][0][0] == 123 and data["focal_source"] == "given"
    assert predict(photos / "b.jpg", "--out", tmp_path / "o", "--fov", 90, "--save", "json", "--flip") == 0
    assert loads[1] == ModelOptions(flip=True)
    assert json.loads((tmp_path / "o" / "b" / "scene.json").read_text())["K"][0][0] == pytest.approx(40)


@pytest.mark.usefixtures("loads")
def test_folder_with_a_bad_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "b.jpg").write_bytes(b"\xff\xd8 broken")
    assert predict(photos, "--out", tmp_path / "o", "--save", "json") == 1
    out, err = capsys.readouterr()
    assert names(tmp_path / "o") == {"a", "c"}
    assert "1 of 3" in err and err.splitlines()[-1].strip().startswith(str(photos / "b.jpg"))
    assert "2 results" in out and len(err.splitlines()) == 4
    assert err.splitlines()[1].startswith(f"dpmesh: {photos / 'b.jpg'}")  # at once, and again at the end


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_one_bad_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert predict(tmp_path / "x.png", "--out", tmp_path / "o") == 1
    _, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and "x.png" in err
    assert not (tmp_path / "o").exists()


@pytest.mark.usefixtures("loads")
def test_pixel_limit_is_an_option(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(photos / "a.png", "--out", tmp_path / "o", "--max-pixels", 4799) == 1
    assert "80×60" in capsys.readouterr().err
    assert predict(photos / "a.png", "--out", tmp_path / "o", "--max-pixels", 4800, "--save", "json") == 0


@pytest.mark.usefixtures("loads")
def test_no_person_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "x.png")
    assert predict(tmp_path / "x.png", "--out", tmp_path / "o") == 0
    assert "no person detected" in capsys.readouterr().out
    assert json.loads((tmp_path / "o" / "x" / "scene.json").read_text())["people"] == []


def test_second_run_keeps_what_is_there(
    loads: list[ModelOptions], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (photos, "--out", tmp_path / "o", "--save", "json,npz")
    assert predict(*words) == 0
    marker = tmp_path / "o" / "a" / "marker"
    marker.touch()
    capsys.readouterr()
    assert predict(*words) == 0
    assert capsys.readouterr().out.count("--overwrite") == 3
    assert len(loads) == 1  # no model was loaded for nothing
    assert marker.exists()
    record = (tmp_path / "o" / "a" / MARKER).stat().st_ino
    assert predict(*words, "--overwrite") == 0
    assert len(loads) == 2 and (tmp_path / "o" / "a" / MARKER).stat().st_ino != record  # written anew
    assert marker.exists()  # it is none of ours


@pytest.mark.usefixtures("loads")
def test_result_of_another_image_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(photos / "a.png", "--out", tmp_path / "o", "--save", "json") == 0
    other = tmp_path / "a.png"
    Image.fromarray(PHOTO[:30]).save(other)
    assert predict(other, "--out", tmp_path / "o", "--save", "json") == 1
    assert "another image" in capsys.readouterr().err
    assert predict(other, "--out", tmp_path / "o", "--save", "json", "--overwrite") == 0


def test_names_of_results(tmp_path: Path) -> None:
    paths = [Path(p) for p in ("x/a.jpg", "x/a.png", "x/b.png", "y/a.jpg", "y/B.png", "x/c.tar.gif")]
    result = result_names(dict.fromkeys(paths, ""))
    assert result[Path("x/c.tar.gif")] == "c.tar"
    assert result[Path("x/a.jpg")] == "a.jpg" and result[Path("x/a.png")] == "a.png"
    assert len({name.casefold() for name in result.values()}) == len(paths)
    # An image keeps its name in a second run, so its result is recognised.
    assert result_names(dict.fromkeys(paths, "")) == result


def test_images_of_a_folder(photos: Path, tmp_path: Path) -> None:
    assert [p.name for p in list_images([str(photos), str(photos / "a.png")]).images] == [
        "a.png",
        "b.jpg",
        "c.png",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        list_images([str(tmp_path / "empty")])


@pytest.mark.usefixtures("loads")
def test_a_folder_without_images_does_not_stop_the_others(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    out = tmp_path / "out"
    assert predict(tmp_path / "empty", photos / "a.png", tmp_path / "locked", "--out", out) == 1
    printed, err = capsys.readouterr()
    assert (out / "a" / "scene.json").exists() and "a.png: 1 person" in printed
    lines = err.splitlines()
    assert len(lines) == 5 and "2 of 3 inputs failed" in lines[2]
    for empty, locked in (lines[:2], lines[3:]):
        assert "empty: the folder has no image" in empty
        assert "locked: the folder cannot be read (Permission denied)" in locked
    assert predict(tmp_path / "empty", tmp_path / "locked", "--out", tmp_path / "o2") == 1
    assert len(capsys.readouterr().err.splitlines()) == 5


@pytest.mark.usefixtures("loads")
def test_out_is_a_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o").write_text("in the way")
    assert predict(photos, "--out", tmp_path / "o") == 1
    assert len([x for x in capsys.readouterr().err.splitlines() if x.startswith("dpmesh: ")]) == 1


@pytest.mark.usefixtures("loads")
def test_keypoints_for_one_image(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "k.json"
    file.write_text(json.dumps({"people": [{"pose_keypoints_2d": [30.0, 30.0, 0.9] * 18}]}))
    out = ("--out", tmp_path / "o", "--save", "json")
    assert predict(photos / "a.png", *out, "--keypoints", file) == 0
    assert predict(photos / "b.jpg", *out, "--keypoints", tmp_path / "none.json") == 1
    assert predict(photos / "b.jpg", *out, "--boxes", "5,5,5,50") == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 2 and "no area" in err
    assert predict(photos, "--out", tmp_path / "p", "--keypoints", file) == 1  # names no image


@pytest.mark.parametrize(
    "words",
    [
        ["predict"], ["predict", "x.png"], [*X, "--nope"], ["nope"], ["--nope"],
        [*X, "--focal", "-1"], [*X, "--focal", "wide"],
        [*X, "--focal", "9", "--fov", "9"], [*X, "--fov", "180"],
        [*X, "--save", "fbx"], [*X, "--device", "tpu"],
        [*X, "--max-people", "0"], [*X, "--threads", "1.5"],
    ],
)  # fmt: skip
def test_wrong_argument_is_two_and_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert len(err.splitlines()) == 1 and out == "" and "_" not in err.split("argument")[-1]


@pytest.mark.usefixtures("loads")
def test_folders_are_searched_recursively_and_kept(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "sub").mkdir()
    (photos / "a.png").rename(photos / "sub" / "a.png")
    (photos / "._b.jpg").write_bytes(b"x")
    (photos / "clip.mov").write_bytes(b"x")
    out = photos / "out"
    for _ in range(2):  # the results are no inputs of the second run
        assert predict(photos, "--recursive", "--out", out, "--save", "json") == 0
        output = capsys.readouterr()
        assert "skipped in folders: 1 hidden image, 1 video (.mov)" in output.err
    assert "done before" in output.out
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("scene.json")) == [
        "b/scene.json", "c/scene.json", "sub/a/scene.json"
    ]  # fmt: skip
