"""Bodies from the side, next to each other at one scale: where each stands, the floor below, the names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from dpmesh.render.typed import floats, to_uint8

WIDEST = 1600
"""Pixels."""
_SCALE = 330.0
"""Pixels per metre, where they fit into WIDEST."""
_NARROWEST = 480
_GAP = 0.35
"""Metres between two bodies."""
_SLOT = 1.0
"""Metres: the least that a body takes, so that its name fits below it."""
_ROW = 8.0
"""Metres: a row that would be longer is broken; with many bodies rows grow, so that the drawing keeps _ASPECT."""
_ASPECT = 1.5
_LOWEST_ROW, _ABOVE, _BELOW = 2.0, 0.2, 0.35
"""Metres: of a row at least, over the tallest body of all, and under the floor."""
_FAR = 200.0
"""Metres to the camera: so far off that all bodies have one scale, to 0.2 per cent."""
_LEFT = 64
"""Pixels for the scale's numbers."""
_GRID = 0.5
_CAPTION = (
    "Seen from the right of the camera, which is to the left.",
    "The camera's tilt is unknown: down is the camera's down.",
)
_WALL, _FLOOR, _LINE, _INK = (243, 245, 248), (224, 229, 235), (203, 209, 217), (70, 76, 84)


@dataclass(frozen=True)
class Plan:
    """size: height, width px. camera: K of the whole drawing. places: of each body its middle (x, metres) and the
    height of its floor (y, metres), from the drawing's upper left corner. rows: height of each floor. scale: px per
    metre. row: height of a row, metres."""

    size: tuple[int, int]
    camera: Float[np.ndarray, "3 3"]
    places: tuple[tuple[float, float], ...]
    rows: tuple[float, ...]
    scale: float
    row: float

    def placed(self, body: Float[np.ndarray, "v 3"], index: int) -> Float32[np.ndarray, "v 3"]:
        """A turned body where it stands, in the frame of `camera`."""
        low, high = floats(body).min(0), floats(body).max(0)
        x, floor = self.places[index]
        shift = (x - (low[0] + high[0]) / 2, floor - high[1], _FAR - (low[2] + high[2]) / 2)
        return (floats(body) + np.array(shift)).astype(np.float32)


def turned(vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """Camera frame to a quarter turn about the vertical: what was near is left."""
    points = floats(vertices)
    return np.stack([points[:, 2], points[:, 1], -points[:, 0]], axis=1)


def arrange(bodies: Sequence[Float[np.ndarray, "v 3"]]) -> Plan:
    """A place for each turned body, in rows from left to right."""
    extents = [floats(body).max(0) - floats(body).min(0) for body in bodies]
    widths = [max(float(extent[0]) + _GAP, _SLOT) for extent in extents]
    row = max([_LOWEST_ROW, *(float(extent[1]) for extent in extents)]) + _ABOVE + _BELOW
    most = max(_ROW, float(np.sqrt(sum(widths) * row * _ASPECT)))
    rows: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if rows[-1] and sum(widths[k] for k in rows[-1]) + width > most:
            rows.append([])
        rows[-1].append(i)
    longest = max(sum(widths[i] for i in line) for line in rows)
    scale = min(_SCALE, (WIDEST - _LEFT) / max(longest, 1e-6))
    width = max(_NARROWEST, _LEFT + round(longest * scale))
    floors = tuple(k * row + row - _BELOW for k in range(len(rows)))
    places = [(0.0, 0.0)] * len(bodies)
    for line, floor in zip(rows, floors, strict=True):
        x = ((width + _LEFT) / scale - sum(widths[i] for i in line)) / 2
        for i in line:
            places[i] = (x + widths[i] / 2, floor)
            x += widths[i]
    # Metres to pixels at the depth _FAR, the axis through the upper left corner.
    camera = np.array([[scale * _FAR, 0, -0.5], [0, scale * _FAR, -0.5], [0, 0, 1]])
    size = (round(len(rows) * row * scale), width)
    return Plan(size, camera, tuple(places), floors, scale, row)


def draw_floors(plan: Plan) -> UInt8[np.ndarray, "h w 3"]:
    """The wall with a line every half metre and its height, the floors, and a soft shadow under each body."""
    image = np.empty((*plan.size, 3), np.uint8)
    image[:] = _WALL
    page = Image.fromarray(image)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for floor in plan.rows:
        y = round(floor * plan.scale)
        pen.rectangle((0, y, plan.size[1], round((floor + _BELOW) * plan.scale)), fill=_FLOOR)
        for k in range(int((plan.row - _BELOW) / _GRID) + 1):
            height = y - round(k * _GRID * plan.scale)
            pen.line((_LEFT - 8, height, plan.size[1], height), fill=_LINE, width=1)
            pen.text((_LEFT - 14, height), f"{k * _GRID:g} m", _INK, font, anchor="rm")
    image = np.array(page)
    soft, axes = (
        max(1.0, 0.03 * plan.scale),
        (round(0.28 * plan.scale), max(1, round(0.04 * plan.scale))),
    )
    for floor in plan.rows:
        middle = round((floor + 0.02) * plan.scale)
        reach = axes[1] + math.ceil(4 * soft) + 1  # where OpenCV's kernel ends
        strip = slice(max(0, middle - reach), middle + reach + 1)
        shadow = np.zeros(image[strip].shape[:2], np.float32)
        for x, _ in (place for place in plan.places if place[1] == floor):
            cv2.ellipse(shadow, (round(x * plan.scale), middle - strip.start), axes, 0, 0, 360, 1.0, -1)
        shadow = np.asarray(cv2.GaussianBlur(shadow, (0, 0), soft))
        image[strip] = to_uint8(image[strip] * (1 - 0.25 * shadow[..., None]))
    return image


def write_names(
    image: UInt8[np.ndarray, "h w 3"], plan: Plan, texts: Sequence[tuple[str, ...]]
) -> UInt8[np.ndarray, "h2 w 3"]:
    """A copy with lines of text under each body, and the direction of the view in a strip below."""
    strip = np.full((22 * len(_CAPTION) + 8, image.shape[1], 3), _FLOOR, np.uint8)
    page = Image.fromarray(np.concatenate([image, strip]))
    pen = ImageDraw.Draw(page)
    height = min(18.0, 0.1 * plan.scale)
    font = ImageFont.load_default(height)
    for (x, floor), lines in zip(plan.places, texts, strict=True):
        for k, line in enumerate(lines):
            at = (x * plan.scale, (floor + 0.08) * plan.scale + 1.25 * height * k)
            pen.text(at, line, _INK, font, anchor="ma")
    for k, line in enumerate(_CAPTION):
        pen.text((14, len(image) + 4 + 22 * k), line, _INK, ImageFont.load_default(15))
    return np.array(page)
