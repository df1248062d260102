"""Pose correctives of the free body: linear in R - I, fitted to skinning that keeps its volume.

anny has no pose correctives, so nothing here was learnt from scans. Linear blend skinning shrinks a joint
that twists or bends; turning each vertex by the blended dual quaternion does not. For one joint that turns by
angle t about its centre, a vertex of weight w then turns by 2 atan2(w sin t/2, 1 - w + w cos t/2).
The posedirs are a least-squares fit, over random rotations, of the rest offsets with which linear skinning goes
STRENGTH of the way there. STRENGTH is less than 1, because dual quaternions bulge where linear skinning shrinks.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from dpmesh.skeletons import SMPL24, SMPL_PARENTS

STRENGTH, ROTATIONS, RIDGE = 0.6, 80, 0.1
_WIDE = ("Hip", "Knee", "Shoulder", "Elbow", "Wrist")
_SIGN = np.array([-1.0, 1, 1])  # of x, y, z in the mirror


def correctives(
    template: np.ndarray, joints: np.ndarray, weights: np.ndarray, counterpart: np.ndarray
) -> np.ndarray:
    """V×3×207, symmetric; zero wherever the joint moves a vertex wholly or not at all."""
    rng = np.random.default_rng(11)
    out = np.zeros((len(template), 3, len(SMPL24) - 1, 3, 3))
    mirror = np.einsum("c,a,b->cab", _SIGN, _SIGN, _SIGN)
    for joint, name in enumerate(SMPL24.joints):
        if joint == 0 or name.startswith("R_"):
            continue
        below = weights[:, _subtree(joint)].sum(1)
        mixed = np.flatnonzero((below > 0.01) & (below < 0.99))
        most = np.deg2rad(120 if name.endswith(_WIDE) else 60)
        axes = rng.normal(size=(ROTATIONS, 3))
        axes *= (rng.uniform(0.1, 1, ROTATIONS) * most / np.linalg.norm(axes, axis=1))[:, None]
        fitted = _fit(template[mixed] - joints[joint], below[mixed], axes).reshape(-1, 3, 3, 3)
        if name == SMPL24.joints[SMPL24.flip[joint]]:
            out[mixed, :, joint - 1] += fitted / 2
            out[counterpart[mixed], :, joint - 1] += fitted * mirror / 2
        else:
            out[mixed, :, joint - 1] = fitted
            out[counterpart[mixed], :, SMPL24.flip[joint] - 1] = fitted * mirror
    # Steps of an eighth of a millimetre: far below what is visible, and the file compresses.
    return np.round(out.reshape(len(template), 3, -1) * 8192) / 8192


def _subtree(joint: int) -> list[int]:
    members = {joint}
    for child, parent in enumerate(SMPL_PARENTS):
        if parent in members:
            members.add(child)
    return sorted(members)


def _fit(points: np.ndarray, w: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Offsets V×3×9 per entry of R - I; points V×3 relative to the joint, axes S×3 rotation vectors."""
    angle = np.linalg.norm(axes, axis=1)
    turn = Rotation.from_rotvec(axes).as_matrix()
    features = (turn - np.eye(3)).reshape(len(axes), 9)
    half = angle / 2
    part = 2 * np.arctan2(np.outer(w, np.sin(half)), 1 - w[:, None] + np.outer(w, np.cos(half)))  # V×S
    exact = (
        Rotation.from_rotvec(((part / angle)[..., None] * axes).reshape(-1, 3))
        .as_matrix()
        .reshape(*part.shape, 3, 3)
    )
    blend = (1 - w)[:, None, None, None] * np.eye(3) + w[:, None, None, None] * turn  # V×S×3×3
    miss = STRENGTH * np.einsum("vsab,vb->vsa", exact - blend, points)
    system = np.einsum("vsab,sf->vsabf", blend, features).reshape(len(w), -1, 27)
    normal = system.transpose(0, 2, 1) @ system + RIDGE * np.eye(27)
    right = system.transpose(0, 2, 1) @ miss.reshape(len(w), -1, 1)
    return np.linalg.solve(normal, right).reshape(-1, 3, 9)
