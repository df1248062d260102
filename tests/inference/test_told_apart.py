"""People before each other: each has joints of their own, and a copy of somebody is nobody."""

import numpy as np

from dpmesh.inference.detector import LEAST_JOINTS, told_apart
from dpmesh.inference.top_down import Readings

FRONT, BEHIND = np.array([100, 100, 180, 300], np.float32), np.array([170, 80, 310, 330], np.float32)


def pose(box: np.ndarray, seed: int, confidence: float) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(box[:2], box[2:], (17, 2))
    return np.column_stack([points, np.full(17, confidence)]).astype(np.float32)


def read(box: np.ndarray, thunder: np.ndarray, multipose: np.ndarray, score: float = 0.9) -> Readings:
    return Readings(box, score, (thunder, multipose), None, thunder, 200.0)


IN_FRONT = pose(FRONT, 0, 0.95)
WOMAN = read(FRONT, IN_FRONT, pose(FRONT, 1, 0.1))


def test_the_pose_that_is_not_somebody_elses_is_taken() -> None:
    own = pose(BEHIND, 2, 0.55)
    mixed = IN_FRONT * np.array([1, 1, 0.65], np.float32)
    alone = read(BEHIND, mixed, own)
    np.testing.assert_array_equal(alone.person().keypoints, mixed)
    for certain, more in (([WOMAN, alone], []), ([alone, WOMAN], []), ([WOMAN], [alone])):
        people = told_apart(certain, more, LEAST_JOINTS)
        assert len(people) == 2
        (man,) = (person for person in people if person.box is BEHIND)
        np.testing.assert_array_equal(man.keypoints, own)
        (woman,) = (person for person in people if person.box is FRONT)
        np.testing.assert_array_equal(woman.keypoints, IN_FRONT)


def test_somebody_elses_joints_are_no_person() -> None:
    copy = IN_FRONT + np.array([1, -1, -0.1], np.float32)
    again = read(BEHIND, copy, pose(BEHIND, 1, 0.1))
    assert len(told_apart([WOMAN], [again], LEAST_JOINTS)) == 1
    kept, unposed = told_apart([WOMAN, again], [], LEAST_JOINTS)
    assert kept.posed and not unposed.posed


def test_a_single_joint_that_two_people_share_is_the_likelier_ones() -> None:
    own = pose(BEHIND, 2, 0.8)
    own[9, :2] = IN_FRONT[9, :2] + 2
    _, man = told_apart([WOMAN, read(BEHIND, own, pose(BEHIND, 1, 0.1))], [], LEAST_JOINTS)
    assert man.keypoints[9, 2] == 0 and (np.delete(man.keypoints[:, 2], 9) == np.float32(0.8)).all()


def test_a_box_whose_joints_are_unlikely_holds_nobody() -> None:
    few = pose(BEHIND, 2, 0.1)
    few[0, 2] = 0.5
    (person,) = told_apart([read(BEHIND, few, few)], [], LEAST_JOINTS)
    assert not person.posed
    assert told_apart([], [read(BEHIND, few, few)], LEAST_JOINTS) == ()
