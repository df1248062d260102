"""Who owns a file in a result folder: records, claims and reserved names do not make a user's file ours."""

import json
from pathlib import Path

import pytest
from result_album import originals

from dpmesh.cli.main import main
from dpmesh.inference.record import MARKER
from dpmesh.inference.staging import CLAIM, claim_of


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
    assert {p.name for p in result.iterdir()} == {
        *(MARKER, "scene.json", "person_00.obj", "person_00.mtl", "notes.txt")
    }


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
