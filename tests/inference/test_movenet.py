"""Decoding of MoveNet Thunder's heads, on made-up ones."""

import numpy as np
import pytest

from dpmesh.inference.movenet import (
    exchange_sides,
    person_pose,
    pose_box,
    read_multipose,
    read_thunder,
    same_sides,
)


def heads(*people: tuple[int, int, float]) -> list[np.ndarray]:
    """People whose joint j lies 1 + j / 4 cells below and j / 2 cells right of the centre (row, column, score).

    Joint 0 has a higher peak far from everybody; the offset of every joint is 0.25, 0.5 cells.
    """
    heatmaps, centre = np.full((1, 17, 64, 64), 0.01, np.float32), np.zeros((1, 1, 64, 64), np.float32)
    regression = np.zeros((1, 17, 2, 64, 64), np.float32)
    offsets = np.zeros((1, 17, 2, 64, 64), np.float32)
    offsets[:, :, 0], offsets[:, :, 1] = 0.25, 0.5
    heatmaps[0, 0, 62, 1] = 0.99
    joints = np.arange(17)
    down, right = 1 + joints // 4, joints // 2
    regression[0, joints, 0], regression[0, joints, 1] = down[:, None, None] + 0.4, right[:, None, None] - 0.4
    for row, column, score in people:
        centre[0, 0, row, column] = score
        heatmaps[0, joints, row + down, column + right] = 0.8
    return [heatmaps, centre, regression.reshape(1, 34, 64, 64), offsets.reshape(1, 34, 64, 64)]


def expected(row: int, column: int) -> np.ndarray:
    joints = np.arange(17)
    return 4 * np.stack([column + joints // 2 + 0.5, row + 1 + joints // 4 + 0.25], 1)


def test_joints_are_the_peaks_near_the_regressed_points() -> None:
    (only,) = read_thunder(heads((30, 20, 0.9)))
    np.testing.assert_allclose(only.pose[:, :2], expected(30, 20))
    np.testing.assert_allclose(only.pose[:, 2], 0.8)
    assert only.centre == pytest.approx(0.9)
    np.testing.assert_allclose(only.regressed[4], [4 * (20 + 2 - 0.4), 4 * (30 + 2 + 0.4)], rtol=1e-5)


def test_the_person_nearest_the_middle_comes_first() -> None:
    readings = read_thunder(heads((5, 5, 0.9), (33, 30, 0.5)))
    np.testing.assert_allclose([r.centre for r in readings], [0.5, 0.9])
    np.testing.assert_allclose(readings[1].pose[1:, :2], expected(5, 5)[1:])


def test_the_person_of_the_box_and_of_the_other_model_is_taken() -> None:
    readings = read_thunder(heads((33, 30, 0.5), (10, 12, 0.5)))
    nobody = np.zeros((17, 3), np.float32)
    far = np.array([40, 40, 90, 70], np.float32)  # about the second person
    assert person_pose(readings, nobody, far) is readings[1]
    assert person_pose(readings, nobody, np.array([116, 132, 160, 160], np.float32)) is readings[0]
    both = np.array([40, 40, 160, 160], np.float32)
    assert person_pose(readings, nobody, both) is readings[0]
    assert person_pose(readings, readings[1].pose, both) is readings[1]


def test_the_box_of_a_pose_has_a_margin() -> None:
    pose = np.zeros((17, 3), np.float32)
    np.testing.assert_array_equal(pose_box(pose), np.zeros(4))
    pose[:2] = [[10, 20, 0.5], [110, 70, 0.5]]
    np.testing.assert_allclose(pose_box(pose), [4, 14, 116, 76])


def test_rows_of_multipose() -> None:
    rows = np.zeros((1, 6, 56), np.float32)
    rows[0, 2, :3], rows[0, 2, 51:] = [0.25, 0.5, 1.5], [0.1, 0.2, 0.3, 0.4, 0.7]
    poses, boxes, scores = read_multipose(rows, 320, 160)
    np.testing.assert_allclose(poses[2, 0], [160, 40, 1])
    np.testing.assert_allclose(boxes[2], [64, 16, 128, 48], rtol=1e-6)
    assert scores[2] == pytest.approx(0.7)


def test_left_and_right_are_compared_below_the_neck() -> None:
    rng = np.random.default_rng(2)
    pose = np.column_stack([rng.uniform(0, 100, (17, 2)), np.full(17, 0.8)]).astype(np.float32)
    box = np.array([0, 0, 100, 100], np.float32)
    exchanged = exchange_sides(pose)
    np.testing.assert_array_equal(exchanged[:5], pose[:5])
    np.testing.assert_array_equal(exchanged[[5, 6, 15]], pose[[6, 5, 16]])
    assert same_sides(pose, pose, box) > 0.05
    assert same_sides(pose, exchanged, box) == pytest.approx(-same_sides(pose, pose, box))
    pose[5:, 2] = 0.1
    assert same_sides(pose, exchanged, box) == 0  # nothing is known
