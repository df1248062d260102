"""People whom the box model misses: poses of the whole image and of its tiles become people, once each."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dpmesh.inference.detections import Detection, box_iou, explains
from dpmesh.inference.detector import Detector, tiles

EXAMPLES = Path(__file__).parents[2] / "examples"


class WithoutBoxes(Detector):
    """The box model detects nobody."""

    def boxes(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def photo(name: str) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(EXAMPLES / f"{name}.jpg"))[..., ::-1])


def person(box: tuple[float, ...], seed: int = 0, shift: float = 0) -> Detection:
    x1, y1, x2, y2 = box
    points = np.random.default_rng(seed).uniform([x1, y1], [x2, y2], (17, 2)) + shift
    keypoints = np.column_stack([points, np.ones(17)]).astype(np.float32)
    return Detection(np.asarray(box, np.float32), keypoints, 0.8)


def test_people_are_detected_without_boxes() -> None:
    expected = {tuple(p.box): p for p in Detector()(photo("two_people")).people}
    people = WithoutBoxes()(photo("two_people")).people
    assert len(people) == len(expected) == 2
    overlaps = box_iou(np.stack([p.box for p in people]), np.array(list(expected)))
    assert overlaps.max(1).min() > 0.5 and sorted(overlaps.argmax(1)) == [0, 1]


def test_nobody_in_an_image_of_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    assert WithoutBoxes()(noise).people == ()


@pytest.mark.parametrize(
    ("pose", "explained"),
    [
        (person((10, 10, 60, 160)), True),  # the same joints
        (person((10, 10, 60, 160), seed=1), False),  # other joints in the same box
        (
            replace(person((10, 10, 60, 160), seed=1), keypoints=np.zeros((17, 3), np.float32)),
            True,
        ),  # no joints
        (person((40, 10, 90, 160), seed=1), False),  # beside, other joints
        (person((12, 12, 50, 100), shift=1), False),  # a small one before the other
    ],
)
def test_a_pose_is_explained_by_its_joints_or_its_box(pose: Detection, explained: bool) -> None:
    assert explains((person((200, 10, 260, 160), 3), person((10, 10, 60, 160))), pose) == explained
    assert not explains((), pose)


@pytest.mark.parametrize("size", [(480, 640), (1, 1), (3, 5000)])
def test_tiles_cover_the_image(size: tuple[int, int]) -> None:
    covered = np.zeros(size, int)
    for x1, y1, x2, y2 in tiles(*size):
        assert 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]
        covered[y1:y2, x1:x2] += 1
    assert covered.min() >= 1


def test_small_people_are_detected_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The far person of two_people twice, one of them too small for the pass over the whole image."""
    image = np.full((3200, 4000, 3), 90, np.uint8)
    far = photo("two_people")[140:540, 640:840]
    image[2010:2410, 3200:3400] = far
    image[200:1000, 200:600] = cv2.resize(far, None, fx=2, fy=2)
    assert len(WithoutBoxes()(image).people) == 1
    monkeypatch.setattr("dpmesh.inference.detector.SMALL", 0.25)
    assert len(WithoutBoxes()(image).people) == 2
