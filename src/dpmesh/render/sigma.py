"""Bodies coloured by the uncertainty of their joints, and the colour scale."""

from html import escape

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from dpmesh.render.typed import clamp, floats, to_uint8

UNSURE = 0.2
"""Metres: from here on the surface has the last colour. The same in every image, so that images compare."""
TICKS = ("0", f"{50 * UNSURE:g} cm", f">{100 * UNSURE:g} cm")
"""What the colour scale says at its beginning, in the middle and at its end."""
_MAP = cv2.COLORMAP_VIRIDIS
"""Perceptually uniform, for colour-blind readers too: dark blue is a small sigma, yellow a large one."""
_PAPER, _INK = (250, 250, 250), (40, 44, 50)
_SMALLEST = 120
"""Pixels of height: a lower image has no legend."""


def surface_sigma(
    vertices: Float[np.ndarray, "v 3"],
    joints3d: Float[np.ndarray, "30 3"],
    joint_sigma: Float[np.ndarray, "30"],
) -> Float[np.ndarray, "v"]:
    """Of each vertex: the mean over all joints, weighted by the inverse fourth power of their distance, so that the
    nearest dominate. Metres, one frame."""
    off = floats(vertices)[:, None] - floats(joints3d)[None]
    weights = floats(1 / np.maximum((off**2).sum(-1), 1e-6) ** 2)
    return floats(weights @ floats(joint_sigma)) / floats(weights.sum(1))


def sigma_colours(sigma: Float[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n 3"]:
    """sRGB in [0, 1] of metres: 0 to UNSURE and beyond."""
    table = np.reshape(cv2.applyColorMap(to_uint8(range(256)), _MAP), (256, 3))[:, ::-1]  # RGB
    levels = clamp(floats(sigma) * (255 / UNSURE), 0.0, 255.0)
    return (floats(table) / 255).astype(np.float32)[np.rint(levels).astype(int)]


def legend_html() -> str:
    """The colour scale as one HTML element, from left to right."""
    stops = np.rint(255 * sigma_colours(np.linspace(0, UNSURE, 9))).astype(int)
    colours = ",".join(f"rgb({r},{g},{b})" for r, g, b in stops)
    ticks = "".join(
        f'<span style="flex:1;text-align:{at}">{escape(text)}</span>'
        for at, text in zip(("left", "center", "right"), TICKS, strict=True)
    )
    return (
        '<div style="padding:0 0.6em 0.4em;font-size:0.8em"><div>Sigma, sure to unsure</div>'
        f'<div style="height:0.8em;background:linear-gradient(to right,{colours})"></div>'
        f'<div style="display:flex">{ticks}</div></div>'
    )


def add_legend(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w2 3"]:
    """A copy with the colour scale in a strip to its right; the image's own pixels stay where they are.

    An image lower than 120 pixels is returned without.
    """
    height, width = image.shape[:2]
    if height < _SMALLEST:
        return image.copy()
    zoom = min(height / 400, 2.0)
    strip, margin, bar, long = (round(zoom * n) for n in (104, 14, 20, 220))
    long = min(long, height - round(110 * zoom)) if height > 220 * zoom else round(0.5 * height)
    out = np.empty((height, width + strip, 3), np.uint8)
    out[:, :width], out[:, width:] = image, _PAPER
    left, top = width + margin, round(62 * zoom)
    colours = to_uint8(255 * sigma_colours(np.linspace(UNSURE, 0, long)))
    out[top : top + long, left : left + bar] = colours[:, None]
    page = Image.fromarray(out)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(max(7.0, 13 * zoom))
    for k, line in enumerate(("sigma of", "the joints")):
        pen.text((left, margin + 17 * zoom * k), line, _INK, font)
    for share, text in zip((1.0, 0.5, 0.0), TICKS, strict=True):
        y = top + share * (long - 1)
        pen.line((left + bar, y, left + bar + 5 * zoom, y), _INK)
        pen.text((left + bar + 8 * zoom, y), text, _INK, font, anchor="lm")
    return np.array(page)
