"""People and boxes that a program hands over as arrays: cleaned like those of files, refused in one line."""

import re
from typing import Any

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.inference.detections import Detection, DetectionResult
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.user_detections import user_detections

IMAGE = np.zeros((100, 200, 3), np.uint8)
PERSON = np.concatenate([np.random.default_rng(0).uniform(20, 80, (17, 2)), np.full((17, 1), 0.5)], 1)


class NoDetector:
    """Boxes without keypoints; no person is detected in a whole image."""

    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        raise AssertionError("the people are the user's")

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]:
        return tuple(Detection(box, np.zeros((17, 3), np.float32), 1.0) for box in boxes)


def people(keypoints: Any = None, boxes: Any = None) -> tuple[list[Detection], Any]:
    return user_detections(IMAGE, "a.jpg", PredictOptions(keypoints=keypoints, boxes=boxes), NoDetector())


def test_points_are_cleaned_and_counted() -> None:
    array = PERSON[None].copy()
    array[0, 0, 0], array[0, 1, 0], array[0, 2, 2], array[0, 3, 2] = np.nan, 1e300, 7, -1
    result, counts = people(array)
    assert not result[0].keypoints[[0, 1, 3]].any() and result[0].keypoints[2, 2] == 1
    assert counts["non_finite"] == 1 and counts["far_outside"] == 1
    assert np.isfinite(result[0].box).all() and np.abs(result[0].box).max() < 300 and result[0].score <= 1


def test_a_person_without_visible_joints_needs_a_box() -> None:
    unseen = np.zeros((1, 17, 3))
    with pytest.raises(InputError, match="Add boxes"):
        people(unseen)
    result, _ = people(unseen, np.array([[10, 20, 60, 90]]))
    assert result[0].box.tolist() == [10, 20, 60, 90] and not result[0].posed
    assert people(np.zeros((0, 17, 3)))[0] == [] and people(None, np.zeros((0, 4)))[0] == []


@pytest.mark.parametrize(
    "keypoints",
    [
        np.full((1, 17, 3), "a"),
        np.full((1, 17, 3), None),
        PERSON[None].astype(complex),
        np.zeros((1, 16, 3)),
        np.zeros((1, 51)),
    ],
)
def test_other_keypoints_are_refused(keypoints: np.ndarray) -> None:
    with pytest.raises(InputError, match="keypoints"):
        people(keypoints)


@pytest.mark.parametrize(
    "box",
    [
        ["a"] * 4,
        [None] * 4,
        [0, 0, np.nan, 9],
        [0, 0, 1e30, 9],
        [5, 5, 5.1, 5.1],
        [300, 0, 400, 9],
        [9, 9, 1, 1],
        [1],
    ],
)
def test_other_boxes_are_refused(box: list[Any]) -> None:
    with pytest.raises(InputError, match="box"):
        people(None, np.array([box]))


def test_boxes_are_limited_and_belong_to_people() -> None:
    with pytest.raises(InputError, match="more than 1,000"):
        people(None, np.tile([0, 0, 9, 9], (1001, 1)))
    with pytest.raises(InputError, match="2 boxes for 1 people"):
        people(PERSON[None], np.array([[0, 0, 9, 9]] * 2))


@pytest.mark.parametrize(
    ("joints", "columns", "order"),
    [
        (17, 3, None),
        (17, 2, None),
        (25, 3, None),
        (26, 3, None),
        (30, 3, None),
        (133, 3, None),
        (14, 3, "crowdpose"),
    ],
)
def test_arrays_of_every_joint_set(joints: int, columns: int, order: str | None) -> None:
    """By their number or by name; one person needs no axis of people; without confidence all are visible."""
    array = np.random.default_rng(1).uniform(20, 80, (joints, columns))
    array[:, 2:] = 0.5
    for keypoints in (array, array[None]):
        options = PredictOptions(keypoints=keypoints, format=order)
        result, _ = user_detections(IMAGE, "a.jpg", options, NoDetector())
        assert len(result) == 1 and (result[0].keypoints[5:, 2] > 0).all()
        assert result[0].keypoints[5, 2] == (1 if columns == 2 else 0.5)


def test_a_number_of_joints_without_one_order_is_refused_by_name() -> None:
    rows = np.full((1, 14, 3), 40.0)
    for order, says in (
        (None, '14 joints of unknown order. Name their order: format="crowdpose" or "aichallenger"'),
        ("mpii", "14 joints, mpii has 16. Name their order"),
        ("openpose", "unknown joint order 'openpose'. Choose of: coco, "),
    ):
        with pytest.raises(InputError, match=re.escape(says)):
            user_detections(IMAGE, "", PredictOptions(keypoints=rows, format=order), NoDetector())
    with pytest.raises(InputError, match=re.escape("15 joints of unknown order. Known by number: 17 (")):
        people(np.full((1, 15, 3), 40.0))


def test_normalised_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="fractions of the image, not pixels"):
        people(PERSON[None] / [200, 100, 1])


def test_each_person_gets_the_box_that_holds_them() -> None:
    """Whatever the order of the boxes."""
    other = PERSON + np.array([90, 0, 0])
    boxes = np.array([[105, 10, 180, 90], [10, 10, 90, 90]])
    result, _ = people(np.stack([PERSON, other]), boxes)
    assert [p.box[0] for p in result] == [10, 105]
    with pytest.raises(InputError, match="no box holds the joints of person"):
        people(PERSON[None], np.array([[120, 10, 190, 90]]))
