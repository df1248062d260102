"""The camera's view of a viewer in the browser, and where it shows a point."""

import numpy as np
from playwright.sync_api import Page

from dpmesh.viewer.app import Viewer


def opened(page: Page, viewer: Viewer) -> tuple[float, float, float]:
    """Show the camera's view. Pixels of the window: centre, and of one at depth 1 (focal length)."""
    page.goto(viewer.url)
    page.wait_for_selector("canvas", timeout=60_000)
    page.wait_for_timeout(6000)
    client = next(iter(viewer.server.get_clients().values()))
    box = page.locator("canvas").first.bounding_box()
    assert box
    assert np.allclose(client.camera.position, 0, atol=1e-3)
    return box["width"] / 2, box["height"] / 2, box["height"] / 2 / np.tan(client.camera.fov / 2)


def screen(point: np.ndarray, view: tuple[float, float, float]) -> tuple[float, float]:
    x, y, f = view
    return x + f * point[0] / point[2], y + f * point[1] / point[2]
