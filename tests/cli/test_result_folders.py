"""Result folders, in an album of difficult names: no file of the user is lost, changed or mixed with another."""

import json
import os
import sys
from itertools import product
from pathlib import Path

import pytest
from result_album import RAW, assert_unmixed, originals, results

from dpmesh.cli.main import main
from dpmesh.inference.record import MARKER


@pytest.mark.usefixtures("loads")
def test_every_combination(album: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One after the other in the same album, so that each run meets what the others left."""
    before = originals(album)
    images = [str(album / name) for name in ("park", "photo", RAW)]
    outs = [album, album / "park", album.parent / "link", album.parent / "nowhere"]
    options = [("--save", "json"), ("--save", "obj", "--focal", "99"), ("--save", "json", "--overwrite")]
    runs = [*product([str(album)], outs[:1], options), *product(images, outs, options)]
    for image, out, words in runs:
        status = main(["predict", image, "--out", str(out), *words])
        printed, err = capfd.readouterr()
        assert status in (0, 1) and (status == 1) == bool(err), (image, out, words)
        assert "Traceback" not in err and "unexpected" not in err, err
        assert "\x1b" not in printed + err and "\u202e" not in printed + err
        assert originals(album) == before, (image, out, words)
        assert_unmixed(album)
    assert not [
        p
        for p in album.parent.rglob("*")
        if p.name.endswith(("-part", ".lock")) and p.name != ".k.dpmesh-part"
    ]


CASES: list[tuple[str, str, list[str], int, str]] = [
    ("its own folder", "park/park.jpg", ["--out", "."], 1, "holds the input"),
    ("a folder of the same name", "holiday.jpg", ["--out", "."], 1, "is not known to be a result"),
    ("the same, by force", "holiday.jpg", ["--out", ".", "--overwrite"], 1, "is not known to be a result"),
    ("no suffix", "photo", ["--out", "."], 1, "is itself an input"),
    ("the same, by force", "photo", ["--out", ".", "--overwrite"], 1, "is itself an input"),
    ("a file in the way", "photo.jpg", ["--out", "."], 1, "is a file"),
    ("a dot for a stem", "..jpg", ["--out", "."], 1, "is itself an input"),
    ("two dots for a stem", "...jpg", ["--out", "new"], 0, ""),
    ("only dots", "....", ["--out", "new"], 0, ""),
    ("a folder's link of the same name", "link target.jpg", ["--out", "."], 1, "is not known to be a result"),
    ("a link where the folder aside would be", "k.jpg", ["--out", "."], 1, "is a link and in the way"),
    ("out is an image", "a.png", ["--out", "a.jpg"], 1, "cannot be written"),
    ("out leads nowhere", "a.png", ["--out", "../nowhere"], 1, "cannot be written"),
    ("a name that is too long", "y" * 5000, ["--out", "new"], 1, "longer than a path"),
    ("out is too long", "a.png", ["--out", "y" * 5000], 1, "longer than a path"),
    ("keypoints are too long", "a.png", ["--out", "new", "--keypoints", "y" * 5000], 1, ""),
    ("boxes are too many", "a.png", ["--out", "new", "--boxes", "1,1,9,9;" * 5000], 1, "more than 1,000"),
    ("weights are too long", "a.png", ["--out", "holiday", "--weights", "y" * 5000], 0, ""),  # the fake takes any
    ("an empty name", "", ["--out", "new"], 1, "empty name"),
    ("a missing image", "none.jpg", ["--out", "new"], 1, "no such file"),
    ("long names", "x" * 250 + ".jpg", ["--out", "new"], 0, ""),
    ("long names of many bytes", "\u6f22" * 80 + ".jpg", ["--out", "new"], 0, ""),
    ("a name that is no UTF-8", RAW, ["--out", "new"], 0, ""),
]  # fmt: skip


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("image", "words", "status", "message"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_case(
    album: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    image: str,
    words: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(album)
    before = originals(album)
    assert main(["predict", image, *words, "--save", "json,obj"]) == status
    err = capfd.readouterr().err
    assert message in err and len(err.splitlines()) == status, err
    assert originals(album) == before
    assert len(results(album)) == 1 - status


@pytest.mark.usefixtures("loads")
def test_formats_add_up(album: Path) -> None:
    out, result = album / "new", album / "new" / "a"
    words = ["predict", str(album / "a.jpg"), "--out", str(out), "--save"]
    wanted: set[str] = {MARKER}
    for saved, files in (
        ("npz", {"scene.npz"}),
        ("json", {"scene.json"}),
        ("obj", {"person_00.obj", "person_00.mtl"}),
        ("overlay,json", {"overlay.png", "side.png"}),
        ("glb", {"scene.glb"}),
    ):
        times = {p.name: p.stat().st_mtime_ns for p in result.iterdir()} if wanted > {MARKER} else {}
        assert main([*words, saved]) == 0
        wanted |= files
        assert {p.name for p in result.iterdir()} == wanted
        untouched = times.keys() - {MARKER}
        assert {name: (result / name).stat().st_mtime_ns for name in untouched} == {
            n: times[n] for n in untouched
        }
    (result / "scene.glb").unlink()
    assert main([*words, "glb"]) == 0 and (result / "scene.glb").exists()
    # By force, all that was there is made again: nothing is removed and nothing of the old result is left.
    old = {p.name: p.stat().st_ino for p in result.iterdir()}
    assert main([*words, "json", "--overwrite", "--focal", "500"]) == 0
    assert {p.name for p in result.iterdir()} == wanted
    assert not {n for n in wanted if (result / n).stat().st_ino == old[n]}


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--focal", "500"], "--focal was not set, is 500"),
        (["--fov", "50"], "--fov was not set, is 50"),
        (["--no-refine", "--flip"], "--no-refine was off, is on; --flip was off, is on"),
        (["--no-refine"], "--no-refine was off, is on"),
        (["--fast"], "--fast was off, is on"),
        (["--no-rotated-detection"], "--no-rotated-detection was off, is on"),
        (["--max-people", "3"], "--max-people was 20, is 3"),
        (["--boxes", "1,1,9,9"], "--boxes was not set, is 1,1,9,9"),
        (["--keypoints", "k.json"], "--keypoints was not set, is k.json"),
        (["--weights", "w"], "--weights was embedded, is w"),
        (["--colour", "sigma"], "--colour was person, is sigma"),
        (["--device", "cpu", "--threads", "2", "--max-pixels", "9999"], ""),
    ],
)
def test_another_option_is_named(
    album: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    """Of all formats, also without a scene.json that has the options."""
    monkeypatch.chdir(album)
    Path("k.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": [9.0, 9.0, 0.9] * 18}]}))
    Path("w").mkdir()
    for name in ("config.json", "model.safetensors"):
        (Path("w") / name).write_text('{"config": {}, "provenance": {}}')
    base = ["predict", "a.jpg", "--out", "new", "--save", "overlay" if "--colour" in words else "obj"]
    assert main(base) == 0
    before = {p: p.stat().st_mtime_ns for p in Path("new").rglob("*")}
    capfd.readouterr()
    assert main([*base, *words]) == bool(message)
    out, err = capfd.readouterr()
    assert message in err and ("--overwrite" in err if message else "kept" in out)
    assert {p: p.stat().st_mtime_ns for p in Path("new").rglob("*")} == before


@pytest.mark.usefixtures("loads")
def test_other_content_of_a_file_is_another_option(album: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = album / "k.json"
    words = [
        "predict",
        str(album / "a.jpg"),
        "--out",
        str(album / "new"),
        "--save",
        "obj",
        "--keypoints",
        str(file),
    ]
    for x, status in ((9.0, 0), (9.0, 0), (10.0, 1)):
        file.write_text(json.dumps({"people": [{"pose_keypoints_2d": [x, 9.0, 0.9] * 18}]}))
        assert main(words) == status
    assert "--keypoints was k.json, is a file of that name with other content" in capfd.readouterr().err


@pytest.mark.usefixtures("loads")
def test_rights_are_the_umasks(album: Path) -> None:
    old = os.umask(0o022)
    try:
        assert main(["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save", "json,obj"]) == 0
        assert main(["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save", "npz"]) == 0
    finally:
        os.umask(old)
    paths = [album / "new", album / "new" / "a", *(album / "new" / "a").iterdir()]
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in paths} == {
        p.name: "0o755" if p.is_dir() else "0o644" for p in paths
    }


@pytest.mark.usefixtures("loads")
def test_two_writers(album: Path, tmp_path: Path) -> None:
    """At once into one folder, with and without force: every result is whole and of one run, no file is lost."""
    before = originals(album)
    base = [
        "predict",
        *(str(album / name) for name in ("a.jpg", "holiday.jpg", "k.jpg")),
        "--out",
        str(album / "new"),
    ]
    runs: dict[int, Path] = {}
    for i, words in enumerate(
        [["json,obj"], ["json,npz", "--overwrite", "--focal", "77"], ["npz", "--overwrite"]]
    ):
        log = tmp_path / f"log{i}"
        if not (child := os.fork()):
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                sys.stdout = sys.stderr = open(file.fileno(), "w", closefd=False)  # noqa: SIM115  # not pytest's
                status = main([*base, "--save", *words])
                sys.stdout.flush()
            os._exit(status)
        runs[child] = log
    for child, log in runs.items():
        _, status = os.waitpid(child, 0)
        text = log.read_text()
        assert os.waitstatus_to_exitcode(status) in (0, 1) and "unexpected" not in text, text
    assert originals(album) == before
    assert_unmixed(album)
    assert len(results(album)) == 3
    assert not list((album / "new").glob(".*-part"))
