"""Simple solids as meshes: boxes, turned shapes (tubes, balls, domes, skirts), and how meshes are joined."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

_F32 = np.float32
Array32 = NDArray[np.float32]
NOWHERE = np.tile(np.array([0, 0, 0, 1], _F32), (1, 4, 1))
"""The region of a thing's only layer: everywhere."""

# The corners of a unit cube's faces, four a face, counter-clockwise from outside.
_CUBE = (
    np.array(
        [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]
    )
    / 2
)
_SIDES = np.array([[3, 2, 1, 0], [4, 5, 6, 7], [0, 4, 7, 3], [2, 6, 5, 1], [0, 1, 5, 4], [7, 6, 2, 3]])
_CORNERS = _CUBE[_SIDES].reshape(24, 3)
_NORMALS = np.repeat(np.array([[0, 0, -1], [0, 0, 1], [-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]]), 4, 0)


@dataclass(frozen=True)
class Mesh:
    """vertices (v, 3) metres; faces; normals (v, 3) unit; place (v, 3): where the material is evaluated.

    outfit (f,): the layers of a face are those from starts[outfit] to starts[outfit + 1] of regions and paints
    (clothes.Outfit); things have one layer. uv (f, 6): u and v of a face's corners, where a material has a texture.
    """

    vertices: Float32[Array32, "v 3"]
    faces: Int32[NDArray[np.int32], "f 3"]
    normals: Float32[Array32, "v 3"]
    place: Float32[Array32, "v 3"]
    outfit: Int32[NDArray[np.int32], "f"]
    starts: Int32[NDArray[np.int32], "k"]
    regions: Float32[Array32, "l 4 4"]
    paints: Float32[Array32, "l 20"]
    uv: Float32[Array32, "f 6"] | None = None

    def moved(self, turn: Float32[Array32, "3 3"], to: Float32[Array32, "3"]) -> "Mesh":
        """Turned, then shifted; its material goes along."""
        return Mesh(
            np.asarray(self.vertices @ turn.T + to, _F32), self.faces, np.asarray(self.normals @ turn.T, _F32),
            self.place, self.outfit, self.starts, self.regions, self.paints, self.uv,
        )  # fmt: skip


def thing(
    vertices: Float32[Array32, "v 3"],
    faces: Int32[NDArray[np.int32], "f 3"],
    normals: Float32[Array32, "v 3"],
    paint: Float32[Array32, "20"],
) -> Mesh:
    """A mesh of one material, evaluated where it stands."""
    return Mesh(
        vertices, faces, normals, vertices, np.zeros(len(faces), np.int32), np.array([0, 1], np.int32),
        NOWHERE, paint[None],
    )  # fmt: skip


def cuboids(
    centres: Float32[NDArray[np.float32], "b 3"], sizes: Float32[NDArray[np.float32], "b 3"]
) -> tuple[Float32[Array32, "v 3"], Int32[NDArray[np.int32], "f 3"], Float32[Array32, "v 3"]]:
    """Boxes along the axes with flat sides: vertices, faces, normals."""
    vertices = (centres[:, None] + _CORNERS * sizes[:, None]).reshape(-1, 3)
    first = np.arange(len(centres) * 6)[:, None] * 4
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    return vertices.astype(_F32), faces.astype(np.int32), np.tile(_NORMALS, (len(centres), 1)).astype(_F32)


def boxes(
    centres: Float32[NDArray[np.float32], "b 3"],
    sizes: Float32[NDArray[np.float32], "b 3"],
    paint: Float32[Array32, "20"],
) -> Mesh:
    """Boxes of one material as one mesh."""
    return thing(*cuboids(centres, sizes), paint)


def turned(
    heights: NDArray[np.floating], across: NDArray[np.floating], deep: NDArray[np.floating], sides: int = 12,
    arc: tuple[float, float] = (0.0, 2 * np.pi),
) -> tuple[Float32[Array32, "v 3"], Int32[NDArray[np.int32], "f 3"]]:  # fmt: skip
    """Rings about the y axis: ring k at heights[k], an ellipse of half axes across[k] (x) and deep[k] (z).

    arc: from and to which angle, 0 at +z, a quarter turn at +x; an open sheet where it is not the whole circle.
    Faces turn their outside out for rings from below to above.
    """
    whole = arc[1] - arc[0] > 2 * np.pi - 1e-6
    angles = np.linspace(arc[0], arc[1], sides + 1)[: sides if whole else None]
    n, m = len(heights), len(angles)
    vertices = np.empty((n, m, 3), _F32)
    vertices[..., 0] = across[:, None] * np.sin(angles)
    vertices[..., 1] = heights[:, None]
    vertices[..., 2] = deep[:, None] * np.cos(angles)
    return vertices.reshape(-1, 3), _rings(n, m, sides)


@cache
def _rings(n: int, m: int, sides: int) -> Int32[NDArray[np.int32], "f 3"]:
    """Faces between n rings of m vertices each."""
    ring, step = np.arange(n - 1)[:, None] * m, np.arange(sides)
    a, b = ring + step, ring + (step + 1) % m
    faces = np.stack([np.stack([a, b, b + m], -1), np.stack([a, b + m, a + m], -1)], 2).reshape(-1, 3)
    faces = faces.astype(np.int32)
    faces.setflags(write=False)  # all shapes of these numbers share them
    return faces


def join(meshes: list[Mesh]) -> Mesh:
    """All of them as one, in order."""
    if len(meshes) == 1:
        return meshes[0]
    vertices = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)], dtype=np.int32)
    layers = np.cumsum([0, *(len(mesh.paints) for mesh in meshes)], dtype=np.int32)
    outfits = np.cumsum([0, *(len(mesh.starts) - 1 for mesh in meshes)], dtype=np.int32)
    starts = [mesh.starts[:-1] + start for mesh, start in zip(meshes, layers, strict=False)]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + first for mesh, first in zip(meshes, vertices, strict=False)]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.place for mesh in meshes]),
        np.concatenate([mesh.outfit + first for mesh, first in zip(meshes, outfits, strict=False)]),
        np.concatenate([*starts, layers[-1:]]),
        np.concatenate([mesh.regions for mesh in meshes]),
        np.concatenate([mesh.paints for mesh in meshes]),
        _join_uv(meshes),
    )


def _join_uv(meshes: list[Mesh]) -> Float32[Array32, "f 6"] | None:
    """None where no mesh has a texture."""
    if all(mesh.uv is None for mesh in meshes):
        return None
    out = np.zeros((sum(len(mesh.faces) for mesh in meshes), 6), _F32)
    first = 0
    for mesh in meshes:
        if mesh.uv is not None:
            out[first : first + len(mesh.faces)] = mesh.uv
        first += len(mesh.faces)
    return out
