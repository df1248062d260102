"""Soft studio light for plain-coloured bodies: a warm key, a cool fill, the sky, and a bright rim."""

import numpy as np
from jaxtyping import Float, Float32, Integer
from numpy.typing import NDArray

from dpmesh.render.arrays import clamp, floats

_KEY = np.array([-0.45, -0.75, -0.55]) / np.linalg.norm([0.45, 0.75, 0.55])
_FILL = np.array([0.80, -0.10, -0.45]) / np.linalg.norm([0.80, 0.10, 0.45])
_WARM, _COOL = np.array([1.04, 1.0, 0.95]), np.array([0.9, 0.97, 1.1])
"""Unit directions to the lights, and their colours; camera frame: x right, y down, z forward."""


def vertex_normals(
    vertices: Float[np.ndarray, "v 3"], faces: Integer[np.ndarray, "f 3"]
) -> Float32[np.ndarray, "v 3"]:
    """Unit normals, each triangle weighing as its area; zero for a vertex that no triangle uses."""
    corners = vertices[faces].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros((len(vertices), 3))
    for k in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, k], across[:, axis], len(vertices))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(length, 1e-12)).astype(np.float32)


def shade(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    colour: tuple[float, float, float] | Float[np.ndarray, "n 3"],
) -> Float32[np.ndarray, "n 3"]:
    """sRGB in [0, 1] of surface points (metres, camera frame, the camera at the origin). colour: sRGB in [0, 1], of all
    or of each."""
    view = _unit(-floats(points))
    n = _unit(floats(normals))
    facing = (n * view).sum(1, keepdims=True)
    n, facing = np.where(facing < 0, -n, n), np.abs(facing)  # the inside of a mesh is lit like the outside
    key = clamp(n @ _KEY[:, None] * 0.75 + 0.25, 0.0, 1.0) ** 1.3  # wrapped: soft towards the shadow
    fill = clamp(n @ _FILL[:, None], 0.0, 1.0)
    sky = 0.5 - 0.5 * n[:, 1:2]
    gloss = clamp((n * _unit(_KEY + view)).sum(1, keepdims=True), 0.0, 1.0) ** 24
    linear = floats(colour) ** 2.2
    light = 0.20 + 0.30 * sky + 0.62 * key * _WARM + 0.16 * fill * _COOL
    rgb = linear * light + 0.06 * gloss + 0.16 * (1 - facing) ** 3
    return (clamp(rgb, 0.0, 1.0) ** (1 / 2.2)).astype(np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
