"""A z-buffer on the CPU: at each pixel the nearest triangle, its depth, and the point on it.

Compiled with numba. Pixel (row i, column j) is sampled at its centre, which is x = j, y = i
(docs/reference/conventions.md). Of two surfaces at exactly one depth the triangle with the lower index wins, so the
result is a function of the input alone.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32, Integer
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.render.typed import compiled

NEAR = 0.05
"""Metres. A triangle with a corner nearer than this is dropped whole: it would need clipping."""


class Raster(NamedTuple):
    """The nearest triangle at each pixel.

    depth: (h, w) metres along z, inf where empty.  face: (h, w) triangle index, -1 where empty.
    bary: (h, w, 3) perspective-correct weights of the triangle's corners, 0 where empty.
    """

    depth: Float32[NDArray[np.float32], "h w"]
    face: Int32[NDArray[np.int32], "h w"]
    bary: Float32[NDArray[np.float32], "h w 3"]


def rasterize(
    vertices: Float[NDArray[np.floating], "v 3"],
    faces: Integer[NDArray[np.integer], "f 3"],
    K: Float[NDArray[np.floating], "3 3"],
    size: tuple[int, int],
    cull: bool = False,
    onto: Raster | None = None,
    first: int = 0,
) -> Raster:
    """Draw triangles with the pinhole camera `K`; both sides of a triangle are drawn.

    vertices: camera frame, metres, x right, y down, z forward.  K: pixels.  size: (height, width) pixels.
    cull: leave out triangles that turn clockwise, which gives the same image of a closed surface from outside.
    onto: drawn over in place and returned, where the triangles are nearer than its depth; they count from `first`.
    Several meshes are drawn by concatenating them. A triangle with a corner that is not finite is dropped.
    Raises InputError for a vertex index out of range (the compiled loops do not check).
    """
    if not _known(
        faces, len(vertices)
    ):  # before the conversion: a huge number would become a small one in 32 bits
        raise InputError("a triangle names a vertex that does not exist", where="faces")
    height, width = size
    if onto is None:
        depth = np.full((height, width), np.inf, np.float32)
        face = np.full((height, width), -1, np.int32)
        onto = Raster(depth, face, np.zeros((height, width, 3), np.float32))
    points = np.ascontiguousarray(vertices, dtype=np.float64)
    corners = np.ascontiguousarray(faces, dtype=np.int32)
    _draw(points, corners, np.ascontiguousarray(K, dtype=np.float64), *onto, cull, first)
    return onto


def interpolate(
    raster: Raster,
    faces: Integer[NDArray[np.integer], "f 3"],
    values: Float[NDArray[np.floating], "v c"],
    empty: float = 0.0,
) -> Float32[NDArray[np.float32], "h w c"]:
    """Values of the vertices, interpolated to the pixels; `empty` where no triangle is visible."""
    height, width = raster.face.shape
    face, bary = np.reshape(raster.face, -1), np.reshape(raster.bary, (-1, 3))
    return np.reshape(interpolate_points(face, bary, faces, values, empty), (height, width, -1))


def interpolate_points(
    face: Int32[NDArray[np.int32], " n"],
    bary: Float32[NDArray[np.float32], "n 3"],
    faces: Integer[NDArray[np.integer], "f 3"],
    values: Float[NDArray[np.floating], "v c"],
    empty: float = 0.0,
) -> Float32[NDArray[np.float32], "n c"]:
    """The same for points, each on a triangle by its index (-1: none) and barycentric weights."""
    out = np.full((len(face), values.shape[1]), empty, np.float32)
    corners = np.ascontiguousarray(faces, dtype=np.int32)
    _interpolate(face, bary, corners, np.ascontiguousarray(values, dtype=np.float32), out)
    return out


@compiled
def _known(faces: NDArray[np.integer], count: int) -> bool:
    """Whether every corner is one of `count` vertices."""
    wrong = 0
    for f in range(faces.shape[0]):
        for k in range(3):
            wrong += faces[f, k] < 0 or faces[f, k] >= count
    return wrong == 0


@compiled
def _draw(
    points: NDArray[np.float64],
    faces: NDArray[np.int32],
    K: NDArray[np.float64],
    depth: NDArray[np.float32],
    face: NDArray[np.int32],
    bary: NDArray[np.float32],
    cull: bool,
    first: int,
) -> None:
    height, width = depth.shape
    count = points.shape[0]
    screen = np.empty((count, 3))  # x px, y px, 1 / z; 1 / z = -1 marks a vertex that cannot be drawn
    for v in range(count):
        x, y, z = points[v, 0], points[v, 1], points[v, 2]
        if z >= NEAR and np.isfinite(x) and np.isfinite(y) and np.isfinite(z):
            screen[v, 0] = (K[0, 0] * x + K[0, 1] * y) / z + K[0, 2]
            screen[v, 1] = K[1, 1] * y / z + K[1, 2]
            screen[v, 2] = 1.0 / z
        else:
            screen[v, 2] = -1.0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        qa, qb, qc = screen[a, 2], screen[b, 2], screen[c, 2]
        if qa < 0 or qb < 0 or qc < 0:
            continue
        ax, ay, bx, by, cx, cy = (
            screen[a, 0],
            screen[a, 1],
            screen[b, 0],
            screen[b, 1],
            screen[c, 0],
            screen[c, 1],
        )
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-12 or (cull and area > 0):  # its back: y runs down
            continue
        left, right = np.ceil(max(min(ax, bx, cx), 0.0)), np.floor(min(max(ax, bx, cx), width - 1.0))
        top, bottom = np.ceil(max(min(ay, by, cy), 0.0)), np.floor(min(max(ay, by, cy), height - 1.0))
        if left > right or top > bottom:  # outside, or between the pixels
            continue
        share = 1.0 / area
        for i in range(int(top), int(bottom) + 1):
            start, end = left, right
            if (
                end - start > 6
            ):  # of a large triangle only the span inside this row, and a pixel more at each end
                for w, slope in (
                    ((bx * (cy - i) - (by - i) * cx) * share, (by - cy) * share),
                    ((cx * (ay - i) - (cy - i) * ax) * share, (cy - ay) * share),
                    ((ax * (by - i) - (ay - i) * bx) * share, (ay - by) * share),
                ):
                    if slope > 1e-12:
                        start = max(start, np.floor(-w / slope) - 1)
                    elif slope < -1e-12:
                        end = min(end, np.ceil(-w / slope) + 1)
            for j in range(int(start), int(end) + 1):
                # Part areas over the whole: weights on the screen, positive inside whichever way it winds.
                wa = ((bx - j) * (cy - i) - (by - i) * (cx - j)) * share
                wb = ((cx - j) * (ay - i) - (cy - i) * (ax - j)) * share
                wc = ((ax - j) * (by - i) - (ay - i) * (bx - j)) * share
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                q = wa * qa + wb * qb + wc * qc  # 1 / z is linear on the screen, z is not
                z = 1.0 / q
                z32 = np.float32(z)
                if z32 < depth[i, j]:
                    depth[i, j] = z32
                    face[i, j] = f + first
                    bary[i, j, 0] = wa * qa * z
                    bary[i, j, 1] = wb * qb * z
                    bary[i, j, 2] = wc * qc * z


@compiled
def _interpolate(
    face: NDArray[np.int32],
    bary: NDArray[np.float32],
    faces: NDArray[np.int32],
    values: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    for i in range(len(face)):
        if face[i] >= 0:
            a, b, c = faces[face[i], 0], faces[face[i], 1], faces[face[i], 2]
            for k in range(values.shape[1]):
                out[i, k] = bary[i, 0] * values[a, k] + bary[i, 1] * values[b, k] + bary[i, 2] * values[c, k]
