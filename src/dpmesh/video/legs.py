"""Legs that reach where the feet stand: hip and knee of each frame, in closed form (two-bone inverse kinematics).

The knee bends about its own axis until the ankle is as far from the hip as its place is, and the hip turns the leg
there along the shortest arc. The foot keeps its direction.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from dpmesh.geometry.floor import FEET
from dpmesh.skeletons import JOINTS30, SMPL24, SMPL_PARENTS
from dpmesh.video.feet import runs
from dpmesh.video.smooth import whittaker

REACH = 0.08
"""Metres: a foot farther from the place where it stands in the median is moved less, from twice that on not at all."""
ROLLS = 0.02
"""Metres: of heel and toes, the one so far from its place counts half: the foot rolls over the other."""
EASE, REST = 0.02, 1e-4
"""Stiffness by which a leg's way to its place and back is smooth in time, and the weight of frames in the air."""
_STRAIGHT = 0.999
"""Of a leg's length, that it reaches at most."""


def reaching(
    joints: Float[np.ndarray, "t 30 3"],
    matrices: Float[np.ndarray, "t 24 3 3"],
    touching: Bool[np.ndarray, "t 4"],
) -> Float[np.ndarray, "t 24 3 3"]:
    """Rotations (to the parent; the root's to the camera) by which feet in contact stay in one place.

    joints: camera frame, metres. touching: of FEET.
    """
    out = matrices.copy()
    turned = world_rotations(matrices)
    for side, name in enumerate("LR"):
        way = _way(joints[:, FEET[2 * side : 2 * side + 2]], touching[:, 2 * side : 2 * side + 2])
        if not way.any():
            continue
        hip, knee, ankle = (joints[:, JOINTS30.index(f"{name}_{part}")] for part in ("Hip", "Knee", "Ankle"))
        at = [SMPL24.index(f"{name}_{part}") for part in ("Hip", "Knee", "Ankle")]
        bend, swing = _two_bones(hip, knee, ankle, ankle + way)
        thigh = swing @ turned[:, at[0]]
        shin = swing @ bend @ turned[:, at[1]]
        before = turned[:, SMPL_PARENTS[at[0]]]
        for joint, parent, new in (
            (at[0], before, thigh),
            (at[1], thigh, shin),
            (at[2], shin, turned[:, at[2]]),
        ):
            out[:, joint] = parent.swapaxes(1, 2) @ new
    return out


def world_rotations(matrices: Float[np.ndarray, "t 24 3 3"]) -> Float[np.ndarray, "t 24 3 3"]:
    """Of each joint to the camera."""
    out = matrices.copy()
    for joint in range(1, matrices.shape[1]):
        out[:, joint] = out[:, SMPL_PARENTS[joint]] @ matrices[:, joint]
    return out


def _way(feet: Float[np.ndarray, "t 2 3"], touching: Bool[np.ndarray, "t 2"]) -> Float[np.ndarray, "t 3"]:
    """From where an ankle is to where it should be. feet, touching: of ankle and toe."""
    wanted, weight = np.zeros((len(feet), 3)), np.zeros(len(feet))
    for part in (0, 1):
        for start, end in runs(touching[:, part]):
            off = np.median(feet[start:end, part], axis=0) - feet[start:end, part]
            far = np.linalg.norm(off, axis=1)
            share = np.clip(2 - far / REACH, 0, 1) / (1 + (far / ROLLS) ** 2)
            wanted[start:end] += off * share[:, None]
            weight[start:end] += share
    if not weight.any():
        return wanted
    target = wanted / np.maximum(weight, 1e-9)[:, None]
    return whittaker(target, np.where(weight > 0, 1.0, REST), EASE)


def _two_bones(
    hip: Float[np.ndarray, "t 3"],
    knee: Float[np.ndarray, "t 3"],
    ankle: Float[np.ndarray, "t 3"],
    target: Float[np.ndarray, "t 3"],
) -> tuple[Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3 3"]]:
    """Rotation of the shin about the knee, and then of the leg about the hip, in the camera frame."""
    thigh, shin, aim = knee - hip, ankle - knee, target - hip
    a, b, far = (np.linalg.norm(v, axis=1) for v in (thigh, shin, aim))
    far = np.clip(far, np.abs(a - b) * 1.01 + 1e-6, _STRAIGHT * (a + b))
    axis = np.cross(thigh, shin)
    size = np.linalg.norm(axis, axis=1, keepdims=True)
    # A straight knee has no axis of its own: that of the other frames serves.
    usual = axis.sum(0) / max(float(np.linalg.norm(axis.sum(0))), 1e-12)
    axis = np.where(size > 1e-3 * (a * b)[:, None], axis / np.maximum(size, 1e-12), usual)
    now = np.arctan2(size[:, 0], (thigh * shin).sum(1))
    wanted = np.arccos(np.clip((far**2 - a**2 - b**2) / (2 * a * b), -1, 1))
    bend = Rotation.from_rotvec((wanted - now)[:, None] * axis)
    return bend.as_matrix(), _shortest(thigh + bend.apply(shin), aim)


def _shortest(
    first: Float[np.ndarray, "t 3"], second: Float[np.ndarray, "t 3"]
) -> Float[np.ndarray, "t 3 3"]:
    """The rotation along the shortest arc from one direction to another."""
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (first, second))
    axis = np.cross(a, b)
    size = np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.arctan2(size, (a * b).sum(1, keepdims=True))
    return Rotation.from_rotvec(axis / np.maximum(size, 1e-12) * angle).as_matrix()
