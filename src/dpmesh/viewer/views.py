"""Where a browser's camera stands in the viewer, and the image that is saved of its view.

client: None where the browser has gone in the meantime; nothing happens then.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from dpmesh.viewer.results import ShownResult

if TYPE_CHECKING:
    import viser

NEAR_CAMERA = 0.02
"""Metres from the image's camera up to which the view counts as its own."""
_WIDTH = 1920
"""Pixels of a saved view."""


def from_camera(client: "viser.ClientHandle | None", result: ShownResult) -> None:
    """The view of the image's camera."""
    if client is None:
        return
    (height, width), K = result.image_size, result.K
    # The whole image fits into the window, whatever its shape.
    tangent = max(height / 2 / K[1, 1], width / 2 / K[0, 0] / max(client.camera.aspect, 1e-3))
    joints = result.own_joints
    depth = float(np.median(joints[..., 2])) if joints.size else 3.0
    with client.atomic():
        client.camera.up_direction = (0.0, -1.0, 0.0)
        client.camera.position = (0.0, 0.0, 0.0)
        client.camera.look_at = (0.0, 0.0, depth)
        client.camera.fov = float(2 * np.arctan(tangent))


def from_side(client: "viser.ClientHandle | None", result: ShownResult) -> None:
    """All people, from the camera's right."""
    if client is None:
        return
    joints = result.own_joints.reshape(-1, 3)
    low, high = (
        np.percentile(joints, [2, 98], axis=0) if len(joints) else np.array([[-1, -1, 2], [1, 1, 4.0]])
    )
    middle, size = (low + high) / 2, float(np.linalg.norm(high - low))
    with client.atomic():
        client.camera.up_direction = (0.0, -1.0, 0.0)
        client.camera.fov = 0.8
        client.camera.position = tuple(middle + max(2.0, 1.5 * size) * np.array([0.9, -0.2, -0.4]))
        client.camera.look_at = tuple(middle)


def save_view(client: "viser.ClientHandle | None", button: "viser.GuiButtonHandle") -> None:
    """The browser draws the view, which takes seconds, and saves it. The button rests until then."""
    if client is None:
        return
    label = button.label
    button.label, button.disabled = "Saving …", True
    try:
        image = client.get_render(height=round(_WIDTH / max(client.camera.aspect, 0.1)), width=_WIDTH)
        _, png = cv2.imencode(".png", image[..., [2, 1, 0]])
        client.send_file_download("view.png", png.tobytes(), save_immediately=True)
    finally:
        button.label, button.disabled = label, False
