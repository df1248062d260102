"""The window of a picture that the model is shown, by a protocol's CropRule, and its pixels."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from dpmesh.errors import InputError
from dpmesh.evaluate.protocols import CropRule
from dpmesh.geometry.crop import Crop

BOX_FALLBACK, PICTURE_FALLBACK = "box: the annotated one", "box: the whole picture"


def window(
    rule: CropRule,
    points: Float[np.ndarray, "n 2"],
    seen: Bool[np.ndarray, " n"],
    annotated: Float[np.ndarray, "4"],
    size: tuple[int, int],
) -> tuple[Crop, str]:
    """The crop around the seen points (image px) of a picture of `size` (h, w), and the fallback taken, if any.

    Fewer than two points, points on one spot, or a box outside the picture give no window: then the annotated box
    (x1 y1 x2 y2), then the picture, so that nobody is left out.
    """
    if seen.sum() > 1:
        low, high = points[seen].min(0), points[seen].max(0)
        half = (high - low) / 2 * rule.joints
        middle = (low + high) / 2
        crop = _square(rule, np.concatenate([middle - half, middle + half]), size)
        if crop is not None:
            return crop, ""
    if rule.fallback == "annotated corners taken for x y w h":
        annotated = np.concatenate([annotated[:2], annotated[:2] + annotated[2:]])
    crop = _square(rule, annotated, size)
    if crop is not None:
        return crop, BOX_FALLBACK
    whole = _square(rule, np.array([0.0, 0.0, size[1], size[0]]), size)
    if whole is None:
        raise InputError(f"a picture of {size[1]}×{size[0]} pixels has no window", where="picture")
    return whole, PICTURE_FALLBACK


def _square(rule: CropRule, box: Float[np.ndarray, "4"], size: tuple[int, int]) -> Crop | None:
    """Brought inside (a box that begins outside is shifted, not cut: so in 3DCrowdNet and after), squared, enlarged.

    None for a box without extent inside the picture.
    """
    x1, y1 = max(0.0, box[0]), max(0.0, box[1])
    x2 = min(size[1] - 1.0, x1 + max(0.0, box[2] - box[0] - 1))
    y2 = min(size[0] - 1.0, y1 + max(0.0, box[3] - box[1] - 1))
    side = max(x2 - x1, y2 - y1) * rule.square
    if not (np.isfinite([x1, y1, x2, y2]).all() and x2 >= x1 and y2 >= y1 and side > 0):
        return None
    return Crop((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side)


def pixels(crop: Crop, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256 256 3"]:
    """Bilinear, one sample a pixel, black outside: as published, unlike `Crop.warp`, which averages when it shrinks."""
    matrix = np.array([[crop.scale, 0.0, -crop.x1 * crop.scale], [0.0, crop.scale, -crop.y1 * crop.scale]])
    side = (Crop.SIZE, Crop.SIZE)
    out = cv2.warpAffine(image, matrix, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return out.astype(np.uint8, copy=False)
