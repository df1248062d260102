"""Occlusion augmentation of a crop (a rectangle of noise, textured shapes), and colour factors."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray

from dpmesh.data.augment import AugmentConfig
from dpmesh.data.synthetic.occluders import flat_shape
from dpmesh.data.synthetic.textures import texture
from dpmesh.geometry import CROP

_TRIES = 6
MOST = 0.3
"""Largest share of the box's area under the rectangle."""


def cover(
    rng: np.random.Generator,
    crop: UInt8[NDArray[np.uint8], "256 256 3"],
    box: Float[NDArray[np.floating], "4"],
    config: AugmentConfig,
) -> Bool[NDArray[np.bool_], "256 256"] | None:
    """Draw on the crop, in place; which pixels are covered, None for none. box: the person's, x1 y1 x2 y2 *crop* px.

    The published code takes the box in pixels of the whole image, so that its rectangle hardly ever appears
    where the person is.
    """
    covered: NDArray[np.bool_] | None = None
    if rng.random() < config.p_rectangle and (place := draw_rectangle(rng, box)) is not None:
        x, y, w, h = place
        crop[y : y + h, x : x + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
        covered = np.zeros((CROP, CROP), bool)
        covered[y : y + h, x : x + w] = True
    if rng.random() < config.p_shapes:
        covered = np.zeros((CROP, CROP), bool) if covered is None else covered
        for _ in range(int(rng.integers(1, 3))):
            x, y = (float(rng.uniform(box[k], box[k + 2])) for k in range(2))
            extent = float(rng.uniform(0.15, 0.6) * max(box[2] - box[0], box[3] - box[1]))
            mask = flat_shape(rng, CROP, (x, y), min(extent, CROP))
            surface = np.clip(texture(rng, CROP) * 255, 0, 255).astype(np.uint8)
            cv2.copyTo(surface, mask.view(np.uint8), crop)
            covered |= mask
    return covered


def draw_rectangle(
    rng: np.random.Generator, box: Float[NDArray[np.floating], "4"]
) -> tuple[int, int, int, int] | None:
    """x y w h: area U(0, 0.3) of the box's, height to width U(0.5, 2), all of it anywhere in the box; six tries to be
    no wider or higher than the box and to lie inside the crop, None where none does."""
    x1, y1, x2, y2 = (float(v) for v in box)
    for _ in range(_TRIES):
        area, ratio = rng.uniform(0, MOST) * (x2 - x1) * (y2 - y1), rng.uniform(0.5, 2)
        h, w = int(np.sqrt(area * ratio)), int(np.sqrt(area / ratio))
        room_x, room_y = x2 - x1 - w - 1, y2 - y1 - h - 1
        x, y = int(x1 + rng.random() * room_x), int(y1 + rng.random() * room_y)
        if min(room_x, room_y) >= 0 < min(h, w) and min(x, y) >= 0 and x + w < CROP and y + h < CROP:
            return x, y, w, h
    return None


def recolour(
    rng: np.random.Generator, crop: UInt8[NDArray[np.uint8], "256 256 3"], spread: float
) -> UInt8[NDArray[np.uint8], "256 256 3"]:
    """Each channel times a factor of its own in U(1 - spread, 1 + spread), clipped."""
    factors = rng.uniform(1 - spread, 1 + spread, 3)
    if spread == 0:
        return crop
    table = np.clip(np.arange(256)[:, None] * factors + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(crop, np.ascontiguousarray(table[None])), np.uint8)
