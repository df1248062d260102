"""Bodies as a layer of paint: the nearest one shaded, what it hides hatched.

The work grows with the pixels that the bodies cover, the memory with those of the drawing, not with the bodies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Integer
from numpy.typing import NDArray

from dpmesh.render.rasterizer import NEAR, Raster, interpolate_points, rasterize
from dpmesh.render.shading import shade, vertex_normals
from dpmesh.render.typed import compiled, floats

Colour = tuple[float, float, float]
"""sRGB in [0, 1]."""

Window = tuple[slice, slice]
"""Rows and columns."""

_FINE = 2400
"""Longest side of the supersampled drawing, pixels, where that leaves at least two by two samples a pixel."""
OPAQUE = 0.93
"""Opacity of a visible surface where nothing behind it matters."""
_ROWS = 128
"""Rows that are painted at a time."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One body to draw: vertices (V, 3) metres, camera frame, and its colour; `colours` (sRGB in [0, 1]) of each vertex
    instead on its surface, where `colour` is left for what a nearer body hides."""

    vertices: Float[np.ndarray, "v 3"]
    colour: Colour
    colours: Float[np.ndarray, "v 3"] | None = None


class _Surface(NamedTuple):
    """A layer whose window in the drawing is not empty. lit: sRGB of each vertex; the triangles are so small that light
    at their corners is enough."""

    layer: Layer
    lit: Float32[np.ndarray, "v 3"]
    window: Window


def paint_bodies(
    layers: Sequence[Layer],
    faces: Integer[np.ndarray, "f 3"],
    K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    opacity: float = OPAQUE,
) -> tuple[Float32[np.ndarray, "h w 4"], Window]:
    """Bodies as premultiplied RGBA in [0, 1], and the window of `size` (h, w) that they cover.

    Drawn finer and averaged down for smooth edges. opacity: of visible surfaces, in [0, 1]; outlines have more.
    """
    fine = max(2, min(4, _FINE // max(size)))
    finely = scaled(K, float(fine), float(fine))
    windows = [_window_of(layer, finely, (size[0] * fine, size[1] * fine)) for layer in layers]
    at = _union([w for w in windows if w is not None], fine)
    top, left = fine * at[0].start, fine * at[1].start
    height, width = fine * (at[0].stop - at[0].start), fine * (at[1].stop - at[1].start)
    paint = np.zeros((height, width, 4), np.float32)
    if not paint.size:
        return paint, at
    surfaces = [
        _Surface(layer, _lit(layer, faces), _moved(window, top, left))
        for layer, window in zip(layers, windows, strict=True)
        if window is not None
    ]
    camera = _moved_camera(finely, top, left)
    line = 1.3 * fine * max(1.0, max(size) / 1100)  # width of an outline, fine pixels
    owner = _paint_visible(paint, surfaces, faces, camera, line, opacity)
    _paint_hidden(paint, owner, surfaces, faces, camera, line)
    small = (width // fine, height // fine)
    return _float32(cv2.resize(paint, small, interpolation=cv2.INTER_AREA)), at


def scaled(K: Float[np.ndarray, "3 3"], x: float, y: float) -> Float[np.ndarray, "3 3"]:
    """The camera of the same image at x, y times as many pixels; integers stay pixel centres."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    zoom = np.array([[x, 0, 0], [0, y, 0], [0, 0, 1.0]])
    return np.linalg.inv(half) @ zoom @ half @ floats(K)


def _lit(layer: Layer, faces: Integer[np.ndarray, "f 3"]) -> Float32[np.ndarray, "v 3"]:
    colour = layer.colour if layer.colours is None else layer.colours
    return shade(layer.vertices, vertex_normals(layer.vertices, faces), colour)


def _window_of(layer: Layer, K: Float[np.ndarray, "3 3"], size: tuple[int, int]) -> Window | None:
    """The part of the drawing that a body may cover; None for a body outside the camera's view."""
    vertices = layer.vertices[layer.vertices[:, 2] > NEAR].astype(np.float64)
    if not len(vertices):
        return None
    x = K[0, 0] * vertices[:, 0] / vertices[:, 2] + K[0, 2]
    y = K[1, 1] * vertices[:, 1] / vertices[:, 2] + K[1, 2]
    left, right = (min(max(int(v), 0), size[1]) for v in (np.floor(x.min()) - 1, np.ceil(x.max()) + 2))
    top, bottom = (min(max(int(v), 0), size[0]) for v in (np.floor(y.min()) - 1, np.ceil(y.max()) + 2))
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _union(windows: Sequence[Window], fine: int) -> Window:
    """The least window, in pixels `fine` times as large, that holds all; empty for none."""

    def side(k: int) -> slice:
        return slice(
            min((w[k].start for w in windows), default=0) // fine,
            -(-max((w[k].stop for w in windows), default=0) // fine),
        )

    return side(0), side(1)


def _moved(window: Window, top: int, left: int) -> Window:
    """The same window counted from (top, left)."""
    rows, columns = window
    return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


def _moved_camera(K: Float[np.ndarray, "3 3"], top: int, left: int) -> Float[np.ndarray, "3 3"]:
    return K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]], float)


def _paint_visible(
    paint: NDArray[np.float32],
    surfaces: Sequence[_Surface],
    faces: Integer[np.ndarray, "f 3"],
    camera: Float[np.ndarray, "3 3"],
    line: float,
    opacity: float,
) -> NDArray[np.uint16]:
    """Paint every body's visible surface and outline, in place; returns the body at each pixel, from 1 on, 0 for none.

    All bodies are one mesh here, so that a pixel is painted once, whatever lies behind it.
    """
    size = (paint.shape[0], paint.shape[1])
    raster: Raster | None = None
    for i, surface in enumerate(surfaces):
        raster = rasterize(surface.layer.vertices, faces, camera, size, onto=raster, first=i * len(faces))
    assert raster is not None
    owner = _owners(raster.face, len(faces))
    outline = (_rims(owner, line) if opacity >= OPAQUE else _two_lines(owner, line)).astype(np.uint8)
    corners = np.concatenate([faces + i * len(s.layer.vertices) for i, s in enumerate(surfaces)]).astype(
        np.int32
    )
    lit = np.concatenate([s.lit for s in surfaces])
    for start in range(0, size[0], _ROWS):
        rows = slice(start, start + _ROWS)
        inside = np.flatnonzero(raster.face[rows] >= 0)
        face, bary = np.reshape(raster.face[rows], -1)[inside], np.reshape(raster.bary[rows], (-1, 3))[inside]
        colours = interpolate_points(face, bary, corners, lit)
        _lay_visible(
            np.reshape(paint[rows], (-1, 4)), inside, colours, np.reshape(outline[rows], -1), opacity
        )
    return owner


@compiled
def _owners(face: NDArray[np.int32], count: int) -> NDArray[np.uint16]:
    """The body of each triangle, from 1 on; 0 for none. count: triangles of a body."""
    owner = np.zeros(face.shape, np.uint16)
    for i in range(face.shape[0]):
        for j in range(face.shape[1]):
            if face[i, j] >= 0:
                owner[i, j] = face[i, j] // count + 1
    return owner


@compiled
def _lay_visible(
    paint: NDArray[np.float32],
    inside: NDArray[np.int64],
    rgb: NDArray[np.float32],
    outline: NDArray[np.uint8],
    opacity: float,
) -> None:
    """outline: 1 dark, 2 light."""
    solid, dark = np.float32(opacity), np.float32(0.45)
    line, rest = np.float32(0.55), np.float32(1 - 0.55)
    light, white = np.float32(0.85), np.float32(0.55)
    for i in range(len(inside)):
        p = inside[i]
        for k in range(3):
            paint[p, k] = solid * rgb[i, k]
            if outline[p] == 1:
                paint[p, k] = rest * paint[p, k] + line * (dark * rgb[i, k])
            elif outline[p] == 2:
                paint[p, k] = light * (white + (np.float32(1) - white) * rgb[i, k])
        paint[p, 3] = light if outline[p] == 2 else rest * solid + line if outline[p] == 1 else solid


def _paint_hidden(
    paint: NDArray[np.float32],
    owner: NDArray[np.uint16],
    surfaces: Sequence[_Surface],
    faces: Integer[np.ndarray, "f 3"],
    camera: Float[np.ndarray, "3 3"],
    line: float,
) -> None:
    """What nearer bodies hide, in place, far bodies first: a faint tint, stripes and the outline, in their colour."""
    depth: dict[int, float] = {}
    for i, raster in _alone(_meeting(surfaces), surfaces, faces, camera):
        body = raster.face >= 0
        if (body & (owner[surfaces[i].window] != i + 1)).any():
            depth[i] = float(np.median(raster.depth[body]))
    corners = np.ascontiguousarray(faces, dtype=np.int32)
    for i, raster in _alone(sorted(depth, key=lambda i: -depth[i]), surfaces, faces, camera):
        surface = surfaces[i]
        rim = _rim(raster.face >= 0, 1.4 * line)
        top, left = (part.start for part in surface.window)
        colour = _float32(surface.layer.colour)
        _hatch(
            paint[surface.window], owner[surface.window], i + 1, raster.face, raster.bary, corners, surface.lit,
            colour, rim,
            7.0 * line, top + left,
        )  # fmt: skip


def _meeting(surfaces: Sequence[_Surface]) -> list[int]:
    """Those whose window meets another's: only they can be hidden."""
    top, bottom, left, right = (
        floats([(w.start, w.stop)[end] for w in (s.window[axis] for s in surfaces)])
        for axis in (0, 1)
        for end in (0, 1)
    )
    meets = (
        (top[:, None] < bottom) & (top < bottom[:, None]) & (left[:, None] < right) & (left < right[:, None])
    )
    return [i for i in range(len(surfaces)) if np.count_nonzero(meets[i]) > 1]  # each meets itself


def _alone(
    chosen: Sequence[int],
    surfaces: Sequence[_Surface],
    faces: Integer[np.ndarray, "f 3"],
    camera: Float[np.ndarray, "3 3"],
) -> Iterator[tuple[int, Raster]]:
    """Each body rasterised alone in its window. One memory serves all: a raster is good until the next one."""
    sizes = [tuple(part.stop - part.start for part in surfaces[i].window) for i in chosen]
    most = max((h * w for h, w in sizes), default=0)
    memory = Raster(np.empty(most, np.float32), np.empty(most, np.int32), np.empty((most, 3), np.float32))
    for i, (h, w) in zip(chosen, sizes, strict=True):
        raster = Raster(
            np.reshape(memory.depth[: h * w], (h, w)),
            np.reshape(memory.face[: h * w], (h, w)),
            np.reshape(memory.bary[: h * w], (h, w, 3)),
        )
        raster.depth.fill(np.inf)
        raster.face.fill(-1)
        top, left = (part.start for part in surfaces[i].window)
        rasterize(surfaces[i].layer.vertices, faces, _moved_camera(camera, top, left), (h, w), onto=raster)
        yield i, raster


@compiled
def _hatch(
    paint: NDArray[np.float32],
    owner: NDArray[np.uint16],
    own: int,
    face: NDArray[np.int32],
    bary: NDArray[np.float32],
    faces: NDArray[np.int32],
    rgb: NDArray[np.float32],
    colour: NDArray[np.float32],
    rim: NDArray[np.bool_],
    period: float,
    phase: int,
) -> None:
    """phase: row plus column of the window's corner, where the stripes are counted from."""
    tint, stripe, edge = np.float32(0.12), np.float32(0.75), np.float32(0.9)
    one, plain, lit = np.float32(1), np.float32(0.35), np.float32(0.65)
    for i in range(face.shape[0]):
        for j in range(face.shape[1]):
            f = face[i, j]
            if f < 0 or owner[i, j] == own:
                continue
            striped = (phase + i + j) % period < 0.4 * period
            for k in range(3):
                here = (
                    bary[i, j, 0] * rgb[faces[f, 0], k]
                    + bary[i, j, 1] * rgb[faces[f, 1], k]
                    + bary[i, j, 2] * rgb[faces[f, 2], k]
                )
                paint[i, j, k] = (one - tint) * paint[i, j, k] + tint * here
                if striped:
                    paint[i, j, k] = (one - stripe) * paint[i, j, k] + stripe * (
                        plain * colour[k] + lit * here
                    )
                if rim[i, j]:
                    paint[i, j, k] = (one - edge) * paint[i, j, k] + edge * (plain * colour[k] + lit)
            paint[i, j, 3] = (one - tint) * paint[i, j, 3] + tint
            if striped:
                paint[i, j, 3] = (one - stripe) * paint[i, j, 3] + stripe
            if rim[i, j]:
                paint[i, j, 3] = (one - edge) * paint[i, j, 3] + edge


def _rims(owner: NDArray[np.uint16], width: float) -> Bool[np.ndarray, "h w"]:
    """The pixels within `width` of another owner's or of the background (the drawing's edge is no border)."""
    kernel = _disc(width)
    return (cv2.erode(owner, kernel) != owner) | (cv2.dilate(owner, kernel) != owner)


def _two_lines(owner: NDArray[np.uint16], width: float) -> Integer[np.ndarray, "h w"]:
    """For a photo of any brightness: 2 (light) near another owner or the background, 1 (dark) along that, else 0."""
    distance = floats(cv2.distanceTransform((~_rims(owner, 1.0)).astype(np.uint8), cv2.DIST_L2, 3))
    return (distance <= 1.7 * width).astype(int) + (distance <= 0.7 * width)


def _rim(mask: Bool[np.ndarray, "h w"], width: float) -> Bool[np.ndarray, "h w"]:
    """The pixels of a mask that lie within `width` of its border (the window's edge is no border)."""
    return mask & (cv2.erode(mask.astype(np.uint8), _disc(width), borderValue=1) == 0)


def _disc(radius: float) -> NDArray[np.uint8]:
    size = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _float32(values: object) -> Float32[np.ndarray, "..."]:
    return np.asarray(values, dtype=np.float32)
