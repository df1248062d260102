"""The viewer's panel in a real browser: colours by sigma with their legend, and a view that is being saved."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.render.sigma import sigma_colours
from dpmesh.viewer.app import Viewer
from dpmesh.viewer.results import shown_tracks
from tests.browser.support import opened
from tests.support.video_tracks import two_people

LEGEND = "Sigma, sure to unsure"


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    body = BodyModel(free_body())
    viewer = Viewer(shown_tracks(two_people(body, 1), body, "clip"), port=0)
    yield viewer
    viewer.close()


def test_colours_by_sigma_let_the_image_and_the_skeleton_through(viewer: Viewer, page: Page) -> None:
    opened(page, viewer)
    legend = page.get_by_text(LEGEND)
    assert legend.count() == 0
    page.get_by_text("Colour by sigma", exact=True).click()
    legend.wait_for(timeout=20_000)
    assert page.get_by_text(">20 cm").is_visible()

    def shot() -> np.ndarray:
        page.wait_for_timeout(1500)
        return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)

    opaque = shot()
    viewer.stage.shown.opacity = 0.3
    viewer.draw()
    body = np.abs(opaque - shot()).sum(-1) > 60  # against a white background
    assert body.sum() > 5000
    viewer.stage.shown.opacity = 1.0
    page.get_by_text("Skeleton", exact=True).click()
    with_joints = shot()
    for drawn in viewer.stage.people.values():
        drawn.balls.visible = drawn.lines.visible = False
    assert (np.abs(with_joints - shot()).sum(-1)[body] > 30).sum() > 300
    page.get_by_text("Colour by sigma", exact=True).click()
    legend.wait_for(state="detached", timeout=20_000)


def test_a_surface_has_the_legends_colours(viewer: Viewer) -> None:
    """In the file that the browser gets: glTF's colours are linear, and a metal would be dark."""
    viewer.stage.shown.sigma = True
    viewer.draw()
    drawn = viewer.stage.people["person_00"]
    size = int.from_bytes(drawn.coloured.glb_data[12:16], "little")
    text, content = json.loads(drawn.coloured.glb_data[20 : 20 + size]), drawn.coloured.glb_data[28 + size :]
    accessor = text["accessors"][text["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    start = text["bufferViews"][accessor["bufferView"]]["byteOffset"]
    colours = np.frombuffer(content, np.uint8, 4 * accessor["count"], start).reshape(-1, 4)[:, :3] / 255
    srgb = np.where(colours <= 0.0031308, 12.92 * colours, 1.055 * colours ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb, np.tile(sigma_colours(np.array([0.05])), (len(srgb), 1)), atol=0.02)
    assert text["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_a_result_without_sigma_offers_no_such_colours(page: Page) -> None:
    body = BodyModel(free_body())
    tracks = two_people(body, 1)
    unknown = replace(tracks, joint_sigma=np.full_like(tracks.joint_sigma, np.nan))
    viewer = Viewer(shown_tracks(unknown, body, "clip"), port=0)
    try:
        opened(page, viewer)
        assert page.get_by_text("Bodies", exact=True).count() == 1
        assert page.get_by_text("Colour by sigma", exact=True).count() == 0
    finally:
        viewer.close()


def test_the_button_rests_while_a_view_is_saved(viewer: Viewer, page: Page) -> None:
    opened(page, viewer)
    with page.expect_download(timeout=60_000) as download:
        page.get_by_text("Save this view as PNG", exact=True).click()
        button = page.get_by_role("button", name="Saving …")
        button.wait_for(timeout=20_000)
        assert button.is_disabled()
    assert download.value.suggested_filename == "view.png"
    page.get_by_role("button", name="Save this view as PNG").wait_for(timeout=20_000)
    assert page.get_by_role("button", name="Save this view as PNG").is_enabled()
