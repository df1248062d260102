"""Limbs inside the trunk, exactly: the winding number of the closed trunk around points of the limbs.

The trunk is cut out of the body's mesh by skinning weight and its openings (neck, shoulders, hips) are closed by
fans, so the winding number of a point is 0 outside and 1 inside. In a body without
soft tissue, a forearm on the belly always dips a centimetre into it; so a limb counts as *through* the trunk only where
its bone is inside.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dpmesh.skeletons import JOINTS30, SMPL24

TRUNK = ("Pelvis", "Torso", "Spine", "Chest", "L_Thorax", "R_Thorax")
BONES = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in "LR"
    for a, b in (("Elbow", "Wrist"), ("Wrist", "Hand"), ("Knee", "Ankle"), ("Ankle", "Toe"))
)
"""Bones that must not be inside the trunk. Upper arms and thighs begin inside it."""
_ALONG = np.linspace(0, 1, 9)
_LIMBS = ("Elbow", "Wrist", "Hand", "Knee", "Ankle", "Toe")
"""Joints, of either side, whose vertices are limb: from the elbow and from the knee outwards."""


@dataclass(frozen=True)
class Penetration:
    """bones: those with a point inside. share: of the limbs' vertices that are inside. finite: else nothing was
    tested, which is a failure of its own."""

    finite: bool
    bones: tuple[str, ...]
    share: float


class Trunk:
    """Cuts one body topology; then any posed body of it can be tested."""

    def __init__(self, weights: Float[np.ndarray, "v 24"], faces: Integer[np.ndarray, "f 3"]) -> None:
        """weights: skinning."""
        owner = weights.argmax(1)
        inside = np.isin(owner, [SMPL24.index(name) for name in TRUNK])
        self.surface = faces[inside[faces].all(1)]
        self.openings = openings(self.surface)
        self.limb = np.isin(owner, [SMPL24.index(f"{side}_{name}") for side in "LR" for name in _LIMBS])

    def closed(self, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "f 3 3"]:
        """Corners of the trunk's triangles and of the fans that close it."""
        fans = []
        for edges in self.openings:
            middle = vertices[np.unique(edges)].mean(0)
            # The edge backwards, so that the fan winds as its neighbours do.
            ends = vertices[edges[:, ::-1]]
            fans.append(np.concatenate([ends, np.broadcast_to(middle, (len(ends), 1, 3))], 1))
        return np.concatenate([vertices[self.surface], *fans])

    def test(self, vertices: Float[np.ndarray, "v 3"], joints3d: Float[np.ndarray, "30 3"]) -> Penetration:
        """vertices, joints3d (skeletons.JOINTS30): metres, one frame."""
        if not (np.isfinite(vertices).all() and np.isfinite(joints3d).all()):
            return Penetration(False, (), float("nan"))
        corners = self.closed(vertices.astype(np.float64))
        ends = joints3d[[[JOINTS30.index(a), JOINTS30.index(b)] for a, b in BONES]].astype(np.float64)
        points = ends[:, None, 0] + _ALONG[:, None] * (ends[:, None, 1] - ends[:, None, 0])  # (bones, 9, 3)
        hit = within(points.reshape(-1, 3), corners).reshape(len(BONES), -1)
        through = tuple(f"{a}-{b}" for i, (a, b) in enumerate(BONES) if hit[i].any())
        share = within(vertices[self.limb].astype(np.float64), corners).mean()
        return Penetration(True, through, float(share))


def openings(faces: Integer[np.ndarray, "f 3"]) -> list[Int[np.ndarray, "e 2"]]:
    """The directed edges that no neighbour shares, a list for each connected opening."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    size = int(faces.max()) + 1
    alone = edges[~np.isin(edges[:, 0] * size + edges[:, 1], edges[:, 1] * size + edges[:, 0])]
    if not len(alone):
        return []
    graph = coo_array((np.ones(len(alone)), (alone[:, 0], alone[:, 1])), shape=(size, size))
    group = np.asarray(connected_components(graph, directed=False)[1])[alone[:, 0]]
    return [alone[group == g] for g in np.unique(group)]


def within(points: Float[np.ndarray, "n 3"], corners: Float[np.ndarray, "f 3 3"]) -> Bool[np.ndarray, " n"]:
    """Whether the closed surface winds around each point. Points outside its box are not asked further."""
    low, high = corners.min((0, 1)), corners.max((0, 1))
    inside = ((points > low) & (points < high)).all(1)
    inside[inside] = winding(points[inside], corners) > 0.5
    return inside


def winding(points: Float[np.ndarray, "n 3"], corners: Float[np.ndarray, "f 3 3"]) -> Float[np.ndarray, " n"]:
    """Solid angle of all triangles over 4 pi (van Oosterom and Strackee, 1983): 1 inside a closed surface."""
    total = np.empty(len(points))
    for i, point in enumerate(points):
        a, b, c = np.moveaxis(corners - point, 1, 0)
        la, lb, lc = (np.sqrt(np.einsum("fi,fi->f", v, v)) for v in (a, b, c))
        over = np.einsum("fi,fi->f", a, np.cross(b, c))
        under = (
            la * lb * lc
            + np.einsum("fi,fi->f", a, b) * lc
            + np.einsum("fi,fi->f", b, c) * la
            + np.einsum("fi,fi->f", c, a) * lb
        )
        total[i] = np.arctan2(over, under).sum() / (2 * np.pi)
    return total


def volume(vertices: Float[np.ndarray, "v 3"], faces: Integer[np.ndarray, "f 3"]) -> float:
    """Signed, m³: negative for a surface that is turned inside out."""
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return float(np.einsum("fi,fi->f", a, np.cross(b, c)).sum() / 6)
