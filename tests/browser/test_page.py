"""The page of a result in a real browser: bodies are where the camera sees them, and play moves them."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.camera import project
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.page.page import iframe
from dpmesh.render.sigma import UNSURE, sigma_colours
from dpmesh.video.decode import Span, open_frames
from dpmesh.video.exports import animated_glb
from dpmesh.video.tracks_page import page_video, tracks_page
from tests.support.video_tracks import two_people


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Predictor.from_pretrained()("examples/two_people.jpg")


def opened(page: Page, html: str, folder: Path) -> None:
    file = folder / "page.html"
    file.write_text(html, "utf-8")
    page.goto(file.as_uri())
    page.wait_for_function("window.dpmesh.ready", timeout=60_000)


def canvas(page: Page) -> NDArray[np.int64]:
    """Its red, green, blue, alpha."""
    url = page.evaluate("document.getElementById('view').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))), np.int64)


def drawn(page: Page) -> NDArray[np.bool_]:
    """Where the canvas has a body."""
    return canvas(page)[..., 3] > 127


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def silhouette(scene: Scene, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Of the overlay: what it changes of the image. size: height, width."""
    assert scene.image is not None
    changed = np.abs(scene.overlay().astype(int) - scene.image.astype(int)).sum(-1) > 0
    return cv2.resize(changed.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 0.5


def test_bodies_are_where_the_overlay_has_them(scene: Scene, page: Page, tmp_path: Path) -> None:
    opened(page, scene.to_html(), tmp_path)
    mask = drawn(page)
    assert overlap(mask, silhouette(scene, mask.shape)) > 0.9


def test_other_hypotheses_are_faint(page: Page, tmp_path: Path) -> None:
    several = Predictor.from_pretrained()("examples/balance.jpg", hypotheses=3)
    opened(page, several.to_html(), tmp_path)
    page.evaluate("window.dpmesh.look(false)")
    shown = canvas(page)[..., 3]
    page.get_by_label("hypotheses").uncheck()
    hidden = canvas(page)[..., 3]
    page.get_by_label("hypotheses").check()
    faint = (shown > 20) & (shown < 130)
    edges = faint & (hidden > 20)
    assert faint.sum() > 2000 and edges.sum() < 0.1 * faint.sum()
    page.get_by_label("person 0", exact=True).uncheck()
    assert canvas(page)[..., 3].max() == 0 < hidden.max()


def test_a_phone_shows_all_of_a_video(page: Page, tmp_path: Path) -> None:
    body = BodyModel(free_body())
    tracks = two_people(body)
    glb = b"".join(animated_glb(tracks, body, body.faces.numpy().astype(np.int32)))
    page.set_viewport_size({"width": 390, "height": 800})
    opened(page, tracks_page(tracks, glb, "clip"), tmp_path)
    for name in ("#stage", "#timeline", "#panel", "#loop"):
        box = page.locator(name).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390, name


def test_switches(scene: Scene, page: Page, tmp_path: Path) -> None:
    opened(page, scene.to_html(), tmp_path)
    whole = drawn(page).sum()
    page.get_by_label("person 1", exact=True).uncheck()
    assert 0 < drawn(page).sum() < whole
    page.get_by_label("bodies").uncheck()
    assert drawn(page).sum() == 0
    page.get_by_label("skeleton").check()
    assert drawn(page).sum() > 0
    page.get_by_role("button", name="Free").click()
    assert page.locator("#photo").is_hidden()


def test_opacity_lets_the_image_and_the_skeleton_through(scene: Scene, page: Page, tmp_path: Path) -> None:
    opened(page, scene.to_html(), tmp_path)
    body = drawn(page)
    for by_sigma in (False, True):
        page.get_by_label("colour by sigma").set_checked(by_sigma)
        page.get_by_label("opacity").fill("0.3")
        faint = canvas(page)
        assert np.abs(faint[body][:, 3] - 0.3 * 255).mean() < 10
        page.get_by_label("skeleton").check()
        assert (canvas(page)[body][:, 3] > 200).sum() > 1000
        page.get_by_label("skeleton").uncheck()
        page.get_by_label("opacity").fill("1")
        assert canvas(page)[body][:, 3].mean() > 250


def test_clicked_joints_are_measured(scene: Scene, page: Page, tmp_path: Path) -> None:
    opened(page, scene.to_html(), tmp_path)
    page.get_by_label("skeleton").check()
    box = page.locator("#view").bounding_box()
    assert box
    zoom = box["width"] / scene.image_size[1]
    person, knees = scene[0], (4, 5)
    for joint in knees:
        x, y = project(person.joints3d[joint], scene.K)
        page.mouse.click(box["x"] + (x + 0.5) * zoom, box["y"] + (y + 0.5) * zoom)
    apart = 100 * np.linalg.norm(person.joints3d[4] - person.joints3d[5])
    assert page.locator("#measure").inner_text() == f"L_Knee – R_Knee: {apart:.1f} cm"


def test_the_view_is_saved(scene: Scene, page: Page, tmp_path: Path) -> None:
    opened(page, scene.to_html(), tmp_path)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save this view as PNG").click()
    image = np.asarray(Image.open(download.value.path()).convert("RGB"))
    assert image.shape[0] > 300
    assert image.std() > 20


def window_of(page: Page) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)


@pytest.mark.parametrize("shift", [0.0, 60.0])
def test_a_drag_leaves_the_cameras_view_without_a_jump(
    scene: Scene, page: Page, tmp_path: Path, shift: float
) -> None:
    """Also with a principal point off the middle."""
    K = scene.K + np.array([[0, 0, shift], [0, 0, -shift], [0, 0, 0]])
    opened(page, replace(scene, K=K).to_html(), tmp_path)
    before = window_of(page)
    box = page.locator("#stage").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 5, y)
    page.mouse.move(x, y)
    assert page.locator("#orbit").get_attribute("aria-pressed") == "true"
    page.wait_for_timeout(300)
    after = window_of(page)
    stage = np.s_[: int(box["height"]), : int(box["width"])]
    off = np.abs(before - after).sum(-1)[stage] > 90
    assert off.mean() < 0.02
    page.mouse.move(x + 150, y)
    page.wait_for_timeout(300)
    turned = window_of(page)
    page.mouse.up()
    assert (np.abs(before - turned).sum(-1)[stage] > 90).mean() > 0.2
    page.get_by_role("button", name="Camera").click()
    page.mouse.move(0, 0)
    assert (np.abs(before - window_of(page)).sum(-1)[stage] > 90).mean() < 0.001


def test_a_video_stays_behind_the_bodies_as_well(page: Page, tmp_path: Path) -> None:
    """Its frame is drawn in the free view, too: each has a colour of its own."""
    body = BodyModel(free_body())
    tracks = two_people(body)
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (640, 480))
    for frame in range(tracks.frames):
        writer.write(np.full((480, 640, 3), (0, 60, 250) if frame < 12 else (200, 120, 0), np.uint8))
    writer.release()
    mp4 = page_video(open_frames(str(tmp_path / "a.mp4")), Span())
    glb = b"".join(animated_glb(tracks, body, body.faces.numpy().astype(np.int32)))
    opened(page, tracks_page(tracks, glb, "clip", mp4), tmp_path)
    page.mouse.move(400, 300)
    page.mouse.down()
    page.mouse.move(405, 300)
    page.mouse.move(400, 300)
    page.mouse.up()
    for frame, colour in ((20, (0, 120, 200)), (4, (250, 60, 0))):
        page.evaluate(f"window.dpmesh.setTime({tracks.time[tracks.frame == frame][0]})")
        page.wait_for_timeout(1000)
        shown = canvas(page)[..., :3]
        assert (np.abs(shown - colour).sum(-1) < 60).mean() > 0.3


def test_a_finger_turns_the_view(scene: Scene, page: Page, tmp_path: Path) -> None:
    """Else the browser takes the gesture for its own."""
    opened(page, scene.to_html(), tmp_path)
    for at_eye in ("true", "false"):
        page.evaluate(f"window.dpmesh.look({at_eye})")
        assert page.evaluate("getComputedStyle(document.getElementById('view')).touchAction") == "none"


def test_colours_by_sigma_have_a_legend(scene: Scene, page: Page, tmp_path: Path) -> None:
    opened(page, scene.to_html(), tmp_path)
    assert page.locator("#scale").is_hidden()
    page.get_by_label("colour by sigma").check()
    assert page.locator("#ticks").inner_text().split("\n") == ["0", "10 cm", ">20 cm"]
    shot = np.asarray(Image.open(io.BytesIO(page.locator("#bar").screenshot())).convert("RGB"), float) / 255
    row = shot[len(shot) // 2]
    np.testing.assert_allclose(row[[2, -3]], sigma_colours(np.array([0.0, UNSURE])), atol=0.06)
    unknown = tuple(replace(one, joint_sigma=np.full(30, np.nan, np.float32)) for one in scene.people)
    opened(page, replace(scene, people=unknown).to_html(), tmp_path)
    assert page.get_by_label("colour by sigma").is_hidden()


def test_the_floor_has_lines_towards_the_camera(scene: Scene, page: Page, tmp_path: Path) -> None:
    """They begin behind it; a row of the canvas without any is one between two lines across."""
    opened(page, scene.to_html(), tmp_path)
    page.get_by_label("bodies").uncheck()
    page.get_by_label("floor").check()
    rows = drawn(page).any(1)
    assert rows[-len(rows) // 4 :].all() and not rows[: len(rows) // 4].any()


def test_in_a_notebook(scene: Scene, page: Page, tmp_path: Path) -> None:
    (tmp_path / "cell.html").write_text(f"<div>{scene._repr_html_()}</div>", "utf-8")
    page.goto((tmp_path / "cell.html").as_uri())
    frame = page.frames[-1]
    frame.wait_for_function("window.dpmesh && window.dpmesh.ready", timeout=60_000)
    assert iframe('<p title="a&b">') != "<p>"


def test_play_moves_the_bodies(page: Page, tmp_path: Path) -> None:
    body = BodyModel(free_body())
    tracks = two_people(body)
    glb = b"".join(animated_glb(tracks, body, body.faces.numpy().astype(np.int32)))
    opened(page, tracks_page(tracks, glb, "<clip> & more"), tmp_path)
    assert page.title() == "<clip> & more"
    for row in (0, len(tracks.track) // 2, len(tracks.track) - 1):  # each joint is where the tracks have it
        page.evaluate(f"window.dpmesh.setTime({tracks.time[row]})")
        for joint in (0, 4, 15, 20):
            at = page.evaluate(f"window.dpmesh.bone('person_{tracks.track[row]:02d}', {joint})")
            assert np.abs(np.array(at) - tracks.joints2d[row, joint]).max() < 8, (row, joint)
    page.evaluate("window.dpmesh.setTime(0)")
    before = drawn(page)
    page.get_by_role("button", name="Play").click()
    # Paused in the same tick: the clip starts over, and a slow machine could pause at its first frame.
    page.wait_for_function(
        "Number(document.getElementById('time').value) > 0.3 && (document.getElementById('play').click(), true)",
        timeout=20_000,
    )
    page.get_by_role("button", name="Play").wait_for()
    assert overlap(before, drawn(page)) < 0.999
