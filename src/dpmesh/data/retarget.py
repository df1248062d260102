"""Motion of another skeleton onto the 24 SMPL joints.

For every SMPL joint with a source: G(t) = S(t) · B. S is the source joint's rotation in the world, B the
constant rotation from our T-pose to the source's rest pose. For the limbs B turns our bone onto the
source's, so that both people's bones stay parallel; elsewhere it is what the layout says. Spine joints
without a source take an even share of the bend between their neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # pyright: ignore[reportMissingTypeStubs] (it has none)

from dpmesh.data.motion_files import Array, Motion
from dpmesh.errors import InputError
from dpmesh.skeletons import SMPL24, SMPL_PARENTS

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Layout:
    """How a skeleton corresponds to SMPL's.

    sources: SMPL joint -> source joint.  bones: SMPL joint -> direction of its bone in the source's reference
    pose (world axes).  turns: SMPL joint -> further rotation vector in degrees, applied on our side of B
    (twist of a limb about its bone, neutral pitch of neck and head).  t_pose: frame 0 is the reference pose
    of all joints that have no bone direction; else the rest pose is.  first: the first frame that is motion.
    """

    sources: Mapping[str, str]
    bones: Mapping[str, Vector] = field(default_factory=dict[str, Vector])
    turns: Mapping[str, Vector] = field(default_factory=dict[str, Vector])
    t_pose: bool = False
    first: int = 0

    def with_turns(self, turns: Mapping[str, Vector]) -> "Layout":
        """The same with further turns, such as one subject's neutral head."""
        return Layout(self.sources, self.bones, {**self.turns, **turns}, self.t_pose, self.first)


def _sides(left: Mapping[str, str], word: tuple[str, str]) -> dict[str, str]:
    """Both sides of a table that is written for the left one."""
    right = {f"R_{smpl[2:]}": name.replace(word[0], word[1], 1) for smpl, name in left.items()}
    return {**left, **right}


def _mirrored(left: Mapping[str, Vector], axial: bool) -> dict[str, Vector]:
    """Directions (axial=False) or rotation vectors (axial=True) of both sides."""
    s = -1.0 if axial else 1.0
    return {**left, **{f"R_{j[2:]}": (-s * x, s * y, s * z) for j, (x, y, z) in left.items()}}


_SPREAD = np.sin(np.radians(20))  # CMU's skeletons stand with their legs 20° apart
_LEG: Vector = (float(_SPREAD), float(-np.cos(np.radians(20))), 0.0)
# CMU's "hand" is the forearm's twist; the wrist's bend is the next joint (lhand, LeftFingerBase).
CMU_BONES = _mirrored(
    {"L_Hip": _LEG, "L_Knee": _LEG, "L_Shoulder": (1.0, 0.0, 0.0), "L_Elbow": (1.0, 0.0, 0.0),
     "L_Wrist": (1.0, 0.0, 0.0)},
    axial=False,
)  # fmt: skip
# Their elbows bend about an axis 30° off the vertical (dof rx of radius, axis -30): our upper arm takes that
# twist, so that our elbow bends about y alone. The feet turn with the spread legs.
_ARM_TWIST: dict[str, Vector] = {
    j: (-30.0, 0.0, 0.0) for j in ("L_Shoulder", "L_Elbow", "R_Shoulder", "R_Elbow")
}
_FEET = _mirrored({"L_Ankle": (0.0, 0.0, 20.0), "L_Toe": (0.0, 0.0, 20.0)}, axial=True)

AMC = Layout(
    {
        "Pelvis": "root", "Torso": "lowerback", "Spine": "upperback", "Chest": "thorax", "Neck": "lowerneck",
        "Head": "head",
        **_sides({"L_Hip": "lfemur", "L_Knee": "ltibia", "L_Ankle": "lfoot", "L_Toe": "ltoes",
                  "L_Thorax": "lclavicle", "L_Shoulder": "lhumerus", "L_Elbow": "lradius",
                  "L_Wrist": "lhand"}, ("l", "r")),
    },
    CMU_BONES,
    {**_ARM_TWIST, **_FEET, "Neck": (10.0, 0.0, 0.0)},
)  # fmt: skip
"""ASF/AMC of the CMU database. The neutral head differs from subject to subject: with_turns."""

EXPMAP = Layout(
    {
        "Pelvis": "Hips", "Torso": "LowerBack", "Spine": "Spine", "Chest": "Spine1", "Neck": "Neck",
        "Head": "Head",
        **_sides({"L_Hip": "LeftUpLeg", "L_Knee": "LeftLeg", "L_Ankle": "LeftFoot", "L_Toe": "LeftToeBase",
                  "L_Thorax": "LeftShoulder", "L_Shoulder": "LeftArm", "L_Elbow": "LeftForeArm",
                  "L_Wrist": "LeftFingerBase"}, ("Left", "Right")),
    },
    CMU_BONES,
    _ARM_TWIST,
    t_pose=True,
    first=1,
)  # fmt: skip
"""The CMU action text files, and BVH with the same names."""

DAZ = Layout(
    {
        "Pelvis": "hip", "Torso": "abdomen", "Chest": "chest", "Neck": "neck", "Head": "head",
        **_sides({"L_Hip": "lThigh", "L_Knee": "lShin", "L_Ankle": "lFoot", "L_Thorax": "lCollar",
                  "L_Shoulder": "lShldr", "L_Elbow": "lForeArm", "L_Wrist": "lHand"}, ("l", "r")),
    },
    _mirrored({
        "L_Hip": (0.0, -36.8, 0.73), "L_Knee": (-0.73, -45.1, -5.12), "L_Shoulder": (28.17, -1.71, 0.49),
        "L_Elbow": (22.59, 0.77, 7.07), "L_Wrist": (22.59, 0.77, 7.07),
    }, axial=False),
    _ARM_TWIST,
    t_pose=True,
    first=1,
)  # fmt: skip
"""The CMU database as BVH on the DAZ skeleton; directions are its OFFSETs."""

DEEPMIMIC = Layout(
    {
        "Pelvis": "root", "Chest": "chest", "Head": "neck",
        **_sides({"L_Hip": "left_hip", "L_Knee": "left_knee", "L_Ankle": "left_ankle",
                  "L_Shoulder": "left_shoulder", "L_Elbow": "left_elbow"}, ("left", "right")),
    },
    _mirrored({
        "L_Hip": (0.0, -1.0, 0.0), "L_Knee": (0.0, -1.0, 0.0), "L_Shoulder": (0.0, -1.0, 0.0),
        "L_Elbow": (0.0, -1.0, 0.0),
    }, axial=False),
)  # fmt: skip
"""DeepMimic's humanoid as motion_files.read_deepmimic turns it: arms hanging, looking along +z."""

LAYOUTS = {"amc": AMC, "expmap": EXPMAP, "daz": DAZ, "deepmimic": DEEPMIMIC}
_BONE_END = {"Hip": "Knee", "Knee": "Ankle", "Shoulder": "Elbow", "Elbow": "Wrist", "Wrist": "Hand"}


def layout_of(motion: Motion) -> Layout:
    """The layout that knows the names of this skeleton; raises InputError where none does."""
    for layout in LAYOUTS.values():
        if set(layout.sources.values()) <= set(motion.names):
            return layout
    raise InputError(
        f"no layout fits a skeleton with joints {', '.join(motion.names[:6])} …",
        fix=f"Known: {', '.join(LAYOUTS)}. Add one to data/retarget.py.",
    )


def rotation_between(a: Array, b: Array) -> Float64[NDArray[np.float64], "3 3"]:
    """The smallest rotation that turns direction a onto direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis, cosine = np.cross(a, b), float(a @ b)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        if cosine > 0:
            return np.eye(3)
        raise InputError("two opposite bones: the rotation between them is not defined")
    return np.asarray(Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix())


def offsets_to_source(
    layout: Layout, reference: Mapping[str, Array], rest: Float32[NDArray[np.float32], "24 3"]
) -> dict[str, Float64[NDArray[np.float64], "3 3"]]:
    """B of every mapped joint. reference: rotation of each mapped joint in the reference pose."""
    out: dict[str, Array] = {}
    for joint in layout.sources:
        if joint in layout.bones:
            end = SMPL24.index(joint[:2] + _BONE_END[joint[2:]])
            ours = np.asarray(rest[end] - rest[SMPL24.index(joint)], np.float64)
            b = rotation_between(ours, np.array(layout.bones[joint]))
        else:
            b = np.transpose(reference[joint])
        turn = Rotation.from_rotvec(layout.turns.get(joint, (0.0, 0.0, 0.0)), degrees=True)
        out[joint] = b @ np.asarray(turn.as_matrix())
    return out


_SPINE = ("Pelvis", "Torso", "Spine", "Chest", "Neck", "Head")


def _share_spine(turns: dict[str, Array]) -> None:
    """Give spine joints without a source an even share of the turn between their mapped neighbours."""
    mapped = [i for i, joint in enumerate(_SPINE) if joint in turns]
    for low, high in pairwise(mapped):
        for i in range(low + 1, high):
            a, b = (Rotation.from_matrix(turns[_SPINE[k]]) for k in (low, high))
            part = Rotation.from_rotvec((a.inv() * b).as_rotvec() * (i - low) / (high - low))
            turns[_SPINE[i]] = np.asarray((a * part).as_matrix())


def _share_forearm_twist(rotations: Array) -> None:
    """Half of the wrist's twist about the forearm goes to the elbow, as in a forearm; joints do not move."""
    for side in ("L_", "R_"):
        elbow, wrist = SMPL24.index(side + "Elbow"), SMPL24.index(side + "Wrist")
        quaternion = np.asarray(Rotation.from_matrix(rotations[:, wrist]).as_quat(canonical=True))
        half = np.zeros((len(rotations), 3))
        half[:, 0] = np.arctan2(quaternion[:, 0], quaternion[:, 3])  # half of the angle about the bone, our x
        twist = np.asarray(Rotation.from_rotvec(half).as_matrix())
        rotations[:, elbow] = rotations[:, elbow] @ twist
        rotations[:, wrist] = np.swapaxes(twist, 1, 2) @ rotations[:, wrist]


def retarget(
    motion: Motion, layout: Layout, rest: Float32[NDArray[np.float32], "24 3"]
) -> tuple[Float32[NDArray[np.float32], "f 24 3"], Float64[NDArray[np.float64], "f 24 3 3"]]:
    """SMPL poses (axis-angle; y-up world) of the motion from the layout's first frame on; matrices.

    rest: our 24 joints in T-pose, metres.  Hands are identity; toes, wrists and collars too where the source
    has none. Raises InputError where the skeleton lacks a joint of the layout.
    """
    missing = set(layout.sources.values()) - set(motion.names)
    if missing:
        raise InputError(f"the skeleton has no joint {sorted(missing)[0]!r}", fix="Is it the right layout?")
    if len(motion.rotations) <= layout.first:
        raise InputError(f"only {len(motion.rotations)} frames: none is left after the reference pose")
    world = motion.global_rotations()
    source = {joint: world[:, motion.names.index(name)] for joint, name in layout.sources.items()}
    reference = {joint: s[0] if layout.t_pose else np.eye(3) for joint, s in source.items()}
    turn = offsets_to_source(layout, reference, rest)
    turns = {joint: s[layout.first :] @ turn[joint] for joint, s in source.items()}
    _share_spine(turns)
    turned: list[Array] = []
    for i, joint in enumerate(SMPL24.joints):
        turned.append(turns[joint] if joint in turns else turned[SMPL_PARENTS[i]])
    rotations = np.stack(turned, 1)
    for i in range(23, 0, -1):
        rotations[:, i] = np.swapaxes(turned[SMPL_PARENTS[i]], 1, 2) @ turned[i]
    _share_forearm_twist(rotations)
    return axis_angle(rotations), rotations


def axis_angle(rotations: Float64[NDArray[np.float64], "*b 3 3"]) -> Float32[NDArray[np.float32], "*b 3"]:
    """Rotation vectors with angles up to π."""
    flat = Rotation.from_matrix(np.reshape(rotations, (-1, 3, 3))).as_rotvec()
    return np.reshape(np.asarray(flat, np.float32), (*rotations.shape[:-2], 3))
