"""Every joint set, once: names, flip pairs, limbs, and the way from one set to another by name.

Sources: the SMPL kinematic tree (24 joints); the 30-joint superset, the 15-joint graph and the 17 Human3.6M
rows of 3DCrowdNet, JOTR and DPMesh; COCO keypoints; OpenPose's 18- and 25-point people format.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dpmesh.errors import ConfigError


@dataclass(frozen=True)
class Skeleton:
    """A named, ordered joint set. `limbs` are index pairs to draw."""

    name: str
    joints: tuple[str, ...]
    limb_names: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Position of a joint; raises ConfigError for a name that the set does not have."""
        try:
            return self.joints.index(joint)
        except ValueError:
            raise ConfigError(
                f"joint {joint!r} is not in the {self.name} set", fix=f"It has: {', '.join(self.joints)}."
            ) from None

    @cached_property
    def flip(self) -> tuple[int, ...]:
        """Permutation that exchanges left and right: joint i of the mirrored person is joint flip[i]."""
        mirror = {"L_": "R_", "R_": "L_"}
        return tuple(
            self.index(mirror[j[:2]] + j[2:]) if j[:2] in mirror else i for i, j in enumerate(self.joints)
        )

    @cached_property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        return tuple((self.index(a), self.index(b)) for a, b in self.limb_names)

    def indices_in(self, other: "Skeleton") -> tuple[int, ...]:
        """For each of our joints its position in `other`, -1 where that set lacks it."""
        return tuple(other.joints.index(j) if j in other.joints else -1 for j in self.joints)


_SMPL_JOINTS = (
    "Pelvis", "L_Hip", "R_Hip", "Torso", "L_Knee", "R_Knee", "Spine", "L_Ankle", "R_Ankle", "Chest", "L_Toe", "R_Toe",
    "Neck", "L_Thorax", "R_Thorax", "Head", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist",
    "L_Hand", "R_Hand",
)  # fmt: skip

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""Parent of each of the 24 SMPL joints; -1 for the root."""

SMPL24 = Skeleton(
    "SMPL-24",
    _SMPL_JOINTS,
    tuple((_SMPL_JOINTS[p], j) for j, p in zip(_SMPL_JOINTS, SMPL_PARENTS, strict=True) if p >= 0),
)

_LIMBS = (
    ("Pelvis", "L_Hip"), ("Pelvis", "R_Hip"), ("L_Hip", "L_Knee"), ("R_Hip", "R_Knee"), ("L_Knee", "L_Ankle"),
    ("R_Knee", "R_Ankle"), ("Pelvis", "Neck"), ("Neck", "L_Shoulder"), ("Neck", "R_Shoulder"),
    ("L_Shoulder", "L_Elbow"), ("R_Shoulder", "R_Elbow"), ("L_Elbow", "L_Wrist"), ("R_Elbow", "R_Wrist"),
)  # fmt: skip

JOINTS30 = Skeleton(
    "30-joint superset",
    (*_SMPL_JOINTS, "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "Head_top"),
    (*_LIMBS, ("L_Ankle", "L_Toe"), ("R_Ankle", "R_Toe"), ("Neck", "Nose"), ("Nose", "Head_top")),
)
"""Input heat-map channels, prompt tokens and all 2D/3D targets of the model. The first 24 are SMPL's."""

GRAPH15 = Skeleton(
    "15-joint graph",
    ("Pelvis", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle", "Neck", "Head_top", "L_Shoulder",
     "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist"),
    (*_LIMBS, ("Neck", "Head_top")),
)  # fmt: skip
"""Queries of the decoder: the joints it places in image space."""

H36M17 = Skeleton(
    "Human3.6M-17",
    ("Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck", "Nose", "Head_top",
     "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist"),
    (*_LIMBS, ("Neck", "Head_top")),
)  # fmt: skip
"""Rows of the Human3.6M regressor, in the order of `J_regressor_h36m_correct.npy` (right leg first)."""

H36M14_ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16)
"""The 14 rows that MPJPE and PA-MPJPE are computed on (3DPW protocol of 3DCrowdNet, JOTR, DPMesh)."""

_FACE = (("Nose", "L_Eye"), ("Nose", "R_Eye"), ("L_Eye", "L_Ear"), ("R_Eye", "R_Ear"))

COCO17 = Skeleton(
    "COCO-17",
    ("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist",
     "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle"),
    (*_FACE, ("L_Shoulder", "R_Shoulder"), ("L_Hip", "R_Hip"), ("L_Shoulder", "L_Hip"), ("R_Shoulder", "R_Hip"),
     ("L_Hip", "L_Knee"), ("R_Hip", "R_Knee"), ("L_Knee", "L_Ankle"), ("R_Knee", "R_Ankle"),
     ("L_Shoulder", "L_Elbow"), ("R_Shoulder", "R_Elbow"), ("L_Elbow", "L_Wrist"), ("R_Elbow", "R_Wrist")),
)  # fmt: skip

OPENPOSE18 = Skeleton(
    "OpenPose-18",
    ("Nose", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee",
     "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "R_Eye", "L_Eye", "R_Ear", "L_Ear"),
)  # fmt: skip

OPENPOSE25 = Skeleton(
    "OpenPose-25",
    ("Nose", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "Pelvis", "R_Hip",
     "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "R_Eye", "L_Eye", "R_Ear", "L_Ear", "L_BigToe", "L_SmallToe",
     "L_Heel", "R_BigToe", "R_SmallToe", "R_Heel"),
)  # fmt: skip

MUCO21 = Skeleton(
    "MuCo-21",
    ("Head_top", "Thorax", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee",
     "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe", "L_Toe"),
)  # fmt: skip
"""MuCo-3DHP's joints. Its Thorax is no Neck."""

CROWDPOSE14 = Skeleton(
    "CrowdPose-14",
    ("L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "L_Hip", "R_Hip", "L_Knee", "R_Knee",
     "L_Ankle", "R_Ankle", "Head_top", "Neck"),
)  # fmt: skip

COCO_SIGMAS = (
    0.026,
    0.025,
    0.025,
    0.035,
    0.035,
    0.079,
    0.079,
    0.072,
    0.072,
    0.062,
    0.062,
    0.107,
    0.107,
    0.087,
    0.087,
    0.089,
    0.089,
)
"""Per-joint constants of COCO's object-keypoint similarity (cocodataset.org, keypoint evaluation), COCO-17 order."""


def convert(points: NDArray[np.floating], source: Skeleton, target: Skeleton) -> NDArray[np.float32]:
    """Move keypoints (..., |source|, C) to another set by name; joints the source lacks become zero rows.

    The last channel is the confidence. Pelvis (mid-hip) and Neck (mid-shoulder) are added where the target has
    them and the source does not, with the product of the two confidences (3DCrowdNet, JOTR, DPMesh).
    """
    if points.shape[-2] != len(source):
        raise ConfigError(
            f"{points.shape[-2]} points do not fit {source.name}", fix=f"It has {len(source)} joints."
        )
    out = np.zeros((*points.shape[:-2], len(target), points.shape[-1]), np.float32)
    for to, at in enumerate(target.indices_in(source)):
        if at >= 0:
            out[..., to, :] = points[..., at, :]
    for centre, left, right in (("Pelvis", "L_Hip", "R_Hip"), ("Neck", "L_Shoulder", "R_Shoulder")):
        known = left in source.joints and right in source.joints and centre not in source.joints
        if known and centre in target.joints:
            a, b = points[..., source.index(left), :], points[..., source.index(right), :]
            middle = (a + b) / 2
            middle[..., -1] = a[..., -1] * b[..., -1]
            out[..., target.index(centre), :] = middle
    return out
