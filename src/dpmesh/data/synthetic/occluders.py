"""Things that stand before a person: furniture made of boxes, in space, and flat shapes at a depth."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32
from numpy.typing import NDArray

from dpmesh.data.synthetic.backdrop import cloud, colour
from dpmesh.data.synthetic.body import matrices

_F32 = np.float32
Array32 = NDArray[np.float32]

# The corners of a unit cube's faces, four a face, counter-clockwise from outside.
_CUBE = (
    np.array(
        [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]
    )
    / 2
)
_SIDES = np.array([[3, 2, 1, 0], [4, 5, 6, 7], [0, 4, 7, 3], [2, 6, 5, 1], [0, 1, 5, 4], [7, 6, 2, 3]])
_NORMALS = np.array([[0, 0, -1], [0, 0, 1], [-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]])


@dataclass(frozen=True)
class Mesh:
    """vertices (v, 3) metres; faces; colour (v, 3) RGB in [0, 1]; normals (v, 3) unit."""

    vertices: Float32[NDArray[np.float32], "v 3"]
    faces: Int32[NDArray[np.int32], "f 3"]
    colour: Float32[NDArray[np.float32], "v 3"]
    normals: Float32[NDArray[np.float32], "v 3"]


def boxes(
    centres: Float32[NDArray[np.float32], "b 3"],
    sizes: Float32[NDArray[np.float32], "b 3"],
    colours: Float32[NDArray[np.float32], "b 3"],
) -> Mesh:
    """Boxes along the axes, each with a colour, as one mesh with flat sides."""
    corners = _CUBE[_SIDES].reshape(24, 3)
    vertices = (centres[:, None] + corners * sizes[:, None]).reshape(-1, 3)
    first = np.arange(len(centres) * 6)[:, None] * 4
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    normals = np.tile(np.repeat(_NORMALS, 4, 0), (len(centres), 1))
    return Mesh(
        vertices.astype(_F32),
        faces.astype(np.int32),
        np.repeat(colours, 24, 0).astype(_F32),
        normals.astype(_F32),
    )


def furniture(
    rng: np.random.Generator,
    view: Float32[NDArray[np.float32], "3 3"],
    before: Float32[NDArray[np.float32], "3"],
) -> Mesh:
    """A crate, table, chair, counter, fence or post that covers the point `before` as the camera sees it.

    view: world (y up) to camera.  before: a point of a person, metres, camera frame.
    """
    kind = rng.integers(6)
    u = rng.uniform
    if kind == 0:  # crates and cupboards
        parts = [([0, 0, 0], u(0.2, 0.9, 3))]
    elif kind == 1:  # a table
        w, d, h, leg = u(0.6, 1.8), u(0.5, 0.9), u(0.45, 1.0), u(0.03, 0.08)
        parts = [([0, 0, 0], [w, u(0.02, 0.08), d])]
        parts += [
            ([x * (w - leg) / 2, -h / 2, z * (d - leg) / 2], [leg, h, leg]) for x in (-1, 1) for z in (-1, 1)
        ]
    elif kind == 2:  # a chair
        w, h, back = u(0.4, 0.6), u(0.4, 0.5), u(0.3, 0.6)
        parts = [([0, 0, 0], [w, 0.05, w]), ([0, back / 2, -w / 2], [w, back, 0.05])]
        parts += [([x * w * 0.45, -h / 2, z * w * 0.45], [0.04, h, 0.04]) for x in (-1, 1) for z in (-1, 1)]
    elif kind == 3:  # a counter or a wall
        parts = [([0, -0.4, 0], [u(1.0, 3.0), u(0.7, 1.2), u(0.1, 0.6)])]
    elif kind == 4:  # a fence
        step = u(0.12, 0.4)
        parts = [([x * step, 0, 0], [u(0.02, 0.08), 1.2, 0.03]) for x in range(-5, 6)]
        parts += [([0, y, 0.03], [11 * step, 0.06, 0.03]) for y in (-0.35, 0.35)]
    else:  # a post, a trunk
        parts = [([0, 0, 0], [u(0.06, 0.35), 3.0, u(0.06, 0.35)])]
    base = colour(rng, 0.3)
    colours = np.clip(base * rng.uniform(0.85, 1.1, (len(parts), 1)), 0, 1)
    mesh = boxes(
        np.array([p for p, _ in parts], _F32), np.array([s for _, s in parts], _F32), colours.astype(_F32)
    )
    turn = view @ matrices(np.array([0, u(-np.pi, np.pi), 0], _F32))
    turned = mesh.vertices @ turn.T
    # Before the person as a whole: its far end in front of the point, as near as the camera allows.
    depth = before[2] - u(0.12, 0.5) - float(turned[:, 2].max())
    depth = max(depth, 0.3 - float(turned[:, 2].min()))
    place = before * _F32(depth / before[2])
    place[:2] += rng.normal(0, 0.08, 2)
    return Mesh((turned + place).astype(_F32), mesh.faces, mesh.colour, (mesh.normals @ turn.T).astype(_F32))


def flat_shape(
    rng: np.random.Generator, size: int, centre: tuple[float, float], extent: float
) -> Bool[NDArray[np.bool_], "s s"]:
    """A rectangle, ellipse, polygon, stroke or blot around `centre` (x, y px), of about `extent` px."""
    mask = np.zeros((size, size), np.uint8)
    x, y = centre
    w, h = extent * rng.uniform(0.3, 1.0, 2)
    kind = rng.integers(5)
    if kind == 0:
        turn = rng.choice([0.0, rng.uniform(0, 180)])
        points = cv2.boxPoints(((x, y), (w, h), turn))
        cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    elif kind == 1:
        cv2.ellipse(
            mask, (int(x), int(y)), (int(w / 2) + 1, int(h / 2) + 1), rng.uniform(0, 180), 0, 360, 1, -1
        )
    elif kind == 2:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        radius = rng.uniform(0.3, 0.7, len(angles))
        points = np.stack([x + w * radius * np.cos(angles), y + h * radius * np.sin(angles)], 1)
        cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    elif kind == 3:  # a pole, a branch, somebody's arm
        d = rng.normal(0, 1, 2) * extent
        cv2.line(
            mask, (int(x - d[0]), int(y - d[1])), (int(x + d[0]), int(y + d[1])), 1, int(rng.integers(3, 26))
        )
    else:
        field = cloud(rng, size, int(rng.integers(4, 12)), 1)[..., 0]
        axis = np.arange(size)
        near = ((axis - x) / max(w, 1)) ** 2 + ((axis[:, None] - y) / max(h, 1)) ** 2
        mask = (field * 0.6 > near - 0.3).astype(np.uint8)
    return mask.astype(bool)
