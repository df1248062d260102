"""The service's page in a real browser: an image in, bodies where the overlay has them, files out."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from service import ask, fake_predictor, jpeg, running, until

from dpmesh.inference.predictor import Predictor
from dpmesh.serve.limits import Limits
from dpmesh.serve.service import Service

VIEWER = "document.getElementById('viewer').contentWindow"


@pytest.fixture
def predictor() -> Predictor:
    return fake_predictor()


@pytest.fixture
def address(predictor: Predictor) -> Iterator[str]:
    with running(Service(predictor)) as (port, _):
        yield f"http://127.0.0.1:{port}/"


def choose(page: Page, data: bytes, name: str = "a.b.jpg") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def shown(page: Page, title: str) -> np.ndarray:
    """Where the viewer's canvas has a body, once it shows the image of this name."""
    # Not wait_for_function: it evaluates text inside the page, which the policy forbids.
    ready = f"Boolean({VIEWER}.dpmesh && {VIEWER}.dpmesh.ready) && {VIEWER}.document.title"
    until(lambda: page.evaluate(ready) == title, 60)
    url = page.evaluate(f"{VIEWER}.document.getElementById('view').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))[..., 3] > 127


@pytest.mark.parametrize("width", [1100, 390])
def test_an_image_becomes_bodies(page: Page, address: str, predictor: Predictor, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(address)
    assert page.get_by_text("Take a photo").is_visible()
    assert page.locator("#shoot").get_attribute("capture") == "environment"
    data = jpeg(480, 640)
    choose(page, data)
    page.get_by_text("a.b.jpg: 2 people").wait_for(timeout=20_000)
    mask, scene = shown(page, "a.b.jpg"), predictor(data)
    assert scene.image is not None
    drawn = np.abs(scene.overlay().astype(int) - scene.image.astype(int)).sum(-1) > 0
    drawn = cv2.resize(drawn.astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
    assert (mask & drawn).sum() / (mask | drawn).sum() > 0.8
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.frame_locator("#viewer").get_by_role("button", name="Free").click()
    assert page.frame_locator("#viewer").locator("#photo").is_hidden()


def test_downloads(page: Page, address: str, predictor: Predictor) -> None:
    page.goto(address)
    data = jpeg(480, 640)
    choose(page, data)
    page.get_by_role("link", name="GLB").wait_for(timeout=20_000)

    def saved(name: str) -> tuple[str, bytes]:
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    name, glb = saved("GLB")
    assert (name, glb[:4]) == ("a.b.glb", b"glTF")
    name, bvh = saved("BVH, person 1")
    assert (name, bvh[:9]) == ("a.b_person_1.bvh", b"HIERARCHY")
    name, text = saved("JSON")
    assert name == "a.b.json"
    assert np.allclose(json.loads(text)["people"][0]["joints3d"], predictor(data)[0].joints3d, atol=1e-5)


def test_a_dropped_image_then_another(page: Page, address: str) -> None:
    page.goto(address)
    file = base64.b64encode(jpeg(480, 640)).decode()
    page.evaluate(
        """(file) => {
          const bytes = Uint8Array.from(atob(file), (c) => c.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        }""",
        file,
    )
    page.get_by_text("dropped.jpg: 2 people").wait_for(timeout=20_000)
    assert shown(page, "dropped.jpg").any()
    choose(page, jpeg(8, 8), "tiny.jpg")
    page.get_by_text("tiny.jpg: nobody was detected").wait_for(timeout=20_000)
    assert not shown(page, "tiny.jpg").any()


@pytest.fixture
def faulty(browser: Browser) -> Iterator[Page]:
    """A page on which refusals are expected: the browser logs them as errors."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    yield page
    page.close()


def test_refusals_are_shown(faulty: Page, address: str) -> None:
    faulty.goto(address)
    choose(faulty, b"no image", "<b>x.jpg")
    faulty.get_by_role("alert").get_by_text("is not an image").wait_for(timeout=10_000)
    choose(faulty, jpeg(480, 640), "<b>x.jpg")
    faulty.get_by_text("<b>x.jpg: 2 people").wait_for(timeout=20_000)
    assert faulty.get_by_role("alert").is_hidden()


def test_a_token_is_asked_for(faulty: Page) -> None:
    with running(Service(fake_predictor(), token="sesame")) as (port, _):
        faulty.goto(f"http://127.0.0.1:{port}/")
        choose(faulty, jpeg(480, 640))
        faulty.get_by_label("This server asks for a token").fill("sesame")
        faulty.get_by_role("button", name="Send again").click()
        faulty.get_by_text("a.b.jpg: 2 people").wait_for(timeout=20_000)


def test_a_busy_server_is_asked_again(faulty: Page) -> None:
    service = Service(fake_predictor(), Limits(queue=1))
    with running(service) as (port, _):
        faulty.goto(f"http://127.0.0.1:{port}/")
        service.waiting = 1
        choose(faulty, jpeg(480, 640))
        faulty.get_by_text("The server is busy").wait_for(timeout=10_000)
        service.waiting = 0
        faulty.get_by_text("a.b.jpg: 2 people").wait_for(timeout=20_000)
        service.waiting = 1
        choose(faulty, jpeg(480, 640))
        faulty.get_by_text("The server is busy").wait_for(timeout=10_000)
        faulty.get_by_role("button", name="Cancel").click()
        assert faulty.locator("#progress").is_hidden()
        service.waiting = 0


def test_nothing_inline_and_nothing_from_elsewhere(faulty: Page, address: str) -> None:
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    for path, framed in (("/", "'none'"), ("/viewer", "'self'")):
        reply = ask(port, "GET", path)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert f"frame-ancestors {framed}" in policy
        assert b"<style" not in reply.body and b" style=" not in reply.body and b" onclick" not in reply.body
    faulty.goto(address)
    blocked = """() => { const s = document.createElement("script"); s.textContent = "window.inline = 1";
        document.body.append(s); return window.inline === undefined; }"""
    assert faulty.evaluate(blocked)
