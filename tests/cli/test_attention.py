"""`dpmesh attention` as a user meets it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmesh.cli.main import main
from dpmesh.model import DPMesh

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    DPMesh.from_config("embedded").save_pretrained(folder, {"data": "none"})
    return folder


def attention(*words: object) -> int:
    return main(["attention", *map(str, words)])


def test_every_person_of_an_image(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (EXAMPLES / "two_people.jpg", "--out", tmp_path / "o", "--weights", weights)
    assert attention(*words) == 0
    out, err = capsys.readouterr()
    folder = tmp_path / "o" / "two_people"
    assert "2 people" in out and str(folder) in out and err == ""
    assert len(list(folder.iterdir())) == 6 + 1  # and the record
    kept = (folder / "person_00.npz").read_bytes()
    assert attention(*words) == 0
    assert "kept" in capsys.readouterr().out
    assert attention(*words, "--boxes", "100,100,400,700") == 1
    err = capsys.readouterr().err
    assert "--boxes was not set, is 100,100,400,700" in err and "--overwrite" in err
    assert (folder / "person_00.npz").read_bytes() == kept
    assert attention(*words, "--overwrite", "--boxes", "100,100,400,700") == 0
    assert len(list(folder.iterdir())) == 3 + 1  # one person now, nothing of the old result left
    with np.load(folder / "person_00.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(stored["crop_box"].reshape(2, 2).mean(0), [250, 400])


@pytest.mark.parametrize(
    ("image", "words", "message"),
    [
        ("none.png", (), "no such file"),
        ("text.png", (), "not an image"),
        ("grey.png", (), "no person detected"),
        ("grey.png", ("--boxes", "5,5,5,50"), "no area"),
        ("grey.png", ("--keypoints", "none.json"), "no such file"),
        ("grey.png", ("--body", "none.pkl"), "no such body file"),
    ],
)
def test_what_is_wrong_is_one_line(
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    image: str,
    words: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "text.png").write_text("not an image")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "grey.png")
    assert attention(tmp_path / image, "--out", tmp_path / "o", "--weights", weights, *words) == 1
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and message in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("words", [[], ["x.png"], ["x.png", "--out", "o", "--threads", "0"]])
def test_wrong_argument_is_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        attention(*words)
    assert caught.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
