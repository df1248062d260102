"""The bodies of a scene from the side where they stand: camera, floor and shadows."""

import math

import cv2
import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import NDArray

from dpmesh.render.rasterizer import rasterize
from dpmesh.render.typed import clamp, floats, transform

SIZE = (900, 1200)
"""Height and width, pixels."""
GRID = 0.5
"""Metres between the lines of the floor."""
_TOP, _BOTTOM = np.array([0.955, 0.962, 0.972]), np.array([0.865, 0.882, 0.905])
_SOFT = 9
"""Of a shadow: the blur's standard deviation, pixels."""
_LINE = np.array([0.70, 0.73, 0.77])


def side_camera(points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Rotation and shift of the view from the right-hand side of the image: p' = R p + t.

    A quarter turn about the vertical through the middle, tilted a little down, far enough to show everything
    with the camera `side_intrinsics`. The photo's camera is to the left of this view.
    """
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    tilt = np.deg2rad(9.0)
    pitch = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    R = pitch @ turn
    points = floats(points)
    middle = (points.min(0) + points.max(0)) / 2
    turned = transform(points - middle, R, 0.0)
    K = side_intrinsics()
    room = np.array([0.40 * SIZE[1] / K[0, 0], 0.42 * SIZE[0] / K[1, 1]])  # tangents that may be used
    distance = float((np.abs(turned[:, :2]) / room - turned[:, 2:]).max())
    return R, np.array([0, 0, max(distance, 1.0)]) - R @ middle


def side_intrinsics() -> Float[np.ndarray, "3 3"]:
    """A long lens: 26 degrees high, so that distances read almost to scale."""
    focal = SIZE[0] / 2 / np.tan(np.deg2rad(13.0))
    return np.array([[focal, 0, SIZE[1] / 2], [0, focal, SIZE[0] / 2], [0, 0, 1]])


def backdrop() -> NDArray[np.float32]:
    """(h, w, 3) in [0, 1]: a plain studio wall."""
    blend = np.linspace(0, 1, SIZE[0])[:, None, None] ** 1.5
    return np.broadcast_to(_TOP * (1 - blend) + _BOTTOM * blend, (*SIZE, 3)).astype(np.float32)


def draw_floor(
    canvas: NDArray[np.float32],
    points: Float[np.ndarray, "n 3"],
    R: Float[np.ndarray, "3 3"],
    t: Float[np.ndarray, "3"],
    floor: float,
) -> None:
    """Lines every GRID metres around the points at the height `floor` (y, metres), fading outwards; in place."""
    points, K = floats(points), floats(side_intrinsics())
    low, high = points.min(0)[[0, 2]], points.max(0)[[0, 2]]
    middle, reach = (low + high) / 2, float((high - low).max()) / 2 + 1.6
    count = math.ceil(reach / GRID)  # lines to each side of the middle
    steps, ends = floats(range(-count, count + 1)) * GRID, floats(range(-20, 21)) / 20 * count * GRID
    origin = np.rint(middle / GRID) * GRID
    for across in (0, 1):
        for s in steps:
            flat = np.empty((len(ends), 2))
            flat[:, across], flat[:, 1 - across] = s, ends
            near = clamp(1.15 - np.linalg.norm(flat, axis=1) / (count * GRID), 0.0, 1.0)
            flat += origin
            view = transform(np.stack([flat[:, 0], np.full(len(flat), floor), flat[:, 1]], axis=1), R, t)
            if view[:, 2].min() <= 0.1:
                continue
            pixels = transform(view / view[:, 2:], K, 0.0)
            for a, b, strength in zip(pixels[:-1], pixels[1:], (near[:-1] + near[1:]) / 2, strict=True):
                _line(canvas, a, b, float(strength))


def _line(
    canvas: NDArray[np.float32], a: NDArray[np.float64], b: NDArray[np.float64], strength: float
) -> None:
    """One smooth segment; OpenCV antialiases 8-bit images only, so it is drawn on a small mask."""
    x0, y0 = (int(v) for v in np.floor(np.minimum(a, b)[:2]) - 2)
    x1, y1 = (int(v) for v in np.ceil(np.maximum(a, b)[:2]) + 3)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, canvas.shape[1]), min(y1, canvas.shape[0])
    if strength <= 0 or x0 >= x1 or y0 >= y1:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    first, last = ((int(16 * (p[0] - x0)), int(16 * (p[1] - y0))) for p in (a, b))
    cv2.line(mask, first, last, 255, 1, cv2.LINE_AA, 4)
    cover = (mask / 255.0 * strength)[..., None]
    canvas[y0:y1, x0:x1] += cover * (_LINE - canvas[y0:y1, x0:x1])


def draw_shadow(
    canvas: NDArray[np.float32],
    vertices: Float[np.ndarray, "v 3"],
    faces: Integer[np.ndarray, "f 3"],
    floor: float,
    R: Float[np.ndarray, "3 3"],
    t: Float[np.ndarray, "3"],
) -> None:
    """A soft shadow straight below the body; in place."""
    flat = floats(vertices) * 1.0  # a copy
    flat[:, 1] = floor
    face = rasterize(transform(flat, R, t), faces, side_intrinsics(), SIZE).face
    rows, columns = (np.flatnonzero((face >= 0).any(1 - k)) for k in (0, 1))
    if not len(rows):
        return
    reach = 4 * _SOFT + 1  # where OpenCV's kernel ends: beyond it nothing changes
    at = tuple(slice(max(0, int(n[0]) - reach), int(n[-1]) + reach + 1) for n in (rows, columns))
    shadow = cv2.GaussianBlur((face[at] >= 0).astype(np.float32), (0, 0), _SOFT)
    canvas[at] *= 1 - 0.28 * np.asarray(shadow, dtype=np.float32)[..., None]
