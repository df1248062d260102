"""Soft studio light for plain-coloured bodies: a warm key, a cool fill, the sky, and a bright rim."""

import numpy as np
from jaxtyping import Float, Float32, Integer
from numpy.typing import NDArray

from dpmesh.render.typed import compiled, floats

_KEY = np.array([-0.45, -0.75, -0.55]) / np.linalg.norm([0.45, 0.75, 0.55])
_FILL = np.array([0.80, -0.10, -0.45]) / np.linalg.norm([0.80, 0.10, 0.45])
_WARM, _COOL = np.array([1.04, 1.0, 0.95]), np.array([0.9, 0.97, 1.1])
"""Unit directions to the lights, and their colours; camera frame: x right, y down, z forward."""


def vertex_normals(
    vertices: Float[np.ndarray, "v 3"], faces: Integer[np.ndarray, "f 3"]
) -> Float32[np.ndarray, "v 3"]:
    """Unit normals, outward for counter-clockwise faces, each triangle weighing as its area; zero for a vertex that no
    triangle uses."""
    out = np.zeros(vertices.shape, np.float32)
    _normals(np.asarray(vertices, np.float32), np.asarray(faces, np.int32), out)
    return out


@compiled
def _normals(vertices: NDArray[np.float32], faces: NDArray[np.int32], out: NDArray[np.float32]) -> None:
    for f in range(faces.shape[0]):
        p, q, r = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ax, ay, az = q[0] - p[0], q[1] - p[1], q[2] - p[2]
        bx, by, bz = r[0] - p[0], r[1] - p[1], r[2] - p[2]
        for k in range(3):
            at = out[faces[f, k]]
            at[0] += ay * bz - az * by
            at[1] += az * bx - ax * bz
            at[2] += ax * by - ay * bx
    for v in range(out.shape[0]):
        length = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
        for k in range(3):
            out[v, k] /= max(length, np.float32(1e-12))


def shade(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    colour: tuple[float, float, float] | Float[np.ndarray, "n 3"],
) -> Float32[np.ndarray, "n 3"]:
    """sRGB in [0, 1] of surface points (metres, camera frame, the camera at the origin). colour: sRGB in [0, 1], of all
    or of each."""
    out = np.empty(points.shape, np.float32)
    base = np.ascontiguousarray(np.broadcast_to(floats(colour) ** 2.2, points.shape))
    _shade(floats(points), floats(normals), base, _KEY, _FILL, _WARM, _COOL, out)
    return out


@compiled
def _shade(
    points: NDArray[np.float64],
    normals: NDArray[np.float64],
    base: NDArray[np.float64],
    key_light: NDArray[np.float64],
    fill_light: NDArray[np.float64],
    warm: NDArray[np.float64],
    cool: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    n, view, half = np.empty(3), np.empty(3), np.empty(3)
    for i in range(len(points)):
        _unit(-points[i], view)
        _unit(normals[i], n)
        facing = n[0] * view[0] + n[1] * view[1] + n[2] * view[2]
        if facing < 0:  # just behind the outline: lit as on it, so that light does not jump inside a triangle
            for k in range(3):
                n[k] -= facing * view[k]
            _unit(n.copy(), n)
            facing = 0.0
        _unit(key_light + view, half)
        towards = n[0] * key_light[0] + n[1] * key_light[1] + n[2] * key_light[2]
        key = min(max(towards * 0.75 + 0.25, 0.0), 1.0) ** 1.3  # wrapped: soft towards the shadow
        fill = min(max(n[0] * fill_light[0] + n[1] * fill_light[1] + n[2] * fill_light[2], 0.0), 1.0)
        sky = 0.5 - 0.5 * n[1]
        gloss = min(max(n[0] * half[0] + n[1] * half[1] + n[2] * half[2], 0.0), 1.0) ** 24
        bright = 0.06 * gloss + 0.16 * (1 - facing) ** 3
        for k in range(3):
            light = 0.20 + 0.30 * sky + 0.62 * key * warm[k] + 0.16 * fill * cool[k]
            out[i, k] = min(max(base[i, k] * light + bright, 0.0), 1.0) ** (1 / 2.2)


@compiled
def _unit(vector: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    length = max(np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2), 1e-9)
    for k in range(3):
        out[k] = vector[k] / length
