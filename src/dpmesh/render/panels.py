"""The parts of a figure: an image's region at a drawing's size, visible keypoints, text, a grid of panels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dpmesh.render.overlay import Colour
from dpmesh.render.typed import clamp, floats, to_uint8, transform
from dpmesh.skeletons import COCO17, JOINTS30

LIMBS = (
    *JOINTS30.limbs,
    *((JOINTS30.index(a), JOINTS30.index(b)) for a, b in COCO17.limb_names if {a, b} & {"L_Eye", "R_Eye"}),
    *((JOINTS30.index(f"{s}_Wrist"), JOINTS30.index(f"{s}_Hand")) for s in "LR"),
)
"""Pairs of `JOINTS30` that are joined where both are visible."""
_INK, _QUIET, _WHITE = (25, 28, 33), (95, 100, 108), (255, 255, 255)


@dataclass(frozen=True)
class Region:
    """A region of an image, image px, drawn at `size` (height, width)."""

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]

    @classmethod
    def of(
        cls, image_size: tuple[int, int], side: int, box: Float[np.ndarray, "4"] | None = None
    ) -> "Region":
        """The part inside `box` (x1 y1 x2 y2, image px; None: all), drawn with as many pixels as a square of `side`."""
        height, width = image_size
        x1, y1, x2, y2 = (0, 0, width, height) if box is None else (float(v) for v in box)
        left, top = _within(x1, width - 1), _within(y1, height - 1)
        right, bottom = (
            max(_within(math.ceil(x2), width), left + 1),
            max(_within(math.ceil(y2), height), top + 1),
        )
        w, h = right - left, bottom - top
        aspect = min(max(w / h, 0.25), 4.0)  # a strip of an image must not become a strip of a sheet
        wide = side * np.sqrt(aspect)
        zoom = min(wide / w, wide / aspect / h)
        return cls(left, top, w, h, (max(1, round(h * zoom)), max(1, round(w * zoom))))

    @property
    def zoom(self) -> tuple[float, float]:
        """Pixels of the drawing for one of the image, along x and y."""
        return self.size[1] / self.width, self.size[0] / self.height

    def cut(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        part = image[self.top : self.top + self.height, self.left : self.left + self.width]
        how = cv2.INTER_AREA if min(self.zoom) < 1 else cv2.INTER_CUBIC
        return to_uint8(cv2.resize(part, (self.size[1], self.size[0]), interpolation=how))

    def points(self, xy: Float[np.ndarray, "*n 2"]) -> NDArray[np.float64]:
        """Image px to px of the drawing; whole numbers are pixel centres in both."""
        return (floats(xy) - (self.left, self.top) + 0.5) * self.zoom - 0.5

    def camera(self, K: Float[np.ndarray, "3 3"]) -> NDArray[np.float64]:
        """The camera of the drawing, of that of the image."""
        (x, y), (cx, cy) = self.zoom, self.points(np.zeros(2))
        return np.array([[x, 0, cx], [0, y, cy], [0, 0, 1.0]]) @ floats(K)


def draw_keypoints(
    image: UInt8[np.ndarray, "h w 3"],
    points: Float[np.ndarray, "30 2"],
    confidence: Float[np.ndarray, "30"],
    colour: Colour,
) -> None:
    """One person's visible joints and the limbs between them, in place. Confident ones are larger and more opaque.

    points: px of the drawing. confidence: 0 for a joint that is not visible, which is not drawn.
    """
    unit = float(np.sqrt(image.shape[0] * image.shape[1])) / 600
    for a, b in LIMBS:
        weight = float(min(confidence[a], confidence[b]))
        if weight > 0:
            _stroke(image, points[a], points[b], 5.6 * unit, _WHITE, 0.8 * _opacity(weight))
            _stroke(image, points[a], points[b], 3.6 * unit, _ink(colour), _opacity(weight))
    for point, weight in zip(points, confidence.tolist(), strict=True):
        if weight > 0:
            draw_joint(image, point, weight, colour, unit)


def draw_joint(
    image: UInt8[np.ndarray, "h w 3"],
    at: Float[np.ndarray, "2"],
    confidence: float,
    colour: Colour,
    unit: float,
) -> None:
    """A dot with a white rim, in place. unit: the drawing's side over 600."""
    width = (6.0 + 7.0 * min(confidence, 1.0)) * unit
    _stroke(image, at, at, width + 2.6 * unit, _WHITE, _opacity(confidence))
    _stroke(image, at, at, width, _ink(colour), _opacity(confidence))


def draw_box(
    image: UInt8[np.ndarray, "h w 3"],
    low: Float[np.ndarray, "2"],
    high: Float[np.ndarray, "2"],
    colour: Colour,
) -> None:
    """A person without keypoints, in place."""
    unit = float(np.sqrt(image.shape[0] * image.shape[1])) / 600
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        _stroke(image, a, b, 2 * unit, _ink(colour), 1.0)


def _within(value: float | int, most: int, more: int = 0) -> int:
    """Rounded down, `more` added, in 0..most."""
    return min(max(math.floor(value) + more, 0), most)


def _ink(colour: Colour) -> tuple[int, ...]:
    return tuple(round(255 * c) for c in colour)


def _opacity(confidence: float) -> float:
    return 0.35 + 0.65 * min(confidence, 1.0)


def _stroke(
    image: UInt8[np.ndarray, "h w 3"],
    a: Float[np.ndarray, "2"],
    b: Float[np.ndarray, "2"],
    width: float,
    ink: tuple[int, ...],
    opacity: float,
) -> None:
    """A line with round ends, smooth: its cover is computed from the distance to it."""
    ends = np.stack([floats(a), floats(b)])
    if not np.isfinite(ends).all():
        return
    reach = width / 2 + 1.5
    low, high = ends.min(0) - reach, ends.max(0) + reach
    x0, y0 = _within(float(low[0]), image.shape[1]), _within(float(low[1]), image.shape[0])
    x1, y1 = _within(float(high[0]), image.shape[1], 1), _within(float(high[1]), image.shape[0], 1)
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.mgrid[y0:y1, x0:x1]
    off = np.stack([x, y], -1) - ends[0]
    along = ends[1] - ends[0]
    share = clamp((off @ along) / max(float(along @ along), 1e-9), 0.0, 1.0)
    distance = np.linalg.norm(off - share[..., None] * along, axis=-1)
    cover = opacity * clamp(width / 2 + 0.5 - distance, 0.0, 1.0)[..., None]
    image[y0:y1, x0:x1] = to_uint8(image[y0:y1, x0:x1] * (1 - cover) + cover * floats(ink))


def side_trim(
    points: Float[np.ndarray, "n 3"],
    R: object,
    t: object,
    K: object,
    size: tuple[int, int],
    aspect: float = 1.0,
) -> tuple[slice, slice]:
    """The rows and columns of a side view that hold these points and some floor: `aspect` to twice as wide as high."""
    view = transform(points, R, t)
    pixels = transform(view / view[:, 2:], K, 0.0)[:, :2]
    margin = 0.07 * size[0]
    low, high = pixels.min(0) - margin, pixels.max(0) + margin
    width, height = (float(v) for v in high - low)
    aspect = min(aspect, size[1] / size[0])
    height = min(max(height, width / 2), size[0])
    width = min(max(width, height * aspect), size[1])
    x, y = (float(v) for v in (low + high) / 2)
    left, top = _within(x - width / 2, int(size[1] - width)), _within(y - height / 2, int(size[0] - height))
    return slice(top, top + int(height)), slice(left, left + int(width))


def fit_into(image: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resized to exactly these pixels."""
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return to_uint8(cv2.resize(image, (width, height), interpolation=how))


def write_lines(
    image: UInt8[np.ndarray, "h w 3"],
    lines: Sequence[tuple[str, float, bool]],
    at: tuple[float, float],
    width: float,
    centred: bool = False,
) -> float:
    """Text, wrapped at `width`, in place; returns the y below it. lines: (text, font px, grey). at: x, y of the top."""
    page = Image.fromarray(image)
    pen = ImageDraw.Draw(page)
    x, y = at
    for text, size, quiet in lines:
        font = ImageFont.load_default(size)
        for line in _wrapped(pen, text, font, width):
            left = x + (width - pen.textlength(line, font)) / 2 if centred else x
            pen.text((left, y), line, _QUIET if quiet else _INK, font)
            y += 1.3 * size
    image[:] = np.asarray(page)
    return y


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrapped(pen: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> list[str]:
    """Broken between words, and inside a word that is longer than a line."""
    lines, line = list[str](), ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if pen.textlength(longer, font) <= width:
            line = longer
            continue
        lines += [line] if line else []
        while len(word) > 1 and pen.textlength(word, font) > width:
            fits = next(
                (n for n in range(len(word) - 1, 1, -1) if pen.textlength(word[:n], font) <= width), 1
            )
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line]
