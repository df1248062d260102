"""Meshes that the viewer sends to the browser besides the bodies: joints' balls, and surfaces of many colours."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.inference.glb import linear

if TYPE_CHECKING:
    import trimesh


def coloured_mesh(
    vertices: Float[np.ndarray, "v 3"],
    faces: NDArray[np.int32],
    colours: Float[np.ndarray, "v 3"],
    opacity: float,
) -> "trimesh.Trimesh":
    """A matt surface with a colour at each vertex, sRGB in [0, 1]."""
    import trimesh  # comes with viser
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(
        baseColorFactor=np.array([1.0, 1.0, 1.0, opacity]), metallicFactor=0.0, roughnessFactor=1.0,
        alphaMode="BLEND" if opacity < 1 else "OPAQUE",
    )  # fmt: skip
    visual = TextureVisuals(material=material)
    full = np.ones((len(vertices), 1))
    visual.vertex_attributes["color"] = np.rint(255 * np.hstack([linear(colours), full])).astype(np.uint8)
    return trimesh.Trimesh(vertices, faces, visual=visual, process=False)


def ball(radius: float) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """An octahedron, cut once: vertices at the radius, metres, and triangles."""
    corners = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], np.float64)
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    vertices, triangles = [*corners], []
    for a, b, c in faces:
        first = len(vertices)
        vertices += [corners[a] + corners[b], corners[b] + corners[c], corners[c] + corners[a]]
        ab, bc, ca = first, first + 1, first + 2
        triangles += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    unit = np.array([v / np.linalg.norm(v) for v in vertices])
    return (radius * unit).astype(np.float32), np.array(triangles, np.int32)
