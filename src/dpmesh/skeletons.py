"""All joint sets: names, flip pairs, limbs, and conversion between sets by name.

Sources: the SMPL kinematic tree (24 joints); the 30-joint superset, the 15-joint graph and the 17 Human3.6M
rows of 3DCrowdNet, JOTR and DPMesh; COCO keypoints; OpenPose's models; Halpe, COCO-WholeBody, MPII, PoseTrack,
AI Challenger and MediaPipe as MMPose's data set tables and the tools' documentation list them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dpmesh.errors import ConfigError


@dataclass(frozen=True)
class Skeleton:
    """A named, ordered joint set."""

    name: str
    joints: tuple[str, ...]
    """Names in order; a left or right joint starts with L_ or R_."""
    limb_names: tuple[tuple[str, str], ...] = ()
    """Pairs of joints to connect in drawings."""

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Index of a joint. Raises ConfigError for a name that is not in the set."""
        try:
            return self.joints.index(joint)
        except ValueError:
            raise ConfigError(
                f"joint {joint!r} is not in the {self.name} set", fix=f"It has: {', '.join(self.joints)}."
            ) from None

    @cached_property
    def flip(self) -> tuple[int, ...]:
        """Permutation that exchanges left and right: the mirrored joint i is joint flip[i] of the original."""
        mirror = {"L_": "R_", "R_": "L_"}
        return tuple(
            self.index(mirror[j[:2]] + j[2:]) if j[:2] in mirror else i for i, j in enumerate(self.joints)
        )

    @cached_property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        """`limb_names` as indices."""
        return tuple((self.index(a), self.index(b)) for a, b in self.limb_names)

    def indices_in(self, other: "Skeleton") -> tuple[int, ...]:
        """For each joint its index in `other`; -1 where it is not in that set."""
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
"""Heatmap channels, prompt tokens and all 2D and 3D targets of the model. The first 24 are SMPL's."""

GRAPH15 = Skeleton(
    "15-joint graph",
    ("Pelvis", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle", "Neck", "Head_top", "L_Shoulder",
     "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist"),
    (*_LIMBS, ("Neck", "Head_top")),
)  # fmt: skip
"""Joint queries of the decoder, which it places in image space."""

H36M17 = Skeleton(
    "Human3.6M-17",
    ("Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck", "Nose", "Head_top",
     "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist"),
    (*_LIMBS, ("Neck", "Head_top")),
)  # fmt: skip
"""Rows of the Human3.6M regressor, in the order of `J_regressor_h36m_correct.npy` (right leg first)."""

H36M14_ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16)
"""Rows of H36M17 for MPJPE and PA-MPJPE (3DPW protocol of 3DCrowdNet, JOTR, DPMesh)."""

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

_FEET = ("L_BigToe", "L_SmallToe", "L_Heel", "R_BigToe", "R_SmallToe", "R_Heel")
_PARTS = (
    *(f"Face_{i}" for i in range(68)),
    *(f"L_Finger_{i}" for i in range(21)),
    *(f"R_Finger_{i}" for i in range(21)),
)

OPENPOSE25B = Skeleton("OpenPose-25B", (*COCO17.joints, "Upper_neck", "Head_top", *_FEET))
"""BODY_25B: as many joints as BODY_25, in another order."""

HALPE26 = Skeleton(
    "HALPE-26",
    (*COCO17.joints, "Head_top", "Neck", "Pelvis", "L_BigToe", "R_BigToe", "L_SmallToe", "R_SmallToe", "L_Heel",
     "R_Heel"),
)  # fmt: skip

HALPE136 = Skeleton("HALPE-136", (*HALPE26.joints, *_PARTS))

WHOLEBODY133 = Skeleton("COCO-WholeBody-133", (*COCO17.joints, *_FEET, *_PARTS))

MPII16 = Skeleton(
    "MPII-16",
    ("R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Thorax", "Upper_neck", "Head_top",
     "R_Wrist", "R_Elbow", "R_Shoulder", "L_Shoulder", "L_Elbow", "L_Wrist"),
)  # fmt: skip

POSETRACK17 = Skeleton(
    "PoseTrack-17", ("Nose", "Upper_neck", "Head_top", "L_Ear", "R_Ear", *COCO17.joints[5:])
)

AICHALLENGER14 = Skeleton(
    "AI-Challenger-14",
    ("R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee", "R_Ankle", "L_Hip",
     "L_Knee", "L_Ankle", "Head_top", "Neck"),
)  # fmt: skip

MEDIAPIPE33 = Skeleton(
    "MediaPipe-33",
    ("Nose", "L_EyeInner", "L_Eye", "L_EyeOuter", "R_EyeInner", "R_Eye", "R_EyeOuter", "L_Ear", "R_Ear", "L_Mouth",
     "R_Mouth", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "L_Pinky", "R_Pinky",
     "L_Index", "R_Index", "L_Thumb", "R_Thumb", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle",
     "L_Heel", "R_Heel", "L_FootTip", "R_FootTip"),
)  # fmt: skip

MUCO21 = Skeleton(
    "MuCo-21",
    ("Head_top", "Thorax", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee",
     "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe", "L_Toe"),
)  # fmt: skip
"""MuCo-3DHP's joints. Its Thorax differs from Neck."""

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
    """Keypoints (..., |source|, C) as another joint set (..., |target|, C), matched by name.

    The last channel is the confidence. Joints that the source lacks become zeros, except Pelvis (mid-hip) and Neck
    (mid-shoulder), which are computed, with the product of the two confidences (3DCrowdNet, JOTR, DPMesh). Raises
    ConfigError where the number of points does not match the source.
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


_BASES = {
    "nose": "Nose", "eye": "Eye", "ear": "Ear", "shoulder": "Shoulder", "elbow": "Elbow", "wrist": "Wrist",
    "hip": "Hip", "knee": "Knee", "ankle": "Ankle", "neck": "Neck", "head_top": "Head_top", "top_head": "Head_top",
    "top_of_head": "Head_top", "pelvis": "Pelvis", "mid_hip": "Pelvis", "midhip": "Pelvis", "hip_center": "Pelvis",
}  # fmt: skip
_SIDES = {"left": "L_", "l": "L_", "right": "R_", "r": "R_"}
_PAIRED = {"Eye", "Ear", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"}
ANIMAL = re.compile(r"tail|paw|hoof|withers|snout|beak|wing|throat")
"""Matches joint names of animals."""


def joint_of(name: str) -> str | None:
    """The joint that a file calls `name` ("left_shoulder", "LShoulder", "shoulder-left"); None if unknown.

    A hip without a side is the Pelvis (HALPE).
    """
    split = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=^[LR])(?=[A-Z][a-z])", "_", name)
    words = [word for word in re.split(r"[\s_.\-]+", split.lower()) if word]
    sides = [_SIDES[word] for word in words if word in _SIDES]
    rest = "_".join(word for word in words if word not in _SIDES)
    if not sides and (match := re.fullmatch(r"(left|right|l|r)(.+)", rest)) and match[2] in _BASES:
        sides, rest = [_SIDES[match[1]]], match[2]
    base = _BASES.get(rest)
    if base is None or len(sides) > 1:
        return None
    if base == "Hip" and not sides:
        return "Pelvis"
    if (base in _PAIRED) != bool(sides):
        return None
    return (sides[0] if sides else "") + base


def named_skeleton(names: Sequence[str], title: str) -> Skeleton:
    """The joint set of a file that names its joints; unknown and repeated names become placeholders.

    title: name of the set, and for messages. Raises ConfigError for an animal's joints, or fewer than six of COCO's.
    """
    if animal := next((name for name in names if ANIMAL.search(name.lower())), None):
        raise ConfigError(f"the joints are an animal's, not a person's ({animal})", where=title)
    taken: set[str] = set()
    joints: list[str] = []
    for i, name in enumerate(names):
        joint = joint_of(name)
        joint = joint if joint and joint not in taken else f"unknown_{i}"
        taken.add(joint)
        joints.append(joint)
    if len(taken & set(COCO17.joints)) < 6:
        raise ConfigError(
            f"the joints are no person's: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}",
            where=title,
        )
    return Skeleton(title, tuple(joints))
