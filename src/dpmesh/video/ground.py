"""The floor of a static camera, from the feet over time.

Gravity is not measured. Up is taken from the people: the direction of upright trunks, corrected by the plane through
the feet that stand still. The floor is the plane of those feet. Both are refused where the camera moves or where nobody
stands.
"""

import numpy as np
from jaxtyping import Float

from dpmesh.geometry.floor import FEET, SOLE, Floor, plane_normal, unit
from dpmesh.skeletons import JOINTS30
from dpmesh.video.feet import still
from dpmesh.video.tracks import Ground, Tracks

_PELVIS, _NECK = JOINTS30.index("Pelvis"), JOINTS30.index("Neck")
_LEAN = 12.0
"""Degrees between the trunks and the plane of the feet beyond which the trunks decide."""
_LEVEL, _AGREED = 0.2, 0.7
"""Metres from the floor, and the share of standing feet that must be so near: else there is no single floor."""
_SPREAD = 0.05
"""Metres: how far standing feet must be spread along the floor before their plane counts against the trunks."""


def find_ground(tracks: Tracks) -> Ground | None:
    """The floor, or None where too few feet stand still, or where they stand at several heights."""
    feet, standing, trunks = [], [], []
    for number in tracks.numbers:
        own = tracks.of(int(number))
        if len(own) < 5:
            continue
        joints = tracks.joints3d[own].astype(np.float64)
        slow = still(joints[:, FEET], tracks.time[own])
        lowest = joints[:, FEET] @ _trunk_up(joints)
        low = lowest - np.asarray(SOLE) <= (lowest - np.asarray(SOLE)).min(1, keepdims=True) + 0.1
        use = slow & low & ~tracks.interpolated[own, None]
        feet.append(joints[:, FEET] - np.asarray(SOLE)[:, None] * _trunk_up(joints))
        standing.append(use)
        trunks.append((joints[:, _NECK] - joints[:, _PELVIS])[use.any(1)])
    points = np.concatenate([f[s] for f, s in zip(feet, standing, strict=True)]) if feet else np.zeros((0, 3))
    if len(points) < 10:
        return None
    trunk = up = unit(np.median(np.concatenate(trunks), axis=0))
    inside = points
    for _ in range(5):
        up = plane_normal(inside, up, _SPREAD)
        if up @ trunk < np.cos(np.radians(_LEAN)):
            up = trunk  # the feet's depth is too uncertain to say more
        heights = inside @ up
        centre = np.median(heights)
        spread = max(1.4826 * np.median(np.abs(heights - centre)), 0.02)
        inside = inside[np.abs(heights - centre) < 4 * spread]
    level = float(np.median(inside @ up))
    if (np.abs(points @ up - level) < _LEVEL).mean() < _AGREED:
        return None
    return ground_of(Floor(up, -level))


def _trunk_up(joints: Float[np.ndarray, "t 30 3"]) -> Float[np.ndarray, "3"]:
    return unit(np.median(joints[:, _NECK] - joints[:, _PELVIS], axis=0))


def ground_of(floor: Floor) -> Ground:
    """World: y up, -z along the camera's view of the floor, the origin below the camera."""
    up, forward = floor.up, np.array([0.0, 0.0, 1.0])
    flat = forward - up * (up @ forward)
    if np.linalg.norm(flat) < 1e-3:
        flat = np.array([0.0, -1.0, 0.0])
        flat = flat - up * (up @ flat)
    back = -unit(flat)
    right = np.cross(up, back)
    return Ground(np.stack([right, up, back]), np.array([0.0, floor.height, 0.0]))
