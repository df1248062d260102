"""`dpmesh view`: what it opens, and what it refuses in one line."""

from pathlib import Path

import pytest

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.cli.main import main
from dpmesh.inference.corrections import Correction, Corrections, Entry
from dpmesh.video.correct import correct_tracks
from dpmesh.video.files import save_tables
from dpmesh.viewer.app import Viewer
from tests.support.video_tracks import two_people

OPTIONS = {"input": {"file": "a.mp4", "sha256": "00ff"}, "start": 0.0, "end": None, "every": 1, "fps": None,
           "save": ["csv", "npz"], "units": "cm"}  # fmt: skip
STEP = Correction("delete", 3)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    (tmp_path / "clip").mkdir()
    save_tables(
        two_people(BodyModel(free_body())), tmp_path / "clip", {"source": "a.mp4", "options": OPTIONS}
    )
    return tmp_path / "clip"


def listed(path: Path, sha256: str) -> Path:
    Corrections((Entry("a.mp4", sha256, (STEP,)),)).write(path)
    return path


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Viewer]:
    """The viewers that were opened; they end at once."""
    viewers: list[Viewer] = []

    def stop(viewer: Viewer) -> None:
        viewers.append(viewer)
        raise KeyboardInterrupt

    monkeypatch.setattr(Viewer, "wait", stop)
    return viewers


def test_a_video_is_opened_for_correction(
    result: Path, opened: list[Viewer], capsys: pytest.CaptureFixture[str]
) -> None:
    file = listed(result.parent / "c.json", "00ff")
    assert main(["view", str(result), "--corrections", str(file), "--port", "0"]) == 0
    assert "http://127.0.0.1:" in capsys.readouterr().out
    editor = opened[0].editor
    assert editor is not None and editor.document.steps == [STEP]
    assert [person.name for person in opened[0].result.people] == ["person_00"]
    assert len(opened[0].result.times) == 25


def test_what_was_saved_is_gone_on_with(
    result: Path, opened: list[Viewer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Saving replaces the list's entry of this video: begun empty, it would lose the earlier steps."""
    (result.parent / "corrected").mkdir()
    listed(result.parent / "corrected" / "corrections.json", "00ff")
    assert main(["view", str(result), "--edit", "--port", "0"]) == 0
    assert "goes on with 1 correction of" in capsys.readouterr().out
    editor = opened[0].editor
    assert editor is not None and editor.document.steps == [STEP]


def saved(folder: Path, sha256: str, *steps: Correction) -> Path:
    """A list beside the result, as an earlier session has saved it."""
    (folder / "corrected").mkdir()
    path = folder / "corrected" / "corrections.json"
    Corrections((Entry("b.mp4", "11", (STEP,)), Entry("a.mp4", sha256, steps))).write(path)
    return path


def test_a_saved_list_that_no_longer_fits_is_left_out_and_kept(
    result: Path, opened: list[Viewer], capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(result.parent, "00ff", Correction("delete", 7))
    before = path.read_bytes()
    assert main(["view", str(result), "--edit", "--port", "0"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "corrections.json" in line)
    assert f"{path} is not applied: there is no track 7. Saving keeps it as corrections_1.json." in line
    editor = opened[0].editor
    assert editor is not None and editor.document.steps == []
    assert len(opened[0].result.people) == 2 and editor.document.unapplied in line
    assert path.read_bytes() == before
    editor.document.steps.append(STEP)
    for _ in range(2):  # the second time the list is one's own
        editor.document.save()
    assert path.with_name("corrections_1.json").read_bytes() == before
    assert {one.name for one in path.parent.glob("*.json")} == {"corrections.json", "corrections_1.json"}
    assert Corrections.read(path).of("a.mp4", "00ff") == (STEP,)
    assert Corrections.read(path).of("b.mp4", "11") == (STEP,)


def test_a_renamed_file_has_one_list(result: Path, opened: list[Viewer]) -> None:
    """Two would both be applied the next time."""
    (result.parent / "corrected").mkdir()
    path = result.parent / "corrected" / "corrections.json"
    Corrections((Entry("old name.mp4", "00ff", (STEP,)),)).write(path)
    assert main(["view", str(result), "--edit", "--port", "0"]) == 0
    editor = opened[0].editor
    assert editor is not None and editor.document.steps == [STEP]
    editor.document.save()
    assert Corrections.read(path).of("a.mp4", "00ff") == (STEP,)


def test_a_saved_list_of_other_content_is_left_out(
    result: Path, opened: list[Viewer], capsys: pytest.CaptureFixture[str]
) -> None:
    saved(result.parent, "22", STEP)
    assert main(["view", str(result), "--edit", "--port", "0"]) == 0
    assert "are of a file with other content" in capsys.readouterr().out
    editor = opened[0].editor
    assert editor is not None and editor.document.steps == []


def test_a_given_list_that_does_not_fit_is_refused(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = result.parent / "c.json"
    Corrections((Entry("a.mp4", "00ff", (Correction("delete", 7),)),)).write(file)
    assert main(["view", str(result), "--corrections", str(file), "--port", "0"]) == 1
    assert "there is no track 7" in capsys.readouterr().err


def test_what_cannot_be_corrected(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = listed(result.parent / "c.json", "11")
    assert main(["view", str(result), "--corrections", str(file)]) == 1
    assert "of a file with other content" in capsys.readouterr().err
    Corrections((Entry("b.mp4", "", (STEP,)),)).write(file)
    assert main(["view", str(result), "--corrections", str(file)]) == 1
    assert "no corrections of a.mp4" in capsys.readouterr().err
    body = BodyModel(free_body())
    done = correct_tracks(two_people(body), [STEP], body)
    save_tables(done, result, {"source": "a.mp4", "options": OPTIONS})
    assert main(["view", str(result), "--edit"]) == 1
    err = capsys.readouterr().err
    assert "corrected already" in err and err.count("\n") == 1
