"""The floor of a static camera, from the feet over time.

Gravity is not measured. Up is taken from the people: from between the feet to the neck, where trunk and legs are in
line; the plane through the feet that stand still corrects it. The floor is the level at which most of them stand;
others may stand higher or lower, on a wall or a stair. It is refused where hardly anybody stands, and where no level
has most of the feet.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from dpmesh.geometry.floor import FEET, SOLE, Floor, plane_normal, unit
from dpmesh.skeletons import JOINTS30
from dpmesh.video.feet import still
from dpmesh.video.tracks import Ground, Tracks

NO_FLOOR = "no floor, no world frame: too few feet stand still, or no level has most of them"
"""A note."""
LEVEL = 0.2
"""Metres above or below a level, up to which a foot stands at it."""
_PELVIS, _NECK = JOINTS30.index("Pelvis"), JOINTS30.index("Neck")
_LEG = [[JOINTS30.index(f"{side}_{part}") for part in ("Hip", "Knee", "Ankle")] for side in "LR"]
_LEAN = 12.0
"""Degrees between the people's up and the plane of the feet beyond which the people decide."""
_BENT = 10.0
"""Degrees between trunk and legs (one standard deviation) by which a frame counts for up."""
_REACHING = 0.75
"""Share of a leg's length that the pelvis is above the feet at least, of people who stand."""
_AGREED, _FEWEST = 0.5, 10
"""Share of the standing feet that must be at the floor's level; and how many there must be."""
_SPREAD = 0.5
"""Metres: how far standing feet must be spread along the floor before their plane counts as much as the people."""


def find_ground(tracks: Tracks) -> Ground | None:
    """The floor, or None where too few feet stand still, or where they stand at several heights."""
    people = up = upright(tracks)
    if people is None or up is None:
        return None
    points = _standing(tracks, people)
    if len(points) < _FEWEST:
        return None
    level = _most(points @ up)
    for _ in range(5):
        up = plane_normal(points[np.abs(points @ up - level) < LEVEL], people, _SPREAD)
        if up @ people < np.cos(np.radians(_LEAN)):
            up = people  # the feet's depth is too uncertain to say more
        level = _most(points @ up)
    if (np.abs(points @ up - level) < LEVEL).mean() < _AGREED:
        return None
    return ground_of(Floor(up, -level))


def own_ground(tracks: Tracks, own: NDArray[np.int64]) -> Ground | None:
    """The level at which one track stands most, where there is no floor: heights above it tell which feet are low."""
    up = upright(tracks.with_rows(own)) if len(own) else None
    if up is None:
        return None
    soles = tracks.joints3d[own][:, FEET].astype(np.float64) @ up - np.asarray(SOLE)
    return ground_of(Floor(up, -_most(soles.min(1))))


def upright(tracks: Tracks) -> Float[np.ndarray, "3"] | None:
    """Up in the camera frame, by the people who stand; None without any."""
    found: list[Float[np.ndarray, 3]] = []
    weights: list[float] = []
    for number in tracks.numbers:
        own = tracks.of(int(number))
        joints = tracks.joints3d[own[~tracks.interpolated[own]]].astype(np.float64)
        legs = joints[:, _PELVIS] - joints[:, FEET].mean(1)
        trunk = joints[:, _NECK] - joints[:, _PELVIS]
        bones = np.linalg.norm(np.diff(joints[:, _LEG], axis=2), axis=-1).sum(2).mean(1)
        stands = np.linalg.norm(legs, axis=1) >= _REACHING * bones
        if stands.sum() < 5:
            continue
        bent = np.degrees(np.arccos(np.clip((unit(legs) * unit(trunk)).sum(1), -1, 1)))[stands]
        weight = np.exp(-0.5 * (bent / _BENT) ** 2) + 1e-3
        found.append(_middle(unit(legs + trunk)[stands], weight))
        weights.append(float(weight.sum()))
    return _middle(np.stack(found), np.asarray(weights)) if found else None


def _middle(directions: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, "3"]:
    """Their geometric median (Weiszfeld), of length 1."""
    middle = np.average(directions, axis=0, weights=weights)
    for _ in range(30):
        far = np.maximum(np.linalg.norm(directions - middle, axis=1), 1e-3)
        middle = np.average(directions, axis=0, weights=weights / far)
    return unit(middle)


def _standing(tracks: Tracks, up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Below each foot that rests in the image and is low."""
    points: list[Float[np.ndarray, "n 3"]] = [np.zeros((0, 3))]
    for number in tracks.numbers:
        own = tracks.of(int(number))
        if len(own) < 5:
            continue
        feet = tracks.joints3d[own][:, FEET].astype(np.float64)
        low = _low(feet @ up - np.asarray(SOLE))
        use = still(feet, tracks.time[own]) & low & ~tracks.interpolated[own, None]
        points.append((feet - np.asarray(SOLE)[:, None] * up)[use])
    return np.concatenate(points)


def _low(heights: Float[np.ndarray, "t 4"]) -> Bool[np.ndarray, "t 4"]:
    return heights <= heights.min(1, keepdims=True) + 0.1


def _most(heights: Float[np.ndarray, " n"]) -> float:
    """The height about which most are, within LEVEL."""
    ordered = np.sort(heights)
    count = np.searchsorted(ordered, ordered + 2 * LEVEL, side="right") - np.arange(len(ordered))
    first = int(count.argmax())
    return float(np.median(ordered[first : first + count[first]]))


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
