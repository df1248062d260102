"""A video corrected in the viewer: a drag in one frame moves its neighbours as well, in the files that are saved."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.floor import FEET, SOLE
from dpmesh.inference.corrections import Correction, Corrections
from dpmesh.skeletons import COCO17, JOINTS30
from dpmesh.video.files import save_tables
from dpmesh.video.tables import read_text
from dpmesh.video.tracks import Tracks
from dpmesh.viewer.app import Viewer
from dpmesh.viewer.documents import CorrectedVideo, leave_out
from tests.browser.support import opened, screen
from tests.support.video_tracks import two_people

WRIST, FRAME = JOINTS30.index("R_Wrist"), 15
OPTIONS = {"input": {"file": "a.mp4", "sha256": "00ff"}, "start": 0.0, "end": None, "every": 1, "fps": None,
           "save": ["csv", "npz"], "units": "cm"}  # fmt: skip


@pytest.fixture
def document(tmp_path: Path) -> CorrectedVideo:
    body = BodyModel(free_body())
    tracks = two_people(body)
    keypoints = np.concatenate([tracks.joints2d, np.full((len(tracks.track), 30, 1), 0.8)], 2)
    tracks = replace(
        tracks,
        keypoints2d=keypoints[:, list(COCO17.indices_in(JOINTS30))].astype(np.float32),
        box=np.concatenate([tracks.joints2d.min(1), tracks.joints2d.max(1)], 1),
    )
    save_tables(tracks, tmp_path, {"source": "a.mp4", "options": OPTIONS})
    return CorrectedVideo(Tracks.load(tmp_path), body, read_text(tmp_path), "", tmp_path / "out", "clip")


@pytest.fixture
def viewer(document: CorrectedVideo) -> Iterator[Viewer]:
    viewer = Viewer(document.shown(), port=0, document=document)
    yield viewer
    viewer.close()


def test_a_drag_spreads_in_the_saved_tracks(
    viewer: Viewer, document: CorrectedVideo, page: Page, tmp_path: Path
) -> None:
    view = opened(page, viewer)
    assert page.get_by_text("Exchange left and right").count() == 0  # needs the image
    viewer.show_frame(FRAME)
    page.get_by_text("Drag it in space", exact=True).click()
    page.wait_for_timeout(1500)
    row = document.tracks.in_frame(FRAME)[0]
    start = document.tracks.joints3d[row, WRIST].astype(float)
    x, y = screen(start + np.array([0.2, 0, 0]), view)  # the arrow to the right
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.down()
    for step in range(1, 7):
        page.mouse.move(x + 6 * step, y)
        page.wait_for_timeout(100)
    page.mouse.up()
    page.get_by_text("1 step, fitted").wait_for(timeout=20_000)
    page.get_by_text("Save", exact=True).click()
    page.get_by_text("Saved:").wait_for(timeout=60_000)

    folder = tmp_path / "out/clip"
    saved, text = Tracks.load(folder), json.loads((folder / "tracks.json").read_text())
    (move,) = saved.corrections
    assert (move["op"], move["person"], move["joint"], move["frame"]) == ("move", 0, "R_Wrist", FRAME)
    moved = np.array(move["point"]) - start
    assert moved[0] > 0.05 and abs(moved[1:]).max() < 0.01
    assert np.linalg.norm(saved.joints3d[row, WRIST] - move["point"]) < 0.03
    change = np.linalg.norm(saved.joints3d - document.tracks.joints3d, axis=-1)[:, WRIST]
    own = saved.of(0)
    assert abs(int(change[own].argmax()) - FRAME) <= 2 and change[own][FRAME + 3] / change[own][FRAME] > 0.5
    assert change[own][0] < 0.1 * change[own][FRAME]
    assert change[saved.of(3)].max() == 0
    assert [one.get("corrected") for one in text["people"]] == [[f"move R_Wrist in frame {FRAME}"], None]
    assert text["options"]["corrections"]["file"] == "1 correction"
    assert (folder / "joints.csv").is_file()
    again = Corrections.read(tmp_path / "out/corrections.json").of("a.mp4", "00ff")
    assert [one.as_json() for one in again] == [move]


def test_the_floor_is_set_and_undone(viewer: Viewer, document: CorrectedVideo, page: Page) -> None:
    opened(page, viewer)
    page.get_by_text("Floor", exact=True).last.click()  # opens the folder
    page.get_by_text("This person alone", exact=True).click()
    page.get_by_text("Where the feet are", exact=True).click()
    page.get_by_text("floor: 1 step, fitted").wait_for(timeout=20_000)
    assert document.steps == [Correction("floor", people=(0,))]
    ground = document.corrected().ground
    assert ground is not None and viewer.result.floor is not None
    feet = document.corrected().joints3d[document.tracks.of(0)][:, FEET]
    assert np.abs((ground.heights(feet) - SOLE).min(1)).max() < 0.05
    page.get_by_text("Undo", exact=True).click()
    page.get_by_text("undone: floor").wait_for(timeout=20_000)
    assert document.steps == [] and document.corrected().ground is None


def test_steps_are_undone_and_redone(viewer: Viewer, document: CorrectedVideo, page: Page) -> None:
    opened(page, viewer)

    def press(name: str, status: str) -> None:
        page.get_by_text(name, exact=True).click()
        page.get_by_text(status).wait_for(timeout=20_000)

    press("Redo", "Nothing to redo.")
    press("It is hidden", "hide R_Wrist in frame 0: 1 step, fitted")
    press("Undo", "undone: hide R_Wrist in frame 0: 0 steps")
    press("Redo", "redone: hide R_Wrist in frame 0: 1 step")
    hide = Correction("hide", 0, "R_Wrist", frame=0)
    assert document.steps == [hide]
    press("Undo", "undone: hide R_Wrist in frame 0: 0 steps")
    press("Delete this person", "delete: 1 step")
    press("Redo", "Nothing to redo.")  # the new step took the other's place
    assert document.steps == [Correction("delete", 0)]


def test_chosen_colours_and_hidden_people_stay(viewer: Viewer, document: CorrectedVideo) -> None:
    """Also where another person was deleted, with whom the palette changes."""
    red = (1.0, 0.0, 0.0)
    viewer.stage.people["person_03"].colour = red
    viewer.stage.people["person_03"].visible = False
    document.steps.append(Correction("delete", 0))
    viewer.show(document.shown())
    assert viewer.stage.people["person_03"].colour == red
    assert not viewer.stage.people["person_03"].visible


def test_what_was_left_out_is_said_in_the_panel(document: CorrectedVideo, page: Page) -> None:
    document.steps.append(Correction("delete", 7))
    leave_out(document, "there is no track 7")
    viewer = Viewer(document.shown(), port=0, document=document)
    try:
        opened(page, viewer)
        page.get_by_text("is not applied: there is no track 7.").wait_for(timeout=20_000)
    finally:
        viewer.close()


def test_corrected_tracks_are_refused(document: CorrectedVideo) -> None:
    document.steps.append(Correction("delete", 3))
    with pytest.raises(InputError, match="corrected already"):
        replace(document, tracks=document.corrected(), steps=[])
    assert document.numbers() == [0] and len(document.shown().times) == 25
