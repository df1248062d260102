"""Boxes of the user: every layout, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.boxes import read_boxes

SIZE = (400, 600)


def dataset(*annotations: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "train/a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
    return {"images": images, "annotations": list(annotations)}


def test_boxes_of_every_form(tmp_path: Path) -> None:
    wanted = np.asarray([[1, 2, 30, 40], [5.5, 6, 70, 80]], np.float32)
    assert np.array_equal(read_boxes("1,2,30,40; 5.5,6,70,80", "a.jpg", SIZE).xyxy, wanted)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(wanted.tolist()))
    assert np.array_equal(read_boxes(path, "a.jpg", SIZE).xyxy, wanted)
    path.write_text(json.dumps({"x/a.jpg": wanted.tolist(), "b.jpg": [[0, 0, 1, 1]]}))
    assert np.array_equal(read_boxes(str(path), "a.jpg", SIZE).xyxy, wanted)
    with pytest.raises(InputError, match=r"has no boxes for c\.jpg"):
        read_boxes(path, "c.jpg", SIZE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10,10,10,20", "no area"),
        ("10,20,30,20", "no area"),
        ("30,10,10,20", "no area"),
        ("700,10,800,20", "outside"),
        ("1,2,3", "not four numbers"),
        ("1,2,3,x", "not a number"),
        ("1,2,3,nan", "not finite"),
        ("", "no boxes"),
        ("absent.json", "no such file"),
        ("1,2,3,4;5,5,5,5", "box 1"),
    ],
)
def test_malformed_boxes_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_boxes(text, "a.jpg", SIZE)


def boxes_of(folder: Path, content: Any) -> Any:
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return read_boxes(path, "a.jpg", SIZE)


def test_boxes_of_detectors(tmp_path: Path) -> None:
    """COCO detections with scores; other classes are skipped and counted; xywh and xyxy by name."""
    row = {"image_id": "a.jpg", "bbox": [10, 20, 30, 40], "category_id": 1, "score": 0.9}
    result = boxes_of(tmp_path, [row, {**row, "category_id": 18}, {**row, "image_id": "b.jpg"}])
    np.testing.assert_array_equal(result.xyxy, [[10, 20, 40, 60]])
    assert result.scores == pytest.approx([0.9]) and result.skipped == 1
    named = {"xyxy": [10, 20, 40, 60]}, {"xywh": [10, 20, 30, 40]}, {"x1": 10, "y1": 20, "x2": 40, "y2": 60}
    np.testing.assert_array_equal(boxes_of(tmp_path, list(named)).xyxy, [[10, 20, 40, 60]] * 3)
    annotated = dataset({"image_id": 7, "bbox": [10, 20, 30, 40]}, {"image_id": 8, "bbox": [1, 1, 2, 2]})
    np.testing.assert_array_equal(boxes_of(tmp_path, annotated).xyxy, [[10, 20, 40, 60]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0.1, 0.2, 0.5, 0.9]], "fractions of the image, not pixels"),
        ([{"image_id": "b.jpg", "bbox": [1, 2, 3, 4]}], "has no boxes for a.jpg. Its images: b.jpg"),
        ([{"bbox": [1, 2, 3, 4], "category_id": 3}], "no entry is a person"),
        ([{"score": 1}], "box 0: no box"),
        ({"a.jpg": 3}, "has no list of boxes"),
        ([[1, 2, 3, None]], "box 0: None is not a number"),
    ],
)
def test_implausible_boxes_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        boxes_of(tmp_path, content)
