"""Detection: suppression and merging on made-up people, the two models on the example images."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dpmesh.errors import AssetError, InputError
from dpmesh.inference import shipped_models
from dpmesh.inference.detections import (
    Detection,
    box_area,
    box_iou,
    keypoint_similarity,
    merge_detections,
    same_person,
    suppress,
)
from dpmesh.inference.detector import Detector
from dpmesh.inference.shipped_models import MODELS
from dpmesh.skeletons import COCO17, JOINTS30

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
FLOAT32: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "tests/data/detector_fp32.json").read_text())
"""Detections of the float32 originals, written by tools/assets/build_detector.py --check examples/*.jpg."""

DETECTORS = {
    False: Detector(),
    True: Detector(fast=True),
}  # Opened once; nothing is read before the first use.
ONE_LOOK = {fast: Detector(fast=fast, rotated_detection=False) for fast in (False, True)}
"""Without rotated detection (test_rotated_detection.py), as the float32 models ran."""


def load_image(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.asarray(rows, np.float32).reshape(-1, 4)


def person(
    x: float = 100, y: float = 100, scale: float = 1.0, score: float = 0.9, posed: bool = True
) -> Detection:
    """A made-up standing person 100 px wide and 300 px high at scale 1."""
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 1, (17, 2)) * [100 * scale, 300 * scale] + [x, y]
    keypoints = np.concatenate([points, np.full((17, 1), float(posed))], 1).astype(np.float32)
    return Detection(boxes((x, y, x + 100 * scale, y + 300 * scale))[0], keypoints, score)


def test_iou_of_known_boxes() -> None:
    a = boxes((0, 0, 10, 10), (5, 5, 5, 9))
    b = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30))
    np.testing.assert_allclose(box_iou(a, b), [[1, 1 / 3, 0], [0, 0, 0]], atol=1e-6)
    np.testing.assert_array_equal(box_area(boxes((0, 0, 4, 5), (4, 4, 1, 9))), [20, 0])
    np.testing.assert_allclose(box_iou(a, b), box_iou(b, a).T)


def test_suppression_keeps_the_best_and_all_that_stand_apart() -> None:
    result = boxes((0, 0, 10, 10), (1, 0, 11, 10), (30, 0, 40, 10), (0, 0, 10, 5))
    scores = np.asarray([0.5, 0.9, 0.7, 0.6], np.float32)
    np.testing.assert_array_equal(suppress(result, scores, 0.6), [1, 2, 3])
    np.testing.assert_array_equal(suppress(result, scores, 0.99), [1, 2, 3, 0])
    np.testing.assert_array_equal(suppress(result, scores, 0.1), [1, 2])
    assert len(suppress(boxes(), scores[:0], 0.6)) == 0


def test_keypoint_similarity_is_cocos() -> None:
    a = person().keypoints
    assert keypoint_similarity(a, a, 30000.0) == pytest.approx(1)
    b = a.copy()
    b[0, 0] += (
        2 * 0.026 * np.sqrt(30000)
    )  # One nose-sigma: exp(-1/2) for that joint, 1 for the sixteen others.
    assert keypoint_similarity(a, b, 30000.0) == pytest.approx((16 + np.exp(-0.5)) / 17, abs=1e-4)
    b[3:, 2] = 0
    b[2, 2] = 0
    assert keypoint_similarity(a, b, 30000.0) == 0  # Two shared joints say nothing.


def test_one_person_twice_is_merged_and_counted() -> None:
    result = merge_detections((person(score=0.6), person(102, 101, score=0.8), person(400, score=0.7)), 20)
    assert [p.score for p in result.people] == [0.8, 0.7]
    assert (result.merged, result.dropped) == (1, 0)


def test_two_people_before_each_other_are_kept_apart() -> None:
    near, behind = person(), person()
    moved = behind.keypoints.copy()
    moved[:, 0] = 300 - moved[:, 0]  # Another pose in the very same box.
    result = merge_detections((near, Detection(behind.box, moved, 0.5)), 20)
    assert len(result.people) == 2 and result.merged == 0


def test_the_posed_output_survives_the_unposed_of_better_score() -> None:
    result = merge_detections((person(score=0.95, posed=False), person(score=0.5)), 20)
    assert len(result.people) == 1 and result.merged == 1
    assert result.people[0].posed
    assert not same_person(
        person(posed=False).keypoints, person().box, person(posed=False).keypoints, person(160).box
    )


def test_at_most_max_people_and_the_rest_counted() -> None:
    people = tuple(person(200 * i, score=0.1 * (i + 1), posed=i != 4) for i in range(5))
    result = merge_detections(people, 2)
    assert [round(p.score, 1) for p in result.people] == [0.5, 0.4]
    assert result.dropped == 3 and not result.people[0].posed


def test_detection_carries_pelvis_and_neck() -> None:
    one = person()
    hips = one.keypoints[[COCO17.index("L_Hip"), COCO17.index("R_Hip")]].mean(0)
    np.testing.assert_allclose(one.keypoints30[JOINTS30.index("Pelvis")], hips, rtol=1e-6)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_agree_with_float32(path: Path, fast: bool) -> None:
    """As many people as the float32 models find, keypoints within 1 px."""
    expected = FLOAT32[f"{path.name}{'/fast' if fast else ''}"]
    people = ONE_LOOK[fast](load_image(path)).people
    assert len(people) == len(expected)
    for got, wanted in zip(people, expected, strict=True):
        np.testing.assert_allclose(got.keypoints[:, :2], np.asarray(wanted["keypoints"])[:, :2], atol=1)
        np.testing.assert_allclose(got.keypoints[:, 2], np.asarray(wanted["keypoints"])[:, 2], atol=0.02)
        np.testing.assert_allclose(got.box, wanted["box"], atol=1)
        assert got.score == pytest.approx(wanted["score"], abs=0.02)


PEOPLE = {  # By eye, in px of the example: x1 y1 x2 y2 of every person.
    "astronaut": [(20, 15, 370, 500)],
    "balance": [(170, 70, 800, 790)],
    "behind_tree": [(555, 355, 690, 740)],
    "composite_hidden": [(175, 170, 350, 655), (185, 135, 525, 815)],
    "park": [(588, 350, 708, 525), (0, 305, 125, 545)],
    "two_people": [(160, 95, 680, 735), (665, 160, 755, 520)],
}


def test_every_example_has_its_people_written_down() -> None:
    assert {path.stem for path in EXAMPLES} == set(PEOPLE) and len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_person_of_the_examples_is_detected(path: Path) -> None:
    image = load_image(path)
    result = DETECTORS[False](image)
    wanted = boxes(*PEOPLE[path.stem])
    overlaps = box_iou(np.stack([p.box for p in result.people]), wanted)
    assert len(result.people) == len(wanted)
    assert sorted(overlaps.argmax(1)) == list(range(len(wanted)))
    assert (overlaps.max(1) > 0.6).all()
    scores = [p.score for p in result.people]
    assert scores == sorted(scores, reverse=True)
    for detected in result.people:
        assert detected.posed and np.isfinite(detected.keypoints).all()
        inside = (detected.box[:2] >= 0).all() and (detected.box[2:] <= image.shape[1::-1]).all()
        assert inside and (detected.keypoints[:, 2] >= 0).all() and (detected.keypoints[:, 2] <= 1).all()
        visible = detected.keypoints[detected.keypoints[:, 2] > 0.3, :2]
        near = (detected.box[2:] - detected.box[:2]) * 0.25
        assert (visible >= detected.box[:2] - near).all() and (visible <= detected.box[2:] + near).all()


def test_eyes_of_the_astronaut() -> None:
    """By eye. A wrong channel order, axis order or crop offset would move them by far more than 12 px."""
    result = DETECTORS[False](load_image(ROOT / "examples/astronaut.jpg")).people[0]
    np.testing.assert_allclose(result.keypoints[COCO17.index("L_Eye"), :2], (245, 110), atol=12)
    np.testing.assert_allclose(result.keypoints[COCO17.index("R_Eye"), :2], (205, 112), atol=12)


def test_fresh_sessions_detect_the_same() -> None:
    image = load_image(ROOT / "examples/park.jpg")
    for a, b in zip(Detector()(image).people, Detector()(image).people, strict=True):
        assert (
            np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.box, b.box) and a.score == b.score
        )


def test_moving_the_image_moves_the_keypoints() -> None:
    """64 px of black to the left and above: the crop steps by powers of two, so nothing else changes."""
    image, box = load_image(ROOT / "examples/balance.jpg"), boxes((166, 66, 804, 737))
    moved = np.pad(image, ((64, 0), (64, 0), (0, 0)))
    here = DETECTORS[False].keypoints_in_boxes(image, box)[0]
    there = DETECTORS[False].keypoints_in_boxes(moved, box + np.float32(64))[0]
    np.testing.assert_allclose(there.keypoints[:, :2], here.keypoints[:, :2] + 64, atol=0.5)


def test_supplied_boxes_are_kept_in_order() -> None:
    image = load_image(ROOT / "examples/park.jpg")
    supplied = boxes((0, 300, 130, 550), (300, 0, 420, 120), (585, 350, 710, 525))
    people = DETECTORS[False].keypoints_in_boxes(image, supplied)
    assert np.array_equal(np.stack([p.box for p in people]), supplied)
    assert [p.posed for p in people] == [True, False, True]  # The middle one is sky and tree.
    assert [p.score for p in people] == [1, 1, 1]
    with pytest.raises(InputError, match="x1 < x2"):
        DETECTORS[False].keypoints_in_boxes(image, boxes((10, 10, 10, 30)))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (900, 2), (3, 3), (31, 33), (2, 5000)])
def test_no_person_in_tiny_and_narrow_images(shape: tuple[int, int], fast: bool) -> None:
    assert DETECTORS[fast](np.full((*shape, 3), 128, np.uint8)).people == ()


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="no pixels"):
        Detector()(np.zeros((0, 5, 3), np.uint8))


def test_models_are_opened_at_first_use_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[str] = []
    real = shipped_models.open_session
    monkeypatch.setattr(
        shipped_models, "open_session", lambda path, threads: opened.append(path.name) or real(path, threads)
    )
    detector = Detector(fast=True)
    assert opened == []
    for _ in range(2):
        detector(np.zeros((64, 64, 3), np.uint8))
    assert opened == [MODELS[1]]
    monkeypatch.setattr("dpmesh.assets.SHIPPED", tmp_path)
    with pytest.raises(AssetError, match="missing"):
        Detector()(np.zeros((64, 64, 3), np.uint8))
