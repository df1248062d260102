"""Retargeting: bones stay parallel, the T-pose stays a T-pose, bends go where they belong."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpmesh.data.motion_files import Motion
from dpmesh.data.retarget import (
    AMC,
    DAZ,
    DEEPMIMIC,
    EXPMAP,
    LAYOUTS,
    Layout,
    axis_angle,
    layout_of,
    retarget,
    rotation_between,
)
from dpmesh.errors import InputError
from dpmesh.skeletons import SMPL24, SMPL_PARENTS
from dpmesh.train.objectives.vqvae import rest_joints

REST = rest_joints().numpy()


def skeleton(layout: Layout, rotations: np.ndarray) -> Motion:
    """A motion with the layout's joints as one chain-free skeleton: every joint hangs on the root."""
    names = tuple(layout.sources.values())
    parents = (-1, *([0] * (len(names) - 1)))
    return Motion(names, parents, np.zeros((len(names), 3)), rotations, np.zeros((len(rotations), 3)), 10.0)


def random_motion(layout: Layout, frames: int = 4, seed: int = 0) -> Motion:
    joints = len(layout.sources)
    rotations = Rotation.random(frames * joints, random_state=seed).as_matrix().reshape(frames, joints, 3, 3)
    return skeleton(layout, rotations)


def world(rotations: np.ndarray) -> np.ndarray:
    out = rotations.copy()
    for joint in range(1, 24):
        out[:, joint] = out[:, SMPL_PARENTS[joint]] @ out[:, joint]
    return out


@pytest.mark.parametrize("name", LAYOUTS)
def test_limbs_stay_parallel_to_the_source(name: str) -> None:
    layout = LAYOUTS[name]
    motion = random_motion(layout)
    _, rotations = retarget(motion, layout, REST)
    ours, theirs = world(rotations), motion.global_rotations()[layout.first :]
    limbs = (("L_Hip", "L_Knee"), ("R_Knee", "R_Ankle"), ("L_Shoulder", "L_Elbow"), ("R_Elbow", "R_Wrist"))
    for joint, end in limbs:
        a, b = SMPL24.index(joint), SMPL24.index(end)
        bone = ours[:, a] @ (REST[b] - REST[a])
        source = theirs[:, motion.names.index(layout.sources[joint])] @ np.array(layout.bones[joint])
        cosine = (bone * source).sum(-1) / np.linalg.norm(bone, axis=-1) / np.linalg.norm(source, axis=-1)
        assert np.allclose(cosine, 1, atol=1e-6), joint


def test_the_reference_pose_gives_an_upright_trunk() -> None:
    for layout in (EXPMAP, DAZ):
        motion = random_motion(layout, 1)
        twice = skeleton(layout, np.concatenate((motion.rotations, motion.rotations)))
        poses, _ = retarget(twice, layout, REST)
        trunk = [SMPL24.index(j) for j in ("Pelvis", "Torso", "Spine", "Chest", "Neck", "Head")]
        assert np.abs(poses[0, trunk]).max() < 1e-6


def test_elbows_of_the_cmu_skeleton_bend_about_y() -> None:
    """The radius turns about an axis 30° off the vertical; our elbow about y alone, towards the front."""
    rotations = np.tile(np.eye(3), (1, len(AMC.sources), 1, 1))
    motion = skeleton(AMC, rotations)
    axis = np.array([0.0, -np.cos(np.radians(30)), 0.5])
    bend = Rotation.from_rotvec(axis * 1.1).as_matrix()
    for name in ("lradius", "lhand"):
        motion.rotations[0, motion.names.index(name)] = bend
    poses, _ = retarget(motion, AMC, REST)
    elbow = poses[0, SMPL24.index("L_Elbow")]
    assert elbow[1] == pytest.approx(-1.1, abs=0.08)
    assert np.linalg.norm(elbow) < 1.25  # half of the wrist's 30° twist is all that is added


def test_a_bend_without_own_joint_is_shared_evenly() -> None:
    rotations = np.tile(np.eye(3), (1, len(DEEPMIMIC.sources), 1, 1))
    motion = skeleton(DEEPMIMIC, rotations)
    motion.rotations[0, motion.names.index("chest")] = Rotation.from_rotvec([0.9, 0, 0]).as_matrix()
    poses, _ = retarget(motion, DEEPMIMIC, REST)
    for joint in ("Torso", "Spine", "Chest"):
        assert np.allclose(poses[0, SMPL24.index(joint)], [0.3, 0, 0], atol=1e-6)
    assert not poses[0, SMPL24.index("L_Toe")].any() and not poses[0, 22:].any()


def test_axis_angle_and_matrices_agree() -> None:
    poses, rotations = retarget(random_motion(AMC), AMC, REST)
    matrices = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(rotations.shape)
    assert np.allclose(matrices, rotations, atol=1e-5)
    assert np.array_equal(axis_angle(rotations), poses)


def test_smallest_rotation() -> None:
    a, b = np.array([1.0, 2, 3]), np.array([-2.0, 0.5, 1])
    turned = rotation_between(a, b) @ a
    assert np.allclose(turned / np.linalg.norm(turned), b / np.linalg.norm(b))
    assert np.allclose(rotation_between(a, a * 2), np.eye(3))
    with pytest.raises(InputError):
        rotation_between(a, -a)


def test_layouts_know_their_skeletons() -> None:
    assert layout_of(random_motion(DAZ)) is DAZ and layout_of(random_motion(EXPMAP)) is EXPMAP
    strange = Motion(("a",), (-1,), np.zeros((1, 3)), np.zeros((1, 1, 3, 3)), np.zeros((1, 3)), 1.0)
    with pytest.raises(InputError, match="no layout"):
        layout_of(strange)
    with pytest.raises(InputError, match="no joint"):
        retarget(strange, AMC, REST)
