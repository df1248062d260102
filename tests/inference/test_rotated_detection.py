"""Rotated detection: a leaning person is upright in the rotated crop; only a better pose of theirs is taken."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dpmesh.geometry.crop import Crop, sample_window
from dpmesh.inference.detector import Detector
from dpmesh.inference.top_down import MAX_SHIFT, MIN_GAIN, better_pose, lean, rotated_window
from dpmesh.skeletons import COCO17

EXAMPLES = Path(__file__).parents[2] / "examples"


def leaning(degrees: float, sure: float = 0.5) -> np.ndarray:
    """A pose whose trunk points `degrees` clockwise of up; hips at (100, 100), 40 px long."""
    pose = np.full((17, 3), sure, np.float32)
    pose[:, :2] = 100
    up = np.array([np.sin(np.deg2rad(degrees)), -np.cos(np.deg2rad(degrees))])
    for name in ("L_Shoulder", "R_Shoulder"):
        pose[COCO17.index(name), :2] += (40 * up).astype(np.float32)
    return pose


@pytest.mark.parametrize(
    ("degrees", "rounded"), [(0, 0), (19, 0), (21, 15), (-47, -45), (95, 90), (179, 180)]
)
def test_lean_is_clockwise_and_in_steps(degrees: float, rounded: float) -> None:
    assert lean(leaning(degrees)) == rounded


def test_a_trunk_that_is_not_visible_does_not_lean() -> None:
    pose = leaning(60)
    pose[COCO17.index("L_Hip"), 2] = 0.1
    assert lean(pose) == 0


def test_what_leans_stands_in_the_window() -> None:
    crop = Crop(37.0, 11.0, 300.0)
    to_image = rotated_window(crop, 60.0)
    middle, above = (to_image[:, :2] @ np.array(p) + to_image[:, 2] for p in ((127.5, 127.5), (127.5, 27.5)))
    np.testing.assert_allclose(middle, crop.to_image(np.array([127.5, 127.5])))
    up = (above - middle) / np.linalg.norm(above - middle)
    np.testing.assert_allclose(up, [np.sin(np.pi / 3), -np.cos(np.pi / 3)], atol=1e-12)
    assert np.linalg.norm(above - middle) == pytest.approx(100 / crop.scale)
    image = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    straight = sample_window(image, rotated_window(crop, 0.0), (256, 256))
    np.testing.assert_array_equal(straight, crop.warp(image))


def test_only_a_more_confident_pose_of_the_same_person_is_taken() -> None:
    first, side = leaning(45, 0.5), 300.0
    better, other = leaning(45, 0.5 + 1.1 * MIN_GAIN), leaning(45, 0.9)
    better[:, :2] += 0.5 * MAX_SHIFT * side / np.sqrt(2)
    other[:, :2] += 2 * MAX_SHIFT * side
    assert better_pose(first, first, better, side) is better
    assert (
        better_pose(first, first, other, side) is None
    )  # most confident, but another person, or a wrong guess
    assert better_pose(first, first, leaning(45, 0.5 + 0.9 * MIN_GAIN), side) is None


def test_a_person_on_their_side_is_detected_better() -> None:
    """The far person of two_people in the image laid on its side, compared with the upright image."""
    image = np.ascontiguousarray(cv2.imread(str(EXAMPLES / "two_people.jpg"))[..., ::-1])
    box = np.array([[669, 163, 760, 511]], np.float32)
    upright = Detector(rotated_detection=False).keypoints_in_boxes(image, box)[0].keypoints
    height = image.shape[0]
    laid, truth = np.ascontiguousarray(np.rot90(image, 3)), upright.copy()
    truth[:, :2] = np.stack([height - 1 - upright[:, 1], upright[:, 0]], 1)
    turned_box = np.array([[height - 511, 669, height - 163, 760]], np.float32)
    once, twice = (
        Detector(rotated_detection=turn).keypoints_in_boxes(laid, turned_box)[0] for turn in (False, True)
    )
    assert twice.rotated and not once.rotated
    off = [np.linalg.norm(d.keypoints[:, :2] - truth[:, :2], axis=1) for d in (once, twice)]
    assert np.median(off[1]) < 0.03 * 348 and off[1].max() <= off[0].max()
    assert twice.keypoints[:, 2].mean() > once.keypoints[:, 2].mean() + 0.1
