"""`dpmesh predict --corrections` and `--hypotheses`: the same as in Python, recorded, compared when a run resumes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmesh.cli.main import main
from dpmesh.inference.corrections import Correction, Corrections, Entry
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
MOVE = Correction("move", 0, "L_Wrist", pixel=(30.0, 20.0))


def predict(*words: object) -> int:
    return main(["predict", *map(str, words), "--save", "npz,json"])


def write(path: Path, *entries: Entry) -> Path:
    Corrections(entries).write(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.usefixtures("loads")
def test_the_command_replays_what_python_did(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    predictor = Predictor.from_pretrained()
    scene = predictor(image)
    corrected = predictor.correct(scene, [MOVE])
    file = write(tmp_path / "c.json", Entry("a.png", scene.source_sha256, (MOVE,)))
    assert predict(image, "--corrections", file, "--out", out) == 0
    np.testing.assert_array_equal(Scene.load(out / "a").stacked("vertices"), corrected.stacked("vertices"))
    assert corrected.save(out, formats=["json"]) == out / "a"  # the same options: kept
    assert predict(image, "--corrections", file, "--out", out) == 0
    assert "kept" in capsys.readouterr().out
    assert predict(image, "--out", out) == 1
    assert "--corrections was 1 correction, is not set" in capsys.readouterr().err
    # Corrections of another image change nothing here.
    write(file, Entry("a.png", scene.source_sha256, (MOVE,)), Entry("b.png", "", (MOVE,)))
    assert predict(image, "--corrections", file, "--out", out) == 0
    assert predict(image, "--corrections", file, "--hypotheses", 3, "--out", out) == 1
    assert "--hypotheses was 1, is 3" in capsys.readouterr().err


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("step", "message"), [(Correction("delete", 9), "person 9 does not exist"), (MOVE, "other content")]
)
def test_corrections_that_do_not_fit_are_an_error_of_their_image(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: Correction, message: str
) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "b.png")
    sha256 = "0" * 64 if message == "other content" else ""
    file = write(tmp_path / "c.json", Entry("a.png", sha256, (step,)))
    assert predict(image, tmp_path / "b.png", "--corrections", file, "--out", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert message in err and (tmp_path / "o" / "b").is_dir() and not (tmp_path / "o" / "a").exists()


@pytest.mark.usefixtures("loads")
def test_a_missing_file_is_one_line(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(image, "--corrections", tmp_path / "none.json", "--out", tmp_path / "o") == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("loads")
def test_hypotheses_are_written(image: Path, tmp_path: Path) -> None:
    assert predict(image, "--hypotheses", 3, "--out", tmp_path / "o") == 0
    plain = json.loads((tmp_path / "o" / "a" / "scene.json").read_text())
    several = plain["people"][0]["hypotheses"]
    assert len(several) == 3 and sum(one["weight"] for one in several) == pytest.approx(1, abs=1e-5)
    assert several[0]["body_pose"] == plain["people"][0]["body_pose"]
    assert plain["options"]["hypotheses"] == 3
