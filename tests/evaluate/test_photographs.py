"""What is said of bodies on photographs: each test is shown a body that is right and one that is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.photos.ground import fit_ground
from benchmarks.photos.keypoints import distances, mirrored, upside_down
from benchmarks.photos.penetration import openings, volume, winding
from benchmarks.photos.person import Examiner, Row
from benchmarks.photos.summary import on_floors, summary
from dpmesh.body.files import free_body
from dpmesh.geometry.camera import intrinsics, project
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.scene import Person
from dpmesh.skeletons import COCO17, JOINTS30, SMPL24

ARRAYS = free_body()
EXAMINER = Examiner(ARRAYS)
K = intrinsics(1000.0, (1000, 800))


def person(turn: float = 0.0, arm: float = 1.3, betas: float = 0.0) -> Person:
    """A person upright 4 m away, turned about the vertical; arm: radians that the left one is lowered. Its
    keypoints are the joints of the one that is not turned."""

    def posed(angle: float) -> tuple[np.ndarray, np.ndarray]:
        vectors = torch.zeros(1, 24, 3)
        vectors[0, SMPL24.index("L_Shoulder"), 2], vectors[0, SMPL24.index("R_Shoulder"), 2] = -arm, 1.3
        rotations = rotation_matrix(vectors)
        upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        rotations[0, 0] = upright @ rotation_matrix(torch.tensor([[0.0, angle, 0.0]]))[0]
        shape = torch.full((1, 10), betas)
        output = EXAMINER.body(shape, rotations, torch.tensor([[0.0, 0.2, 4.0]]))
        return output.vertices[0].numpy(), output.joints30[0].numpy()

    vertices, joints = posed(turn)
    keypoints = np.ones((17, 3), np.float32)
    keypoints[:, :2] = project(posed(0.0)[1], K)[np.array(COCO17.indices_in(JOINTS30))]
    projected = project(joints, K).astype(np.float32)
    box = np.array([*keypoints[:, :2].min(0), *keypoints[:, :2].max(0)], np.float32)
    zeros = np.zeros(69, np.float32)
    return Person(
        box,
        keypoints,
        zeros[:3],
        zeros,
        np.full(10, betas, np.float32),
        zeros[:3],
        vertices,
        joints,
        projected,
        0.9,
    )


def test_a_good_body_fails_nothing():
    row = EXAMINER.row("a", 0, person())
    assert row.failures == () and row.finite and row.not_confident == 0
    assert row.upside_down is False and row.mirrored is False
    assert max(row.distances) < 1e-5 and len(row.distances) == 17
    assert row.foot is not None and row.foot[1] == pytest.approx(person().vertices[:, 1].max(), abs=0.02)


def test_distances_count_confident_keypoints_by_the_longer_side():
    one = person()
    keypoints = one.keypoints2d.copy()
    keypoints[5, 2] = 0.29
    moved = one.joints2d + np.float32([30, 40])
    box = np.float32([0, 0, 100, 500])
    assert distances(moved, keypoints, box) == pytest.approx(np.full(16, 0.1), abs=1e-5)
    moved[JOINTS30.index("Nose")] = np.nan
    assert distances(moved, keypoints, box)[0] == np.inf  # missed, not left out


def test_turned_around_is_mirrored_and_nothing_else():
    row = EXAMINER.row("a", 0, person(turn=np.pi))
    assert row.failures == ("mirrored",)
    assert not mirrored(*(lambda p: (p.joints2d, p.keypoints2d, p.box))(person(turn=0.8))).failed


def test_left_and_right_are_not_asked_in_profile():
    one = person(turn=np.pi)
    keypoints = one.keypoints2d.copy()
    keypoints[:, 0] = 400 + 0.05 * (keypoints[:, 0] - 400)
    assert mirrored(one.joints2d, keypoints, one.box).tested is False
    keypoints[:, 2] = 0
    assert upside_down(one.joints2d, keypoints, one.box).tested is False


def test_upside_down():
    one = person()
    turned = one.joints2d.copy()
    turned[:, 1] = 1000 - turned[:, 1]
    assert upside_down(turned, one.keypoints2d, one.box).failed
    assert upside_down(np.full_like(turned, np.nan), one.keypoints2d, one.box).failed


def cube() -> tuple[np.ndarray, np.ndarray]:
    """Corners in {0, 1}³, twelve triangles that face outwards; the last two are the lid."""
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], float)
    quads = [(0, 2, 3, 1), (0, 1, 5, 4), (1, 3, 7, 5), (3, 2, 6, 7), (2, 0, 4, 6), (4, 5, 7, 6)]
    return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])


def test_winding_is_one_inside_and_zero_outside():
    corners, faces = cube()
    points = np.array([[0.5, 0.5, 0.5], [0.01, 0.99, 0.5], [1.01, 0.5, 0.5], [0.5, 0.5, 3.0]])
    assert winding(points, corners[faces]) == pytest.approx([1, 1, 0, 0], abs=1e-12)
    assert volume(corners, faces) == pytest.approx(1) and volume(
        corners * [-1, 1, 1], faces
    ) == pytest.approx(-1)
    assert openings(faces) == []
    (lid,) = openings(faces[:-2])
    assert sorted(lid[:, 0]) == [4, 5, 6, 7]


def test_the_trunk_is_closed_by_its_fans():
    vertices = person().vertices.astype(float)
    points = vertices[:200] + np.array([0, 0, 1.0])
    assert len(EXAMINER.trunk.openings) == 5  # neck, shoulders, hips
    assert winding(points, EXAMINER.trunk.closed(vertices)) == pytest.approx(np.zeros(200), abs=1e-9)


def test_an_arm_through_the_trunk():
    row = EXAMINER.row("a", 0, person(arm=2.2))
    assert row.failures == ("limb through the trunk",)
    assert all(bone.startswith("L_") for bone in row.through_trunk) and row.inside_share > 0.05
    assert EXAMINER.row("a", 0, person(arm=1.2)).inside_share == 0


def test_a_body_that_is_not_finite_is_a_failure():
    one = person()
    vertices = one.vertices.copy()
    vertices[3] = np.nan
    row = EXAMINER.row("a", 0, replace(one, vertices=vertices))
    assert row.failures == ("not finite",) and row.foot is None


def test_inside_out_and_stature():
    one = person()
    flat = one.vertices * np.float32([-1, 1, 1])
    assert "inside out" in EXAMINER.row("a", 0, replace(one, vertices=flat)).failures
    huge = replace(one, betas=np.float32([6.0, *np.zeros(9)]))
    assert EXAMINER.row("a", 0, huge).failures == ("stature",)


def test_ground_finds_a_tilted_floor_and_who_is_off_it():
    rng = np.random.default_rng(0)
    xz = rng.uniform([-2, 3], [2, 9], (40, 2))
    feet = np.column_stack([xz[:, 0], 1.5 + 0.02 * xz[:, 0] - 0.1 * xz[:, 1], xz[:, 1]])
    floor = fit_ground(feet)
    assert floor.slopes == pytest.approx((0.02, -0.1), abs=0.02)
    assert np.abs(floor.above(feet)).max() < 0.03
    feet[0, 1] -= 1.0
    assert fit_ground(feet).above(feet)[0] == pytest.approx(1.0, abs=0.06)


def rows_of(*feet: tuple[float, float, float] | None) -> list[Row]:
    one = EXAMINER.row("a", 0, person())
    return [replace(one, person=i, foot=foot) for i, foot in enumerate(feet)]


def test_every_person_is_counted():
    rows = on_floors(rows_of((0.0, 1.0, 4.0), (1.0, 1.0, 4.0), (-1.0, 0.3, 4.0), None))
    assert [row.above_floor is None for row in rows] == [False, False, False, True]
    assert "off the floor" in rows[2].failures and rows[0].failures == ()
    broken = replace(rows[0], finite=False, stature=float("nan"), distances=(np.inf, 0.0), mirrored=None)
    total = summary([*rows, broken])
    assert total["people"] == 5 and total["keypoints"] == 4 * 17 + 2
    assert total["pck_0.1"] == pytest.approx((4 * 17 + 1) / 70, abs=1e-4)
    assert total["failures"] == {"off the floor": 1, "not finite": 1} and total["people_with_a_failure"] == 2
    assert total["not_testable"] == {"upside down": 0, "mirrored": 1, "off the floor": 1}
    assert on_floors(rows_of((0.0, 1.0, 4.0)))[0].above_floor is None


def test_one_camera_has_one_floor():
    rows = [replace(r, image=str(i)) for i, r in enumerate(rows_of((0.0, 1.0, 4.0), (1.0, 1.0, 5.0)))]
    assert all(r.above_floor is None for r in on_floors(rows))
    assert all(r.above_floor == pytest.approx(0, abs=1e-6) for r in on_floors(rows, one_camera=True))


def test_a_summary_of_no_person_has_no_figure():
    assert summary([])["pck_0.1"] is None
