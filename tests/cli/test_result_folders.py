"""Result folders, in an album of difficult names: no file of the user is lost, changed or mixed with another."""

import hashlib
import json
import os
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmesh.cli.main import main
from dpmesh.inference.record import MARKER
from dpmesh.inference.staging import CLAIM, claim_of

RAW = os.fsdecode(b"caf\xe9.jpg")
"""A name that is no UTF-8."""
NAMES = (
    "park/park.jpg", "park/tree.jpg", "holiday.jpg", "photo", "photo.jpg", "..jpg", "...jpg", "....", ".hidden.jpg",
    "line\nbreak.jpg", "esc\x1b[31mred.jpg", "[bold]markup[/] :smile:.jpg", "\u202egpj.jpg", RAW, "\u00e9.jpg",
    "e\u0301.jpg", "A.JPG", "a.jpg", "a.png", "k.jpg", "\u6f22" * 80 + ".jpg", "x" * 250 + ".jpg", "-o.jpg",
    "link target.jpg",
)  # fmt: skip


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Images and other files and links."""
    folder = tmp_path / "album"
    for i, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            Image.fromarray(np.full((24, 20 + i, 3), 9 * i, np.uint8)).save(file, "PNG")
    (folder / "holiday").mkdir()
    (folder / "holiday" / "diary.txt").write_text("three days of rain")
    (folder / "holiday" / "scene.json").write_text('{"schema": "someone else\'s"}')
    (folder / ".park.old").mkdir()
    (folder / ".park.old" / "scene.json").write_text("mine")
    (folder / ".a.jpg.partial").write_text("mine")
    (folder / ".k.dpmesh-part").symlink_to(folder / "holiday")
    (folder / "link target").symlink_to(folder / "holiday")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    return folder


def originals(folder: Path) -> dict[str, str]:
    """Every file and link below, but what dpmesh wrote, with its content."""
    result: dict[str, str] = {}
    for root, folders, files in os.walk(folder):
        if MARKER in files:
            record = json.loads((Path(root) / MARKER).read_text())
            files = sorted({*files} - {MARKER, *record["files"]})
        for name in [*files, *(n for n in folders if os.path.islink(os.path.join(root, n)))]:
            path = os.path.join(root, name)
            linked = os.path.islink(path)
            data = os.readlink(path).encode() if linked else Path(path).read_bytes()
            result[os.path.relpath(path, folder)] = hashlib.sha256(data).hexdigest()
    return result


def results(folder: Path) -> list[Path]:
    return [Path(root) for root, _, files in os.walk(folder) if MARKER in files]


def assert_unmixed(folder: Path) -> None:
    """A result's files are all of the image and the options that its record names."""
    for result in results(folder):
        record = json.loads((result / MARKER).read_text())
        if "scene.json" in record["files"]:
            scene = json.loads((result / "scene.json").read_text())
            assert scene["source_sha256"] == record["image"] and scene["options"] == record["options"], result
        assert not record["pending"]


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
def test_files_of_the_user_in_a_result_stay(album: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save"]
    assert main([*words, "json"]) == 0
    result = album / "new" / "a"
    for name in ("notes.txt", "scene.glb"):
        (result / name).write_text("mine")
    assert main([*words, "json", "--overwrite"]) == 0
    assert main([*words, "npz,glb"]) == 1
    assert "scene.glb: was not written by dpmesh" in capfd.readouterr().err
    assert main([*words, "npz,glb", "--overwrite"]) == 1
    assert main([*words, "npz"]) == 0
    assert (result / "notes.txt").read_text() == (result / "scene.glb").read_text() == "mine"
    assert {p.name for p in result.iterdir()} == {MARKER, "notes.txt", "scene.glb", "scene.json", "scene.npz"}


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
        (["--flip"], "--flip was off, is on"),
        (["--refine"], "--refine was off, is on"),
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
def test_results_of_an_older_version(album: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a record: known by their scene.json, replaced only by force."""
    words = ["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save", "json,obj"]
    assert main(words) == 0
    result = album / "new" / "a"
    (result / MARKER).unlink()
    scene = json.loads((result / "scene.json").read_text())
    del scene["options"]
    (result / "scene.json").write_text(json.dumps(scene))
    (result / "notes.txt").write_text("mine")
    assert main(words) == 1
    assert "older version" in capfd.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    made = {MARKER, "scene.json", "person_00.obj", "person_00.mtl"}
    assert {p.name for p in result.iterdir()} == {*made, "notes.txt"}


@pytest.mark.usefixtures("loads")
def test_results_of_another_verb_stay(album: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(album / "new")]
    assert main(["attention", str(album / "a.jpg"), *out]) == 0
    before = originals(album), sorted(p.name for p in (album / "new" / "a").iterdir())
    assert main(["predict", str(album / "a.jpg"), *out, "--overwrite", "--save", "json"]) == 1
    assert "dpmesh attention" in capfd.readouterr().err
    assert main(["attention", str(album / "park" / "park.jpg"), "--out", str(album)]) == 1
    assert "holds the input" in capfd.readouterr().err
    assert (originals(album), sorted(p.name for p in (album / "new" / "a").iterdir())) == before


@pytest.mark.usefixtures("loads")
def test_a_record_names_no_file_outside(album: Path) -> None:
    """A result folder from elsewhere is not trusted: what it calls its files must be names that dpmesh writes."""
    words = ["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save", "json"]
    assert main(words) == 0
    marker = album / "new" / "a" / MARKER
    record = json.loads(marker.read_text())
    (album / "new" / "a" / "notes.txt").write_text("mine")
    record["files"] += ["../../a.jpg", "notes.txt", str(album / "a.png"), 5, "person_00.obj/../../../k.jpg"]
    record["pending"] = ["../../holiday.jpg"]
    marker.write_text(json.dumps(record))
    assert main([*words, "--overwrite"]) == 0
    assert all(
        (album / name).is_file() for name in ("a.jpg", "a.png", "k.jpg", "holiday.jpg", "new/a/notes.txt")
    )


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "dpmesh.result/2"}', "[" * 100_000])
def test_a_damaged_record_is_not_ours(album: Path, capfd: pytest.CaptureFixture[str], content: str) -> None:
    words = ["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save", "npz", "--overwrite"]
    assert main(words) == 0
    (album / "new" / "a" / MARKER).write_text(content)
    assert main(words) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    "place", [".a.dpmesh-part/scene.json", "a/.dpmesh-part/scene.json", "a/.dpmesh.lock", ".a.dpmesh-part/.dpmesh.lock",
              "a/.dpmesh-part/.dpmesh.json", ".a.dpmesh-part/.dpmesh.part"],
)  # fmt: skip
@pytest.mark.parametrize("force", [[], ["--overwrite"]])
def test_a_reserved_name_does_not_make_it_ours(
    album: Path, capfd: pytest.CaptureFixture[str], place: str, force: list[str]
) -> None:
    """A file under our own names without our claim is the user's: refused, kept, and no lock is left."""
    mine = album / "new" / place
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    words = ["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save", "json", *force]
    assert main(words) == 1
    assert "is in the way" in capfd.readouterr().err
    assert [p for p in (album / "new").rglob("*") if p.is_file()] == [mine] and mine.read_text() == "mine"
    mine.rename(album / "moved")
    assert main(words) == 0


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("place", [".a.dpmesh-part", "a/.dpmesh-part"])
def test_a_claimed_folder_is_taken_over(album: Path, place: str) -> None:
    part = album / "new" / place
    part.mkdir(parents=True)
    (part / CLAIM).write_bytes(claim_of(part))
    (part / "scene.json").write_text("{half")
    words = ["predict", str(album / "a.jpg"), "--out", str(album / "new"), "--save", "json"]
    (part / "note.txt").write_text("mine")
    assert main(words) == 1 and (part / "scene.json").read_text() == "{half"
    (part / "note.txt").unlink()
    assert main(words) == 0 and not part.exists()
    assert sorted(p.name for p in (album / "new" / "a").iterdir()) == [MARKER, "scene.json"]


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
