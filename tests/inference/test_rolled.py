"""A rolled camera: its roll is read off straight edges; people are detected upright, and their bodies lean again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dpmesh.errors import ConfigError
from dpmesh.geometry.camera import project
from dpmesh.inference.camera_roll import camera_roll
from dpmesh.inference.detections import Detection, DetectionResult
from dpmesh.inference.detector import Detector
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.rolled import (
    RolledDetector,
    detect_people,
    leaning_box,
    upright_box,
    upright_window,
)
from dpmesh.inference.scene import Scene
from dpmesh.skeletons import JOINTS30

EXAMPLES = Path(__file__).parents[2] / "examples"
Build = Callable[..., Predictor]


def room(roll: float, pitch: float = 15.0) -> np.ndarray:
    """An image of verticals and of edges along two horizontal directions; focal length 700 px."""
    image = np.full((480, 640, 3), 200, np.uint8)
    r, p = np.deg2rad([roll, pitch])
    tilt = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    turn = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    K = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])
    ends = [([x, -2.0, z], [x, 2.0, z]) for x in np.linspace(-3, 3, 13) for z in (5.0, 7.0)]
    ends += [([-3.0, y, 6.0], [3.0, y, 5.0]) for y in (-1.5, -0.5, 0.6, 1.4)]
    for pair in ends:
        a, b = project(np.array(pair) @ (turn @ tilt).T, K).round().astype(int).tolist()
        cv2.line(image, a, b, (30, 60, 90), 3)
    return image


@pytest.mark.parametrize("roll", [-31.0, -12.0, 0.0, 17.0])
def test_roll_is_read_off_vertical_edges(roll: float) -> None:
    assert camera_roll(room(roll), 700.0) == pytest.approx(roll, abs=1.5)


def test_small_rolls_and_images_without_edges_are_level() -> None:
    assert camera_roll(room(5.0), 700.0) == 0
    assert camera_roll(np.zeros((3, 5, 3), np.uint8), 9.0) == 0
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    assert camera_roll(noise, 500.0) == 0


@pytest.mark.parametrize("roll", [-60.0, -20.0, 10.0, 90.0, 180.0])
def test_boxes_there_and_back(roll: float) -> None:
    to_image, size = upright_window((300, 500), roll)
    corners = np.array([[0, 0], [499, 0], [0, 299], [499, 299.0]])
    there = (corners - to_image[:, 2]) @ to_image[:, :2]
    assert (there > -1).all() and (there < [size[1], size[0]]).all()
    box = np.array([100.0, 60, 160, 230])
    leaning = leaning_box(box, to_image, roll)
    np.testing.assert_allclose(upright_box(leaning, to_image, roll), box, atol=1e-6)
    angle = np.linspace(0, 2 * np.pi, 721)
    ellipse = np.stack([130 + 30 * np.cos(angle), 145 + 85 * np.sin(angle)], 1)
    around = ellipse @ to_image[:, :2].T + to_image[:, 2]
    np.testing.assert_allclose(leaning, [*around.min(0), *around.max(0)], atol=0.01)


class Brightest:
    """One person: every joint at the image's brightest pixel, whose confidence is how upright it is asked to be."""

    estimates_roll = True

    def __init__(self, sure: tuple[float, float] = (0.5, 0.9)) -> None:
        self.sure, self.sizes = sure, list[tuple[int, ...]]()

    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        self.sizes.append(image.shape[:2])
        y, x = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
        sure = self.sure[image.shape[:2] != self.sizes[0]]
        points = np.tile(np.array([x, y, sure], np.float32), (17, 1))
        return DetectionResult(
            (Detection(np.array([x - 30, y - 60, x + 30, y + 60], np.float32), points, 0.9),)
        )

    def keypoints_in_boxes(self, image: np.ndarray, boxes: np.ndarray, scores=None) -> tuple[Detection, ...]:
        (person,) = self(image).people
        return tuple(replace(person, box=box) for box in boxes)


def spot() -> np.ndarray:
    image = np.zeros((300, 400, 3), np.uint8)
    image[119:122, 249:252] = 255
    return image


def test_keypoints_and_boxes_are_those_of_the_image_as_it_is() -> None:
    (person,) = RolledDetector(Brightest(), 30.0)(spot()).people
    np.testing.assert_allclose(person.keypoints[:, :2], np.tile([250, 120], (17, 1)), atol=2)
    np.testing.assert_allclose((person.box[:2] + person.box[2:]) / 2, [250, 120], atol=2)
    shoulder = JOINTS30.index("L_Shoulder")
    np.testing.assert_allclose(person.keypoints30[shoulder, :2], [250, 120], atol=2)
    assert (person.keypoints30[JOINTS30.index("Chest")] == 0).all()  # which no detector provides
    box = np.array([[200, 60, 300, 180]], np.float32)
    (given,) = RolledDetector(Brightest(), 30.0).keypoints_in_boxes(spot(), box)
    np.testing.assert_array_equal(given.box, box[0])
    np.testing.assert_allclose(given.keypoints[:, :2], np.tile([250, 120], (17, 1)), atol=2)
    assert RolledDetector(Brightest(), 30.0).keypoints_in_boxes(spot(), box[:0]) is not None


def test_an_estimate_counts_where_the_keypoints_stay_sure() -> None:
    image = room(20.0)
    assert detect_people(Brightest(), image, 20, 700.0, None)[1] == pytest.approx(20, abs=1.5)
    assert detect_people(Brightest((0.9, 0.5)), image, 20, 700.0, None)[1] == 0
    without = Brightest()
    without.estimates_roll = False
    assert detect_people(without, image, 20, 700.0, None)[1] == 0 and len(without.sizes) == 1
    assert detect_people(without, image, 20, 700.0, 12.0)[1] == 12
    assert [Detector(fast=True).estimates_roll, Detector(rotated_detection=False).estimates_roll] == [
        False
    ] * 2


def test_bodies_project_to_their_crops_pixels_whatever_the_roll(predictor: Build, tmp_path: Path) -> None:
    """The fake model's bodies look the same in every crop: turned crops, turned bodies."""
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    boxes = np.array([[150.0, 100, 250, 200]])
    level, rolled = (predictor()(image, boxes=boxes, roll=roll) for roll in (None, 40.0))
    t, middle = np.deg2rad(40), np.array([200.0, 150])
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    np.testing.assert_allclose(rolled[0].joints2d - middle, (level[0].joints2d - middle) @ turn.T, atol=0.5)
    assert (level.roll, rolled.roll) == (0, 40)
    assert Scene.load(rolled.save(tmp_path)).roll == 40


def test_impossible_rolls_are_refused() -> None:
    for roll in (181.0, float("nan")):
        with pytest.raises(ConfigError, match="roll"):
            PredictOptions(roll=roll)
