"""People of the user in place of the detector's: keypoint files, arrays and boxes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from keypoint_people import openpose, points18

from dpmesh.errors import InputError
from dpmesh.inference.predictor import Predictor

Build = Callable[..., Predictor]
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)


def test_keypoints_from_a_file(predictor: Build, tmp_path: Path) -> None:
    scene = predictor([])(PHOTO, keypoints=openpose(tmp_path, points18()))
    assert len(scene.people) == 1 and scene.people[0].score == pytest.approx(0.9)


def test_keypoints_with_nan_or_outside_are_hidden_and_counted(predictor: Build, tmp_path: Path) -> None:
    points = points18()
    points[3:5] = [float("nan"), 50.0]
    points[9:11] = [9000.0, -9000.0]
    scene = predictor([])(PHOTO, keypoints=openpose(tmp_path, points))
    assert len(scene.people) == 1
    assert scene.fallbacks["non_finite"] == 1 and scene.fallbacks["far_outside"] == 1
    assert np.isfinite(scene.people[0].keypoints2d).all()


def test_keypoints_without_a_visible_one_are_no_person(predictor: Build, tmp_path: Path) -> None:
    scene = predictor([])(PHOTO, keypoints=openpose(tmp_path, points18(0.0)))
    assert scene.people == () and scene.fallbacks["skipped"] == 1


def test_keypoints_with_a_missing_field(predictor: Build, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps({"people": [{"face": []}]}))
    with pytest.raises(InputError, match="pose_keypoints_2d"):
        predictor([])(PHOTO, keypoints=tmp_path / "k.json")


def test_keypoint_array(predictor: Build) -> None:
    points = np.random.default_rng(3).uniform(20, 80, (2, 17, 3))
    points[..., 2] = 0.8
    points[1, 4] = np.nan
    scene = predictor([])(PHOTO, keypoints=points)
    assert len(scene.people) == 2
    assert (scene.people[1].keypoints2d[4] == 0).all()
    for bad in (np.zeros((2, 16, 3)), np.zeros((1, 17, 3))):
        with pytest.raises(InputError):
            predictor([])(PHOTO, keypoints=bad)


def test_boxes(predictor: Build, tmp_path: Path) -> None:
    boxes = np.array([[10.0, 10, 60, 80], [70, 5, 150, 85]])
    (tmp_path / "b.json").write_text(json.dumps(boxes.tolist()))
    of_array, of_file = (predictor([])(PHOTO, boxes=b) for b in (boxes, tmp_path / "b.json"))
    np.testing.assert_allclose(of_array.stacked("vertices"), of_file.stacked("vertices"), atol=1e-5)
    np.testing.assert_array_equal(predictor([])(PHOTO, boxes=boxes).stacked("box"), boxes)


@pytest.mark.parametrize("box", [[10, 10, 10, 80], [10, 80, 60, 10], [0, 0, float("nan"), 9]])
def test_box_without_area(predictor: Build, tmp_path: Path, box: list[float]) -> None:
    (tmp_path / "b.json").write_text(json.dumps([box]))
    for given in (np.array([box]), tmp_path / "b.json"):
        with pytest.raises(InputError):
            predictor([])(PHOTO, boxes=given)


def test_boxes_and_keypoints_must_agree(predictor: Build) -> None:
    points = np.full((1, 17, 3), 0.5) * 80
    box = np.array([[0.0, 0, 100, 80]])
    scene = predictor([])(PHOTO, keypoints=points, boxes=box)
    np.testing.assert_array_equal(scene.people[0].box, box[0])
    with pytest.raises(InputError, match="2 boxes for 1"):
        predictor([])(PHOTO, keypoints=points, boxes=np.tile(box, (2, 1)))
