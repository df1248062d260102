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

OPTIONS = {"input": {"file": "a.mp4", "sha256": "00ff"}}
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
