"""`dpmesh compare` as a user meets it, and its drawings."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dpmesh.cli import compare as verb
from dpmesh.cli.main import main
from dpmesh.errors import ConfigError, OutputError
from dpmesh.evaluate.baselines import METHODS, OF_CLIPS, Method
from dpmesh.evaluate.qualitative import comparison, figure
from dpmesh.evaluate.qualitative.columns import open_columns
from dpmesh.evaluate.qualitative.comparison import compare
from dpmesh.inference.detector import Detector
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.staging import CLAIM, claim_of
from dpmesh.model import DPMesh

EXAMPLES = Path(__file__).parents[2] / "examples"
PEOPLE = "14,10,60,110;70,20,110,118"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of one configuration, in folders of one name."""
    folders = [tmp_path_factory.mktemp(name) / "mine" for name in ("first", "second")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        DPMesh.from_config("embedded").save_pretrained(folder, {"data": "none"})
    return folders


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(EXAMPLES / "two_people.jpg") as image:
        image.resize((120, 120)).save(folder / "a.png")
    return folder


def run(*words: object) -> int:
    return main(["compare", *map(str, words)])


def options(weights: list[Path], *images: str) -> tuple[object, ...]:
    """Two people in every image. images: their names, where there are several."""
    both = [word for folder in weights for word in ("--weights", folder)]
    people: object = PEOPLE
    if images:
        people = weights[0].parent / "boxes.json"
        rows = [[int(n) for n in box.split(",")] for box in PEOPLE.split(";")]
        people.write_text(json.dumps(dict.fromkeys(images, rows)))
    return (*both, "--boxes", people, "--size", 200, "--threads", 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_sheets_page_and_record(
    weights: list[Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, out = "<b>&'x y.png", tmp_path / "o"
    (photos / odd).write_bytes((photos / "a.png").read_bytes())
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    words = (photos, "--out", out, *options(weights, "a.png", odd), "--method", "network", "flip", "--panels")
    assert run(*words) == 1
    printed, err = capsys.readouterr()
    assert "2 of 3 compared" in printed and len(err.splitlines()) == 1 and "broken.jpg" in err
    assert {p.name for p in out.iterdir()} == {"a", "<b>&'x y", "index.html"}

    record = json.loads((out / "a" / "comparison.json").read_text())
    assert [len(record[k]) for k in ("people", "columns", "source_sha256")] == [2, 4, 64]
    assert [c["method"] for c in record["columns"]] == ["network", "flip"] * 2
    assert record["columns"][0]["title"] != record["columns"][2]["title"]  # two folders of one name
    assert record["columns"][0]["sha256"] != record["columns"][2]["sha256"] != ""
    assert record["people_from"] == "boxes of the user"
    panels = {p.name: Image.open(p).size for p in (out / "a").glob("*_0?.png")}
    assert len(panels) == 8 and {panels[f"overlay_{i:02d}.png"] for i in range(4)} == {(200, 200)}
    assert len({panels[f"side_{i:02d}.png"] for i in range(4)}) == 1

    page = (out / "index.html").read_text()
    assert "<b>&'x" not in page and "&lt;b&gt;&amp;&#x27;x y.png" in page
    assert 'src="%3Cb%3E%26%27x%20y/sheet.png"' in page and "broken.jpg" in page
    assert "http" not in page and "<script" not in page


def test_folders_below_are_compared_and_shown(
    weights: list[Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by predict: --recursive keeps the folders; a later run's page shows their results too."""
    out, deep = tmp_path / "o", photos / "deep" / "er"
    deep.mkdir(parents=True)
    (deep / "a.png").write_bytes((photos / "a.png").read_bytes())
    words = ("--out", out, *options(weights[:1], "photos/a.png", "er/a.png"))
    assert run(photos, *words, "--recursive") == 0
    assert "2 of 2 compared" in capsys.readouterr().out
    assert (out / "deep" / "er" / "a" / "sheet.png").is_file() and (out / "a" / "sheet.png").is_file()
    for _ in range(2):
        page = (out / "index.html").read_text()
        assert 'src="a/sheet.png"' in page and 'src="deep/er/a/sheet.png"' in page
        assert run(photos / "a.png", *words) == 0


def test_all_columns_get_the_same_people(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    detect = Detector.__call__
    monkeypatch.setattr(Detector, "__call__", lambda *a: (calls.append(1), detect(*a))[1])
    columns = open_columns(["embedded"], ["network", "fit", "flip", "t-pose"])
    assert [c.title for c in columns] == ["embedded", "embedded", "Keypoint fit", "T-pose"]
    result = compare(columns, EXAMPLES / "two_people.jpg", PredictOptions(max_people=2))
    assert len(calls) == 1
    first, *others = result.scenes
    assert len(first.people) == 2
    for other in others:
        for name in ("box", "keypoints2d", "score"):
            np.testing.assert_array_equal(first.stacked(name), other.stacked(name))
        assert np.abs(first.stacked("vertices") - other.stacked("vertices")).max() > 1e-3
    # What one column counts is not in another's record.
    assert all(scene.fallbacks.get("no_keypoints", 0) <= 2 for scene in result.scenes)


def test_output_folder_is_safe(
    weights: list[Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    words = (photos / "a.png", "--out", out, *options(weights[:1]))
    (out / "a").mkdir(parents=True)
    (out / "a" / "thesis.tex").write_text("mine")
    assert run(*words) == 1 and run(*words, "--overwrite") == 1
    assert contents(out) == {"a/thesis.tex": b"mine"}
    (out / "a" / "thesis.tex").rename(tmp_path / "thesis.tex")
    (out / "a").rmdir()
    (out / "index.html").write_text("<html>my own page</html>")
    assert run(*words, "--overwrite") == 1
    assert contents(out) == {"index.html": b"<html>my own page</html>"}
    (out / "index.html").unlink()
    capsys.readouterr()

    assert run(*words) == 0
    before = contents(out)
    assert run(*words) == 0 and "kept" in capsys.readouterr().out
    assert run(*words, "--crop") == 1 and "--overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert run(*words, "--crop", "--overwrite") == 0
    assert contents(out) != before
    assert run(*words, "--no-legend") == 1 and "--overwrite" in capsys.readouterr().err
    (out / "a" / "note.txt").write_text("mine")
    assert run(*words, "--overwrite") == 1
    assert (out / "a" / "note.txt").read_text() == "mine"


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_next(
    weights: list[Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file it was at, also while a comparison is made again with fewer files."""
    out = tmp_path / "o"
    words = (photos / "a.png", "--out", out, *options(weights[:1]))
    (out / "a").mkdir(parents=True)  # an empty folder is free
    assert run(*words, "--panels") == 0
    finished = shutil.copytree(out, tmp_path / "finished")
    write = comparison.atomic_write
    for at in (1, 2, 4):
        left = [at]

        def stop(path: Path, data: bytes, left: list[int] = left) -> None:
            if path.parent.name == "a":
                left[0] -= 1
                if not left[0]:
                    path.with_name(f".{path.name}.0123abcd.part").write_bytes(b"half")
                    raise Killed
            write(path, data)

        monkeypatch.setattr(comparison, "atomic_write", stop)
        with pytest.raises(Killed):
            run(*words, "--panels", "--crop", "--overwrite")
        monkeypatch.setattr(comparison, "atomic_write", write)
        assert (
            run(*words, *(["--overwrite"] if at == 1 else [])) == 0
        )  # before the record, nothing has changed
        assert {p.name for p in (out / "a").iterdir()} == {"sheet.png", "comparison.json"}
        assert {p.name for p in out.iterdir()} == {"a", "index.html"}
        shutil.rmtree(out)
        shutil.copytree(finished, out)


def test_a_folder_aside_is_taken_over_if_it_is_ours(
    weights: list[Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    part = out / ".a.dpmesh-part"
    part.mkdir(parents=True)
    (part / "sheet.png").write_bytes(b"half")
    words = (photos / "a.png", "--out", out, *options(weights[:1]))
    assert run(*words, "--overwrite") == 1 and "is in the way" in capsys.readouterr().err
    assert contents(out) == {".a.dpmesh-part/sheet.png": b"half"}
    (part / CLAIM).write_bytes(claim_of(part))
    assert run(*words) == 0
    assert set(contents(out)) == {"a/sheet.png", "a/comparison.json", "index.html"}


@pytest.mark.parametrize("names", [["thesis.tex"], ["../b.txt"], [7], "sheet.png"])
def test_a_record_names_no_file_of_the_users(tmp_path: Path, names: object) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    for key in ("files", "pending"):
        record = {"schema": comparison.SCHEMA, "files": [], "pending": []} | {key: names}
        (folder / "comparison.json").write_text(json.dumps(record))
        with pytest.raises(OutputError, match="holds something else"):
            comparison.refuse_foreign(folder, True)


def test_names_do_not_steer_the_terminal(
    weights: list[Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = photos / "x\x1b[31m\n\u202ey.png"
    (photos / "a.png").rename(odd)
    (photos / "\x1b[2Jbroken.jpg").write_bytes(b"\xff\xd8 broken")
    (tmp_path / "empty\n").mkdir()
    assert run(photos, tmp_path / "empty\n", "--out", tmp_path / "o", *options(weights[:1], odd.name)) == 1
    out, err = capsys.readouterr()
    assert not {"\x1b", "\u202e"} & set(out + err)
    assert len(out.splitlines()) == 2 and r"x\x1b[31m\n\u202ey.png: 2 people" in out
    assert len(err.splitlines()) == 2 and "is not an image" in err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["x.png"],
        ["x.png", "--out", "o", "--method", "magic"],
        ["x.png", "--out", "o", "--size", "20"],
        ["x.png", "--out", "o", "--label", "one", "--label", "two"],
    ],
)
def test_wrong_argument_is_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_the_same_weights_may_have_two_titles(weights: list[Path], photos: Path, tmp_path: Path) -> None:
    twice = ("--weights", weights[0], "--weights", weights[0])
    more = ("--boxes", PEOPLE, "--size", 200, "--threads", 1)
    words = (photos / "a.png", "--out", tmp_path / "o", *twice, *more)
    assert run(*words, "--label", "first", "--label", "second") == 0
    record = json.loads((tmp_path / "o" / "a" / "comparison.json").read_text())
    assert [column["title"] for column in record["columns"]] == ["first", "second"]


def test_columns_are_checked(weights: list[Path]) -> None:
    assert {*verb.METHODS} == {*METHODS} - {*OF_CLIPS} | {"network"}
    with pytest.raises(ConfigError, match="labels"):
        open_columns(weights, labels=["one"])
    with pytest.raises(ConfigError, match="method of clips"):
        open_columns(weights[:1], methods=["gaussian"])
    with pytest.raises(ConfigError, match="columns"):
        open_columns([str(i) for i in range(13)])


def test_an_image_without_people_is_a_sheet_too(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 40), (90, 90, 90)).save(photos / "grey.png")
    result = compare(open_columns(), photos / "grey.png")
    folder = result.save(tmp_path / "o", size=200)
    assert Image.open(folder / "sheet.png").size[0] > 600
    with pytest.raises(OutputError):
        result.save(tmp_path / "o", size=200)


@pytest.mark.slow
def test_a_sheet_for_a_paper(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No title is smaller than 6 pt on 7 inches; the legend goes, and nothing else."""
    sizes: list[float] = []
    written = figure.write_lines

    def noted(image: np.ndarray, lines: Sequence[tuple[str, float, bool]], *a: Any, **more: Any) -> float:
        sizes.extend(size for _, size, _ in lines)
        return written(image, lines, *a, **more)

    monkeypatch.setattr(figure, "write_lines", noted)
    methods: tuple[Method, ...] = ("fit", "t-pose", "blank", "network", "lifter")
    result = compare(open_columns(["embedded"], methods), photos / "a.png", PredictOptions(boxes=PEOPLE))
    panels = result.panels(200)
    plain = result.sheet(panels, legend=False)
    assert len(sizes) > 14 and min(sizes) * 7 * 72 / plain.shape[1] >= 6
    sheet = result.sheet(panels)
    assert sheet.shape == plain.shape
    rows, columns = np.nonzero((sheet != plain).any(-1))
    assert columns.max() < 2 * plain.shape[1] / 7 and rows.min() > plain.shape[0] / 2
    assert (plain[rows, columns] == 255).all()
