"""The viewer's server in a real browser: bodies are where the overlay has them, and a drag changes the saved result."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from dpmesh.geometry.camera import project
from dpmesh.inference.corrections import Correction, Corrections
from dpmesh.inference.hypotheses import with_hypotheses
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.skeletons import JOINTS30
from dpmesh.viewer.app import Viewer
from dpmesh.viewer.documents import CorrectedImage
from dpmesh.viewer.results import shown_scene
from tests.browser.support import opened, screen

WRIST = JOINTS30.index("R_Wrist")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained()


@pytest.fixture(scope="module")
def scene(predictor: Predictor) -> Scene:
    return predictor("examples/balance.jpg")


@pytest.fixture
def viewer(scene: Scene, predictor: Predictor, tmp_path: Path) -> Iterator[Viewer]:
    document = CorrectedImage(scene, predictor, tmp_path / "out", "balance")
    viewer = Viewer(document.shown(), port=0, document=document)
    yield viewer
    viewer.close()


def test_bodies_are_where_the_overlay_has_them(
    viewer: Viewer, scene: Scene, page: Page, tmp_path: Path
) -> None:
    x, y, f = opened(page, viewer)
    page.get_by_text("Image", exact=True).click()
    page.wait_for_timeout(1500)
    page.screenshot(path=tmp_path / "with.png")
    page.get_by_text("Bodies", exact=True).click()
    page.wait_for_timeout(1500)
    page.screenshot(path=tmp_path / "without.png")
    with_them, without = (
        np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB"), int) for n in ("with", "without")
    )
    assert scene.image is not None
    changed = np.abs(scene.overlay().astype(int) - scene.image.astype(int)).sum(-1) > 0
    # The overlay as the window's camera sees it.
    size = with_them.shape[1::-1]
    K = np.array([[f, 0, x - 0.5], [0, f, y - 0.5], [0, 0, 1]])
    there = cv2.warpPerspective(changed.astype(np.float32), K @ np.linalg.inv(scene.K), size) > 0.5
    drawn = np.abs(with_them - without).sum(-1) > 24
    box = page.locator("canvas").first.bounding_box()
    assert (
        box is not None and (K @ np.linalg.inv(scene.K) @ [scene.image_size[1], 0, 1])[0] <= box["width"] + 1
    )
    there, drawn = there[:, : int(box["width"])], drawn[:, : int(box["width"])]  # the panel lies beside it
    assert there.sum() > 1000
    assert (there & drawn).sum() / (there | drawn).sum() > 0.9


def test_other_hypotheses_are_shown_on_wish(
    scene: Scene, predictor: Predictor, page: Page, tmp_path: Path
) -> None:
    several = with_hypotheses(scene, 3, predictor.model.body)
    viewer = Viewer(shown_scene(several, predictor.model.body, "several"), port=0)
    try:
        opened(page, viewer)
        page.get_by_text("From the side", exact=True).click()
        page.get_by_text("Image", exact=True).click()
        page.wait_for_timeout(2000)
        page.screenshot(path=tmp_path / "with.png")
        page.get_by_text("Hypotheses", exact=True).click()
        page.wait_for_timeout(1500)
        page.screenshot(path=tmp_path / "without.png")
        handles = [drawn.mesh.visible for drawn in viewer.stage.people.values()]
    finally:
        viewer.close()
    one, other = (
        np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB"), int) for n in ("with", "without")
    )
    assert handles == [True, False, False]
    assert (np.abs(one - other).sum(-1) > 12).sum() > 2000


def test_the_view_is_saved_by_one_click(viewer: Viewer, page: Page) -> None:
    opened(page, viewer)
    with page.expect_download(timeout=60_000) as download:
        page.get_by_text("Save this view as PNG", exact=True).click()
    image = np.asarray(Image.open(download.value.path()).convert("RGB"))
    assert image.shape[1] == 1920 and image.std() > 20


def test_a_drag_changes_the_saved_result(viewer: Viewer, scene: Scene, page: Page, tmp_path: Path) -> None:
    view = opened(page, viewer)
    editor = viewer.editor
    assert editor is not None
    page.get_by_text("Drag it in space", exact=True).click()
    page.wait_for_timeout(1500)
    start = scene[0].joints3d[WRIST].astype(float)
    arrow = start + np.array([0.2, 0, 0])  # the arrow to the right
    x, y = screen(arrow, view)
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.down()
    for step in range(1, 7):
        page.mouse.move(x + 8 * step, y)
        page.wait_for_timeout(100)
    page.mouse.up()
    page.get_by_text("1 step, fitted").wait_for(timeout=20_000)
    page.get_by_text("Save", exact=True).click()
    page.get_by_text("Saved:").wait_for(timeout=60_000)

    stored = json.loads((tmp_path / "out/balance/scene.json").read_text())
    (move,) = stored["corrections"]
    assert move["op"] == "move"
    assert move["joint"] == "R_Wrist"
    moved = np.array(move["point"]) - start
    assert moved[0] > 0.05
    assert abs(moved[1:]).max() < 0.01
    wrist = np.array(stored["people"][0]["joints3d"])[WRIST]
    assert np.linalg.norm(wrist - move["point"]) < 0.06
    assert stored["people"][0]["corrected"] == ["move R_Wrist"]
    again = Corrections.read(tmp_path / "out/corrections.json").of(scene.source, scene.source_sha256)
    assert [one.as_json() for one in again] == [move]


def test_a_click_places_a_joint_in_the_image(viewer: Viewer, scene: Scene, page: Page) -> None:
    x, y, f = opened(page, viewer)
    editor = viewer.editor
    assert editor is not None
    wanted = project(scene[0].joints3d[WRIST], scene.K) + np.array([15.0, -20.0])
    ray = np.linalg.inv(scene.K) @ np.append(wanted, 1.0)
    page.get_by_text("Put it at my next click", exact=True).click()
    page.wait_for_timeout(500)
    page.mouse.click(*screen(ray, (x, y, f)))
    page.get_by_text("1 step, fitted").wait_for(timeout=20_000)
    (step,) = editor.document.steps
    assert np.abs(np.array(step.pixel) - wanted).max() < 2
    page.get_by_text("Undo", exact=True).click()
    page.get_by_text("undone: move R_Wrist").wait_for(timeout=20_000)
    assert not editor.document.steps


def test_joints_are_chosen_by_clicks_in_the_cameras_view(viewer: Viewer, scene: Scene, page: Page) -> None:
    """Before anything has been dragged, too; and they give a distance."""
    x, y, f = opened(page, viewer)
    page.get_by_text("Skeleton", exact=True).click()
    page.wait_for_timeout(1500)
    places = [JOINTS30.index(name) for name in ("L_Knee", "L_Ankle")]
    for joint in places:
        page.mouse.click(*screen(scene[0].joints3d[joint], (x, y, f)))
        page.wait_for_timeout(500)
    wanted = 100 * np.linalg.norm(np.subtract(*scene[0].joints3d[places]))
    page.get_by_text(f"{wanted:.1f} cm").wait_for(timeout=20_000)
    assert viewer.stage.picked == [("person_00", joint) for joint in places]
    page.get_by_text("Clear", exact=True).click()
    page.get_by_text("Show the skeleton, click joints.").wait_for(timeout=20_000)


def test_corrections_keep_the_hypotheses(scene: Scene, predictor: Predictor, tmp_path: Path) -> None:
    several = with_hypotheses(scene, 3, predictor.model.body)
    document = CorrectedImage(several, predictor, tmp_path, "a", [Correction("hide", 0, "R_Wrist")])
    own = document.corrected()[0].hypotheses
    assert own is not None and len(own) == 3


def test_a_deleted_person_leaves_the_page_whole(viewer: Viewer, page: Page) -> None:
    opened(page, viewer)
    assert viewer.editor is not None
    page.get_by_text("Colour by sigma", exact=True).click()
    page.get_by_text("Skeleton", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_text("Delete this person", exact=True).click()
    page.get_by_text("1 step, fitted").wait_for(timeout=20_000)
    page.get_by_text("Undo", exact=True).click()
    page.get_by_text("undone: delete").wait_for(timeout=20_000)
    page.wait_for_timeout(1000)  # the page fixture fails on errors in the browser


def test_lists_of_other_images_are_kept(scene: Scene, predictor: Predictor, tmp_path: Path) -> None:
    for source in ("a.jpg", "b.jpg", "a.jpg"):
        one = replace(scene, source=source, source_sha256=source)
        document = CorrectedImage(one, predictor, tmp_path, source[0])
        document.steps.append(Correction("swap", 0))
        document.save()
    assert [e.source for e in Corrections.read(tmp_path / "corrections.json").entries] == ["b.jpg", "a.jpg"]
