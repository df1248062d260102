"""The floor of a static camera, from the feet over time; contacts; feet that do not slide.

Gravity is not measured. Up is taken from the people: the direction of upright trunks, corrected by the plane through
the feet that stand still. The floor is the plane of those feet. Both are refused where the camera moves or where nobody
stands.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from dpmesh.skeletons import JOINTS30
from dpmesh.video.smooth import whittaker
from dpmesh.video.tracks import Ground, Tracks

FEET = tuple(JOINTS30.index(f"{side}_{part}") for side in "LR" for part in ("Ankle", "Toe"))
"""Joints that touch the ground; their order is that of `contacts`."""
STILL = 0.35
"""Metres a second: a foot that is slower stands."""
NEAR = 0.12
"""Metres above the floor up to which a foot may stand."""
_SOLE = (0.08, 0.02, 0.08, 0.02)
"""Height of each of FEET above the ground when it stands, metres."""
_PELVIS, _NECK = JOINTS30.index("Pelvis"), JOINTS30.index("Neck")
_LEAN = 12.0
"""Degrees between the trunks and the plane of the feet beyond which the trunks decide."""
_LEVEL, _AGREED = 0.2, 0.7
"""Metres from the floor, and the share of standing feet that must be so near: else there is no single floor."""
_SPREAD = 0.5
"""Metres: how far standing feet must be spread along the floor before their plane counts against the trunks."""


def find_ground(tracks: Tracks) -> Ground | None:
    """The floor, or None where too few feet stand still, or where they stand at several heights."""
    feet, still, trunks = [], [], []
    for number in tracks.numbers:
        own = tracks.of(int(number))
        if len(own) < 5:
            continue
        joints = tracks.joints3d[own].astype(np.float64)
        slow = _slow(joints[:, FEET], tracks.time[own])
        lowest = joints[:, FEET] @ _trunk_up(joints)
        low = lowest - np.asarray(_SOLE) <= (lowest - np.asarray(_SOLE)).min(1, keepdims=True) + 0.1
        use = slow & low & ~tracks.interpolated[own, None]
        feet.append(joints[:, FEET] - np.asarray(_SOLE)[:, None] * _trunk_up(joints))
        still.append(use)
        trunks.append((joints[:, _NECK] - joints[:, _PELVIS])[use.any(1)])
    points = np.concatenate([f[s] for f, s in zip(feet, still, strict=True)]) if feet else np.zeros((0, 3))
    if len(points) < 10:
        return None
    trunk = up = _unit(np.median(np.concatenate(trunks), axis=0))
    inside = points
    for _ in range(5):
        up = _plane_normal(inside, up)
        if up @ trunk < np.cos(np.radians(_LEAN)):
            up = trunk  # the feet's depth is too uncertain to say more
        heights = inside @ up
        centre = np.median(heights)
        spread = max(1.4826 * np.median(np.abs(heights - centre)), 0.02)
        inside = inside[np.abs(heights - centre) < 4 * spread]
    level = float(np.median(inside @ up))
    if (np.abs(points @ up - level) < _LEVEL).mean() < _AGREED:
        return None
    return _ground(up, level)


def _trunk_up(joints: Float[np.ndarray, "t 30 3"]) -> Float[np.ndarray, "3"]:
    return _unit(np.median(joints[:, _NECK] - joints[:, _PELVIS], axis=0))


def _plane_normal(points: Float[np.ndarray, "n 3"], prior: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Normal of the plane through points, held to `prior` in the directions in which the points are not spread."""
    middle = points - np.median(points, axis=0)
    scatter = middle.T @ middle / len(points)
    # Tilting the normal by d costs d' S d in the floor's directions; the prior costs as much as a spread of _SPREAD.
    along = np.linalg.svd(prior[None])[2][1:]
    system = along @ scatter @ along.T + (0.1 * _SPREAD) ** 2 * np.eye(2)
    tilt = -np.linalg.solve(system, along @ scatter @ prior)
    return _unit(prior + tilt @ along)


def _ground(up: Float[np.ndarray, "3"], height: float) -> Ground:
    """World: y up, -z along the camera's view of the floor, the origin below the camera."""
    forward = np.array([0.0, 0.0, 1.0])
    flat = forward - up * (up @ forward)
    if np.linalg.norm(flat) < 1e-3:
        flat = np.array([0.0, -1.0, 0.0])
        flat = flat - up * (up @ flat)
    back = -_unit(flat)
    right = np.cross(up, back)
    return Ground(np.stack([right, up, back]), np.array([0.0, -height, 0.0]))


def _slow(feet: Float[np.ndarray, "t 4 3"], time: Float[np.ndarray, " t"]) -> Bool[np.ndarray, "t 4"]:
    step = np.maximum(np.gradient(time), 1e-3)
    speed = np.linalg.norm(np.gradient(feet, axis=0), axis=-1) / step[:, None]
    return speed < STILL


def contacts(tracks: Tracks, rows: NDArray[np.int64], ground: Ground) -> Bool[np.ndarray, "t 4"]:
    """Which of FEET stand on the floor: slow and near it, for at least three frames."""
    feet = tracks.joints3d[rows][:, FEET].astype(np.float64)
    low = ground.heights(feet) - np.asarray(_SOLE) < NEAR
    touching = _slow(feet, tracks.time[rows]) & low
    for foot in range(touching.shape[1]):
        for start, end in runs(touching[:, foot]):
            if end - start < 3:
                touching[start:end, foot] = False
    return touching


def planted(
    tracks: Tracks, rows: NDArray[np.int64], touching: Bool[np.ndarray, "t 4"], ground: Ground
) -> Float[np.ndarray, "t 3"]:
    """Change of each row's translation, metres, camera frame, by which standing feet keep their place on the floor.

    Each contact's place is the median of its frames, at the floor's height; the change is smooth in time.
    """
    feet = tracks.joints3d[rows][:, FEET].astype(np.float64)
    wanted = np.zeros((len(rows), 3))
    weight = np.zeros(len(rows))
    for foot in range(touching.shape[1]):
        for start, end in runs(touching[:, foot]):
            place = np.median(feet[start:end, foot], axis=0)
            off = float(ground.heights(place)) - _SOLE[foot]
            place = place - ground.up * off
            wanted[start:end] += place - feet[start:end, foot]
            weight[start:end] += 1
    if not weight.any():
        return wanted
    target = wanted / np.maximum(weight, 1)[:, None]
    return whittaker(target, np.where(weight > 0, 1.0, 0.01), 0.05)


def runs(flags: Bool[np.ndarray, " t"]) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _unit(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
