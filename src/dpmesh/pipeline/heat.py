"""Pictures of attention: heat over a person's crop, one tile for each joint, or one for all."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray

from dpmesh.skeletons import JOINTS30

COLUMNS = 6
TILE, LABEL = 200, 34
"""Pixels: side of a tile, height of the two lines of text under it."""
LARGE = 512
"""Pixels: side of each half of the averaged picture."""
_WHITE, _GREY = (235, 235, 235), (130, 130, 130)


def joint_sheet(
    rgb: UInt8[np.ndarray, "256 256 3"],
    heat: Float[np.ndarray, "30 256 256"],
    joints: Float[np.ndarray, "30 2"],
    told: Bool[np.ndarray, "30"],
) -> UInt8[np.ndarray, "h w 3"]:
    """A tile for each of `skeletons.JOINTS30` in its order, each stretched to its own range, which stands below it.

    A ring marks a joint that the model was told (crop pixels); of the others the name is grey.
    """
    tiles = [
        _tile(rgb, heat[i], joints[i] if told[i] else None, name) for i, name in enumerate(JOINTS30.joints)
    ]
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def mean_sheet(
    rgb: UInt8[np.ndarray, "256 256 3"],
    heat: Float[np.ndarray, "256 256"],
    joints: Float[np.ndarray, "30 2"],
    told: Bool[np.ndarray, "30"],
) -> UInt8[np.ndarray, "512 1024 3"]:
    """The crop with the joints that the model was told, and beside it the heat over the crop."""
    plain = _enlarged(rgb, LARGE)
    for point in joints[told]:
        _ring(plain, point, LARGE)
    return np.hstack([plain, blend(_enlarged(rgb, LARGE), _heat(stretch(heat), LARGE))])


def stretch(heat: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Its least value to 0, its greatest to 1; a flat map to 0."""
    low, high = float(heat.min()), float(heat.max())
    # Rounding must not be taken for a pattern: float32 resolves about 1e-7 of the greatest value.
    return np.zeros_like(heat) if high - low <= 1e-5 * abs(high) else (heat - low) / (high - low)


def blend(rgb: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """heat in [0, 1] as colour over the picture in grey: the hotter, the less of the picture shows."""
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) * 0.75
    levels = np.clip(heat * 255, 0, 255).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    weight = 0.15 + 0.6 * heat[..., None]
    return np.clip(grey * (1 - weight) + colour * weight, 0, 255).astype(np.uint8)


def _tile(
    rgb: UInt8[np.ndarray, "256 256 3"],
    heat: Float[np.ndarray, "256 256"],
    point: Float[np.ndarray, "2"] | None,
    name: str,
) -> NDArray[np.uint8]:
    picture = blend(_enlarged(rgb, TILE), _heat(stretch(heat), TILE))
    if point is not None:
        _ring(picture, point, TILE)
    picture[:, -1] = picture[-1] = 0  # a line between tiles
    strip = np.zeros((LABEL, TILE, 3), np.uint8)
    colour = _GREY if point is None else _WHITE
    _write(strip, name if point is not None else f"{name} (not told)", 14, colour)
    _write(strip, f"{heat.min():.4f} to {heat.max():.4f}", 28, _GREY)
    return np.vstack([picture, strip])


def _write(strip: NDArray[np.uint8], text: str, y: int, colour: tuple[int, int, int]) -> None:
    cv2.putText(strip, text, (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _enlarged(rgb: UInt8[np.ndarray, "h w 3"], side: int) -> NDArray[np.uint8]:
    return cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _heat(heat: Float[np.ndarray, "h w"], side: int) -> NDArray[np.float32]:
    large = cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.clip(large, 0, 1).astype(np.float32, copy=False)


def _ring(picture: NDArray[np.uint8], point: Float[np.ndarray, "2"], side: int) -> None:
    """Where a joint lies; point in crop pixels, whole numbers are pixel centres."""
    x, y = (round((float(v) + 0.5) * side / 256 - 0.5) for v in point)
    cv2.circle(picture, (x, y), 5, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.circle(picture, (x, y), 5, (90, 230, 255), 1, cv2.LINE_AA)
