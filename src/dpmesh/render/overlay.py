"""The two pictures of a result: bodies drawn over the photograph, and the same bodies seen from the side.

The overlay is amodal: the surface that the camera sees is solid; what another body hides is drawn through
it, hatched and outlined. Objects that are no bodies are unknown here and hide nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt8
from numpy.typing import NDArray

from dpmesh.render import side
from dpmesh.render.arrays import floats, to_uint8, transform
from dpmesh.render.compiled import compiled
from dpmesh.render.rasterizer import NEAR, interpolate, rasterize
from dpmesh.render.shading import shade, vertex_normals

Colour = tuple[float, float, float]
"""sRGB in [0, 1]."""

_PALETTE = ("f0826a", "4fb0c6", "f4c35a", "9a8be0", "7fc27a", "e58db8", "5f93ee", "cda57f")
LONGEST = 1600
"""Output pictures are at most this long, pixels: PNGs stay a few MB and the work bounded."""
_FINE = 2400
"""Longest side of the supersampled drawing, pixels, where that leaves at least two by two samples a pixel."""
_SOLID = 0.93
"""Opacity of a visible surface: the photograph's texture just shows."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One body to draw: vertices (V, 3) metres, camera frame, and its colour; `colours` (sRGB in [0, 1]) of each vertex
    instead on its surface, where `colour` is left for what a nearer body hides."""

    vertices: Float[np.ndarray, "v 3"]
    colour: Colour
    colours: Float[np.ndarray, "v 3"] | None = None


@dataclass(frozen=True)
class _Drawn:
    """A layer rasterised alone, in its own window of the fine drawing."""

    window: tuple[slice, slice]
    depth: Float32[np.ndarray, "h w"]
    rgb: Float32[np.ndarray, "h w 3"]
    colour: Colour


def palette(count: int) -> list[Colour]:
    """Distinct colours for people; they repeat after eight."""
    values = [tuple(int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)) for h in _PALETTE]
    return [(r, g, b) for r, g, b in (values[i % len(values)] for i in range(count))]


def draw_overlay(
    image: UInt8[np.ndarray, "h w 3"],
    layers: Sequence[Layer],
    faces: Integer[np.ndarray, "f 3"],
    K: Float[np.ndarray, "3 3"],
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture, at most LONGEST pixels long, with every body on it. K: pixels of `image`."""
    height, width = image.shape[:2]
    zoom = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(height * zoom)), max(1, round(width * zoom)))
    if zoom < 1:
        image = to_uint8(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA))
    if not layers:
        return to_uint8(image)
    canvas = to_uint8(image)
    _lay(canvas, *_paint(layers, faces, _scaled(K, size[1] / width, size[0] / height), size))
    return canvas


def _lay(
    canvas: UInt8[np.ndarray, "h w 3"], paint: Float32[np.ndarray, "h2 w2 4"], at: tuple[slice, slice]
) -> None:
    """Paint over a window of the canvas, in place."""
    canvas[at] = to_uint8(canvas[at] * (1 - paint[..., 3:]) + 255 * paint[..., :3])


def _paint(
    layers: Sequence[Layer],
    faces: Integer[np.ndarray, "f 3"],
    K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> tuple[Float32[np.ndarray, "h w 4"], tuple[slice, slice]]:
    """Bodies as premultiplied RGBA in [0, 1], and the window of `size` that they cover.

    Drawn finer and averaged down for smooth edges.
    """
    fine = max(2, min(4, _FINE // max(size)))
    finely = _scaled(K, float(fine), float(fine))
    drawn = [
        d
        for d in (_draw(layer, faces, finely, (size[0] * fine, size[1] * fine)) for layer in layers)
        if d is not None
    ]
    at = _union([d.window for d in drawn], fine)
    fine_size = (fine * (at[0].stop - at[0].start), fine * (at[1].stop - at[1].start))
    drawn = [replace(d, window=_moved(d.window, fine * at[0].start, fine * at[1].start)) for d in drawn]
    nearest = np.full(fine_size, np.inf, np.float32)
    owner = np.full(fine_size, -1, np.int16)
    for i, d in enumerate(drawn):
        closer = d.depth < nearest[d.window]
        nearest[d.window][closer] = d.depth[closer]
        owner[d.window][closer] = i
    paint = np.zeros((*fine_size, 4), np.float32)
    order = sorted(
        range(len(drawn)), key=lambda i: -float(np.median(drawn[i].depth[np.isfinite(drawn[i].depth)]))
    )
    line = 1.3 * fine * max(1.0, max(size) / 1100)  # width of an outline, fine pixels
    for i in order:
        d = drawn[i]
        seen = owner[d.window] == i
        _blend(paint[d.window], seen, d.rgb, _SOLID)
        _blend(paint[d.window], seen & _rim(seen, line), _float32(d.rgb * 0.45), 0.55)
    for i in order:
        d = drawn[i]
        body = np.isfinite(d.depth)
        hidden = body & (owner[d.window] != i)
        if hidden.any():
            _hatch(paint[d.window], d, body, hidden, line)
    if not drawn:
        return paint, at
    small = (fine_size[1] // fine, fine_size[0] // fine)
    return _float32(cv2.resize(paint, small, interpolation=cv2.INTER_AREA)), at


def _union(windows: Sequence[tuple[slice, slice]], fine: int) -> tuple[slice, slice]:
    """The least window, in pixels `fine` times as large, that holds all; empty for none."""

    def side(k: int) -> slice:
        return slice(
            min((w[k].start for w in windows), default=0) // fine,
            -(-max((w[k].stop for w in windows), default=0) // fine),
        )

    return side(0), side(1)


def _moved(window: tuple[slice, slice], top: int, left: int) -> tuple[slice, slice]:
    """The same window counted from (top, left)."""
    rows, columns = window
    return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


def _hatch(
    paint: NDArray[np.float32],
    d: _Drawn,
    body: Bool[np.ndarray, "h w"],
    hidden: Bool[np.ndarray, "h w"],
    line: float,
) -> None:
    """What a nearer body hides: a faint tint, stripes and the outline, in the hidden body's colour."""
    down, right = (floats(range(part.start, part.stop)) for part in d.window)
    period = 7.0 * line
    stripe = (down[:, None] + right) % period < 0.4 * period
    plain = np.broadcast_to(_float32(d.colour), d.rgb.shape)
    bright = _float32(0.35 * plain + 0.65 * d.rgb)
    _blend(paint, hidden, d.rgb, 0.12)
    _blend(paint, hidden & stripe, bright, 0.75)
    _blend(paint, hidden & _rim(body, 1.4 * line), _float32(0.35 * plain + 0.65), 0.9)


def _draw(
    layer: Layer, faces: Integer[np.ndarray, "f 3"], K: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> _Drawn | None:
    """Rasterise and shade one body in the window it covers; None where the picture does not see it."""
    vertices = layer.vertices[layer.vertices[:, 2] > NEAR].astype(np.float64)
    if not len(vertices):
        return None
    x = K[0, 0] * vertices[:, 0] / vertices[:, 2] + K[0, 2]
    y = K[1, 1] * vertices[:, 1] / vertices[:, 2] + K[1, 2]
    left, right = (min(max(int(v), 0), size[1]) for v in (np.floor(x.min()) - 1, np.ceil(x.max()) + 2))
    top, bottom = (min(max(int(v), 0), size[0]) for v in (np.floor(y.min()) - 1, np.ceil(y.max()) + 2))
    if left >= right or top >= bottom:
        return None
    shifted = K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]], float)
    raster = rasterize(layer.vertices, faces, shifted, (bottom - top, right - left))
    inside = raster.face >= 0
    if not inside.any():
        return None
    normals = interpolate(raster, faces, vertex_normals(layer.vertices, faces))
    points = interpolate(raster, faces, layer.vertices)
    rgb = np.zeros_like(normals)
    colour = layer.colour if layer.colours is None else interpolate(raster, faces, layer.colours)[inside]
    rgb[inside] = shade(points[inside], normals[inside], colour)
    return _Drawn((slice(top, bottom), slice(left, right)), raster.depth, rgb, layer.colour)


def _scaled(K: Float[np.ndarray, "3 3"], x: float, y: float) -> Float[np.ndarray, "3 3"]:
    """The camera of the same picture at x, y times as many pixels; integers stay pixel centres."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    zoom = np.array([[x, 0, 0], [0, y, 0], [0, 0, 1.0]])
    return np.linalg.inv(half) @ zoom @ half @ floats(K)


def _rim(mask: Bool[np.ndarray, "h w"], width: float) -> Bool[np.ndarray, "h w"]:
    """The pixels of a mask that lie within `width` of its border (the window's edge is no border)."""
    size = 2 * max(1, round(width)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return mask & (cv2.erode(mask.astype(np.uint8), kernel, borderValue=1) == 0)


def _blend(
    paint: NDArray[np.float32], mask: Bool[np.ndarray, "h w"], rgb: NDArray[np.float32], alpha: float
) -> None:
    """Lay a colour over premultiplied RGBA, in place, where the mask says so."""
    _blend_compiled(paint, mask, rgb, np.float32(alpha), np.float32(1 - alpha))


@compiled
def _blend_compiled(
    paint: NDArray[np.float32],
    mask: NDArray[np.bool_],
    rgb: NDArray[np.float32],
    alpha: np.float32,
    rest: np.float32,
) -> None:
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            if mask[i, j]:
                for k in range(3):
                    paint[i, j, k] = rest * paint[i, j, k] + alpha * rgb[i, j, k]
                paint[i, j, 3] = rest * paint[i, j, 3] + alpha


def _float32(values: object) -> Float32[np.ndarray, "..."]:
    return np.asarray(values, dtype=np.float32)


def draw_side(
    layers: Sequence[Layer],
    faces: Integer[np.ndarray, "f 3"],
    around: Float[np.ndarray, "n 3"] | None = None,
) -> UInt8[np.ndarray, "900 1200 3"]:
    """The same bodies from the side, on a floor with a line every half metre; without any, a wall.

    around: points (metres, camera frame) that the view is to hold, floor under the lowest, so that several drawings
    have one camera; None: the bodies themselves.
    """
    canvas = side.backdrop()
    if not layers:
        return to_uint8(255 * canvas)
    points = np.concatenate([layer.vertices for layer in layers]) if around is None else around
    points = points.astype(np.float64)
    R, t = side.side_camera(points)
    side.draw_floor(canvas, points, R, t)
    for layer in layers:
        side.draw_shadow(canvas, layer.vertices, faces, float(points[:, 1].max()), R, t)
    turned = [replace(layer, vertices=_float32(transform(layer.vertices, R, t))) for layer in layers]
    picture = to_uint8(255 * canvas)
    _lay(picture, *_paint(turned, faces, side.side_intrinsics(), side.SIZE))
    return picture
