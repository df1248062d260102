"""Bodies coloured by how sure each joint is, and the scale beside them."""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray

from dpmesh.render.typed import clamp, floats, to_uint8

UNSURE = 0.2
"""Metres: from here on the surface has the last colour. The same in every picture, so that pictures compare."""
_MAP = cv2.COLORMAP_VIRIDIS
"""Even steps to the eye, and for those who see fewer colours too: dark blue is sure, yellow is not."""


def surface_sigma(
    vertices: Float[np.ndarray, "v 3"],
    joints3d: Float[np.ndarray, "30 3"],
    joint_sigma: Float[np.ndarray, "30"],
) -> Float[np.ndarray, "v"]:
    """Of each vertex: the mean over all joints, weighed by the inverse fourth power of their distance, so that the
    nearest count. Metres, one frame."""
    off = floats(vertices)[:, None] - floats(joints3d)[None]
    weights = floats(1 / np.maximum((off**2).sum(-1), 1e-6) ** 2)
    return floats(weights @ floats(joint_sigma)) / floats(weights.sum(1))


def sigma_colours(sigma: Float[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n 3"]:
    """sRGB in [0, 1] of metres: 0 to UNSURE and beyond."""
    table = np.reshape(cv2.applyColorMap(to_uint8(range(256)), _MAP), (256, 3))[:, ::-1]  # RGB
    levels = clamp(floats(sigma) * (255 / UNSURE), 0.0, 255.0)
    return (floats(table) / 255).astype(np.float32)[np.rint(levels).astype(int)]


def draw_legend(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A copy with the scale in its lower left corner; a picture too small for it stays as it is."""
    out = np.ascontiguousarray(to_uint8(picture))  # a copy, whatever the picture's order
    height, width = int(out.shape[0]), int(out.shape[1])
    zoom = min(width / 420, height / 260, 2.5)
    if zoom < 0.35:
        return out
    px = [round(zoom * n) for n in (10, 190, 14, 48)]  # margin, length of the bar, its height, height of all
    margin, long, thick, tall = px
    top, left = height - margin - tall, margin
    panel = out[top : height - margin, left : left + long + 2 * margin]
    panel[:] = to_uint8(panel * 0.25 + 0.75 * 20)
    bar = to_uint8(255 * sigma_colours(np.linspace(0, UNSURE, long)))
    y = top + round(zoom * 19)
    out[y : y + thick, left + margin : left + margin + long] = bar[None]
    _write(out, "sigma of the joints: sure to unsure", (left + margin, top + round(zoom * 13)), zoom)
    for share, text in ((0.0, "0"), (0.5, f"{50 * UNSURE:g} cm"), (0.86, f">{100 * UNSURE:g} cm")):
        _write(out, text, (left + margin + round(share * long), y + thick + round(zoom * 11)), zoom)
    return out


def _write(picture: NDArray[np.uint8], text: str, at: tuple[int, int], zoom: float) -> None:
    thick = max(1, round(zoom))
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.31 * zoom, (235, 235, 235), thick, cv2.LINE_AA)
