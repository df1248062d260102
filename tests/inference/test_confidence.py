"""Confidence of keypoints: low where a joint is hidden, where two models disagree, and without anybody there."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dpmesh.errors import AssetError
from dpmesh.inference.confidence import FEATURES, THRESHOLD, confidences, features, shipped_networks
from dpmesh.inference.detections import Detection
from dpmesh.inference.detector import Detector
from dpmesh.inference.movenet import Reading
from dpmesh.skeletons import COCO17

EXAMPLES = Path(__file__).parents[2] / "examples"
BOX = np.array([100, 100, 200, 300], np.float32)
WOMAN, FAR = (555, 355, 690, 740), (669, 163, 760, 511)
"""Boxes of the people of behind_tree and, in the distance, of two_people."""


def standing(score: float = 0.8) -> Reading:
    rng = np.random.default_rng(3)
    points = rng.uniform(BOX[:2], BOX[2:], (17, 2)).astype(np.float32)
    return Reading(np.column_stack([points, np.full(17, score, np.float32)]), points + 1, 0.7)


def detected(name: str, box: tuple[int, ...], covered: tuple[int, int, int, int] | None = None) -> Detection:
    """covered: x1 y1 x2 y2 of a grey block in front."""
    image = np.ascontiguousarray(cv2.imread(str(EXAMPLES / f"{name}.jpg"))[..., ::-1])
    if covered:
        x1, y1, x2, y2 = covered
        image[y1:y2, x1:x2] = (120, 110, 100)
    return Detector().keypoints_in_boxes(image, np.array([box], np.float32))[0]


def test_one_row_for_each_joint() -> None:
    reading = standing()
    known = features(reading, reading.pose, BOX)
    assert known.shape == (17, len(FEATURES) + 9) and np.isfinite(known).all()
    np.testing.assert_array_equal(known[:, len(FEATURES) :].sum(1), 1)
    assert shipped_networks().thunder.hidden.shape[1] == known.shape[1]


def test_features_do_not_depend_on_where_and_how_large_the_person_is() -> None:
    def moved(points: np.ndarray) -> np.ndarray:
        out = points.copy()
        out[:, :2] = 3 * out[:, :2] + 50
        return out

    one, guide = standing(), standing().pose + np.float32([5, -3, 0])
    there = Reading(moved(one.pose), moved(one.regressed), one.centre)
    np.testing.assert_allclose(
        features(one, guide, BOX), features(there, moved(guide), 3 * BOX + 50), atol=1e-4
    )


def test_a_joint_on_which_the_models_disagree_is_less_certain() -> None:
    one = standing()
    agreed, _ = confidences(one, one.pose, BOX)
    other = one.pose.copy()
    ankle = COCO17.index("L_Ankle")
    other[ankle, :2] += 80
    disputed, _ = confidences(one, other, BOX)
    np.testing.assert_array_equal(agreed[:, :2], one.pose[:, :2])
    assert ((agreed[:, 2] >= 0) & (agreed[:, 2] <= 1)).all()
    assert 1 - disputed[ankle, 2] > 2 * (1 - agreed[ankle, 2])


def test_hidden_legs_are_less_certain() -> None:
    ankles = [COCO17.index(f"{side}_{joint}") for side in "LR" for joint in ("Knee", "Ankle")]
    whole, hidden = detected("two_people", FAR), detected("two_people", FAR, (660, 380, 770, 520))
    assert (whole.keypoints[ankles, 2] > THRESHOLD).all()
    assert hidden.keypoints[ankles, 2].mean() < 0.6 * whole.keypoints[ankles, 2].mean()
    upper = whole.keypoints[:, 1] < 360
    assert (hidden.keypoints[upper, 2] > THRESHOLD).sum() >= 5


def test_left_and_right_of_a_man_who_leans_towards_the_camera() -> None:
    """By eye: he faces the camera, so his left shoulder and leg are on the right of the image."""
    man = detected("two_people", (157, 142, 672, 739)).keypoints
    for joint, left, right in (("Shoulder", (620, 320), (508, 214)), ("Hip", (468, 446), (388, 405))):
        np.testing.assert_allclose(man[COCO17.index(f"L_{joint}"), :2], left, atol=25)
        np.testing.assert_allclose(man[COCO17.index(f"R_{joint}"), :2], right, atol=25)


def test_missing_constants_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped_networks.cache_clear()
    monkeypatch.setattr("dpmesh.assets.SHIPPED", tmp_path)
    with pytest.raises(AssetError, match="missing"):
        shipped_networks()
