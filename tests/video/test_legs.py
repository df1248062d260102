"""Feet that stand where they should, by hips and knees that keep the lengths of the legs."""

import numpy as np
from scipy.spatial.transform import Rotation

from dpmesh.body.files import free_body
from dpmesh.geometry.floor import FEET
from dpmesh.skeletons import JOINTS30, SMPL24, SMPL_PARENTS
from dpmesh.video.legs import reaching, world_rotations

COUNT = 40


def posed(matrices: np.ndarray, root: np.ndarray) -> np.ndarray:
    """The 24 joints of the free body's rest skeleton: a plain kinematic chain. root: (t, 3)."""
    body = free_body()
    rest = body.J_regressor @ body.v_template
    world = world_rotations(matrices)
    out = np.zeros((len(matrices), 24, 3))
    out[:, 0] = root
    for joint in range(1, 24):
        parent = SMPL_PARENTS[joint]
        out[:, joint] = out[:, parent] + world[:, parent] @ (rest[joint] - rest[parent])
    return out


def joints30(joints: np.ndarray) -> np.ndarray:
    out = np.zeros((len(joints), 30, 3))
    for name in SMPL24.joints:
        if name in JOINTS30.joints:
            out[:, JOINTS30.index(name)] = joints[:, SMPL24.index(name)]
    return out


def test_feet_stand_and_legs_keep_their_length() -> None:
    random = np.random.default_rng(0)
    matrices = np.tile(np.eye(3), (COUNT, 24, 1, 1))
    for side, bend in (("L", 0.5), ("R", 0.8)):
        matrices[:, SMPL24.index(f"{side}_Hip")] = Rotation.from_rotvec([-bend / 2, 0, 0]).as_matrix()
        matrices[:, SMPL24.index(f"{side}_Knee")] = Rotation.from_rotvec([bend, 0, 0]).as_matrix()
    root = 0.02 * np.sin(np.arange(COUNT) / 4)[:, None] * [1.0, 0.3, 0.5] + random.normal(
        scale=0.002, size=(COUNT, 3)
    )
    before = posed(matrices, root)
    touching = np.zeros((COUNT, 4), bool)
    touching[10:30, :2] = True  # the left foot
    turned = reaching(joints30(before), matrices, touching)
    after = posed(turned, root)
    feet = joints30(after)[10:30, FEET[0]]
    assert np.linalg.norm(np.diff(joints30(before)[10:30, FEET[0]], axis=0), axis=1).max() > 0.005
    assert np.linalg.norm(np.diff(feet, axis=0), axis=1).max() < 0.002
    np.testing.assert_allclose(after[:, 0], before[:, 0])
    right = [SMPL24.index(f"R_{part}") for part in ("Hip", "Knee", "Ankle", "Toe")]
    np.testing.assert_allclose(turned[:, right], matrices[:, right])  # no contact: left alone
    ankle = SMPL24.index("L_Ankle")  # the foot keeps its direction
    np.testing.assert_allclose(
        world_rotations(turned)[:, ankle], world_rotations(matrices)[:, ankle], atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(turned), 1)


def test_a_leg_does_not_reach_farther_than_it_is_long() -> None:
    matrices = np.tile(np.eye(3), (COUNT, 24, 1, 1))
    root = np.zeros((COUNT, 3))
    root[20:, 1] = 0.11  # hips rise from straight legs
    touching = np.ones((COUNT, 4), bool)
    turned = reaching(joints30(posed(matrices, root)), matrices, touching)
    assert np.isfinite(turned).all()
    knee = Rotation.from_matrix(turned[:, SMPL24.index("L_Knee")]).magnitude()
    assert knee.max() < np.radians(60)
