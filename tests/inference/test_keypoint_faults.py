"""Keypoint files with faults: forgiven and counted, or one InputError with file, person and field."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from keypoint_people import PERSON, SIZE, coco, read, read_keypoints, refused, write

from dpmesh.errors import InputError
from dpmesh.inference.keypoints import files as keypoint_files
from dpmesh.inference.keypoints.boxes import read_boxes
from dpmesh.inference.keypoints.files import read_keypoint_file


def test_errors_name_the_person_and_the_field(tmp_path: Path) -> None:
    refused(
        tmp_path,
        {"people": [{"pose_keypoints_2d": [1.0] * 60}]},
        "people[0]",
        "60 numbers",
        "75 (OpenPose-25)",
    )
    refused(tmp_path, [{**coco(), "keypoints": [1.0] * 54}], "results[0]", "54 numbers", "51")
    refused(tmp_path, [{**coco(), "keypoints": ["1"] * 51}], "results[0]", "not a number")
    refused(tmp_path, [{**coco(), "keypoints": [True] * 51}], "results[0]", "not a number")
    refused(tmp_path, [{**coco(), "keypoints": "1 2 3"}], "results[0]", "not a list")
    refused(tmp_path, [coco(bbox=[1, 2, 5])], "results[0]", "bbox", "4 finite numbers")
    refused(tmp_path, [coco(bbox=[1, 2, 5, math.nan])], "results[0]", "bbox", "4 finite numbers")
    refused(tmp_path, [coco(score="high")], "results[0]", "not a number")
    refused(tmp_path, {"images": [{"id": 1}], "annotations": []}, "images[0]", "file_name is missing")
    refused(tmp_path, [3], "no keypoint file of a known format")
    refused(tmp_path, {"people": {}}, "people is not a list")


def test_one_bad_person_costs_that_person(tmp_path: Path) -> None:
    """It is counted; without another person it is the error."""
    bad = {**coco(), "keypoints": [1.0] * 50}
    result = read_keypoint_file(write(tmp_path, [coco(), bad, {**coco(), "keypoints": None}]), "a.jpg", SIZE)
    assert len(result.people) == 1 and result.malformed == 1 and result.skipped == 1
    refused(tmp_path, [bad], "results[0]", "50 numbers")


def test_one_bad_person_of_another_tool_costs_that_person(tmp_path: Path) -> None:
    """A field that lacks in one entry is that entry's fault, whatever the format."""
    rows = json.loads((Path(__file__).parent / "keypoints" / "ultralytics_to_json.json").read_text())
    del rows[1]["keypoints"]
    path = write(tmp_path, rows)
    result = read_keypoint_file(path, "park.jpg", (576, 1024))
    assert len(result.people) == 1 and result.malformed == 1


def test_boxes_of_a_detector_are_no_keypoints(tmp_path: Path) -> None:
    """Otherwise every image would be an empty scene, in silence."""
    row = {"image_id": "a.jpg", "bbox": [1, 2, 30, 40], "category_id": 1, "score": 0.9}
    refused(tmp_path, [row, row], "no entry has keypoints", "--boxes")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (PERSON * [1 / 600, 1 / 400, 1], "fractions of the image, not pixels"),
        (PERSON * [5, 5, 1], "lie outside the 600×400 image"),
        (np.c_[PERSON[:, :2], np.full(17, 255.0)], "confidences go up to 255"),
    ],
)
def test_coordinates_that_cannot_belong_to_the_image(
    tmp_path: Path, points: np.ndarray, message: str
) -> None:
    refused(tmp_path, [coco(points)], message)


def test_not_a_keypoint_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("{", "not json", "\x00\x01", "[" * 100_000):
        refused(tmp_path, text, "is not JSON")
    refused(tmp_path, "", "is empty: no JSON")
    refused(tmp_path, {"something": 1}, "no keypoint file of a known format")
    refused(tmp_path, "3", "no keypoint file of a known format")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="is not JSON"):
        read_keypoints(tmp_path / "binary.json", "a.jpg", SIZE)
    with pytest.raises(InputError, match="no such file"):
        read_keypoints(tmp_path / "absent.json", "a.jpg", SIZE)
    monkeypatch.setattr(keypoint_files, "LARGEST_FILE", 10)
    refused(tmp_path, [coco()], "larger than")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_hostile_keypoint_files_are_one_line(tmp_path: Path) -> None:
    """Numbers beyond any image, nesting, wrong types anywhere, names with control characters and of a megabyte."""
    huge = json.dumps([coco()]).replace(str(PERSON[0, 0]), "1e999", 1)
    assert read_keypoint_file(write(tmp_path, huge), "a.jpg", SIZE).non_finite == 1
    people = read(tmp_path, json.dumps([coco()]).replace(str(PERSON[0, 0]), "1" + "0" * 300, 1))
    assert not people[0].keypoints[0].any() and np.isfinite(people[0].box).all()
    for depth in (500, 700, 900, 950, 100_000):
        refused(tmp_path, f'[{{"keypoints": {nested(depth)}, "image_id": 1}}]')
        refused(
            tmp_path, f'[{{"keypoints": {[0] * 50 + ["x"]}, "image_id": 1}}]'.replace("'x'", nested(depth))
        )
        refused(tmp_path, f'{{"images": [{{"id": 1, "file_name": {nested(depth)}}}], "annotations": []}}')
    for name in ("\x1b[2J\n" * 9, "x" * 1_000_000):
        with pytest.raises(InputError) as error:
            read(tmp_path, [coco(file_name=name)])
        assert len(str(error.value)) < 1000 and str(error.value).isprintable()
    for box in ([0, 0, 1e300, 1e300], [1e308, 0, 1e308, 5], [5, 5, 1e-300, 1e-300], [5, 5, 1e-3, 1e-3]):
        person = read(tmp_path, [coco(bbox=box)])[0]  # no box of use: the joints make one
        assert (person.box[:2] < PERSON[:, :2].min(0)).all() and (person.box[2:] < 1000).all()


@pytest.mark.parametrize(
    "content", ["null", "true", '"a"', "[null]", "[[]]", '{"people": [null]}', '{"a": [0, 1]}']
)
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    refused(tmp_path, content)
    with pytest.raises(InputError):
        read_boxes(write(tmp_path, content), "a.jpg", SIZE)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    fifo = tmp_path / "keypoints.json"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(InputError, match="not a"):
            read_keypoints(path, "a.jpg", SIZE)
    with pytest.raises(InputError, match="not a regular file"):
        read_boxes(fifo, "a.jpg", SIZE)
    for text in ("/dev/zero", "1" * 10_000, "1,2,3,4;" * 2000, "a\0b", "x" * 5000 + ".json", "1,2,1e999,4"):
        with pytest.raises(InputError) as error:
            read_boxes(text, "a.jpg", SIZE)
        assert "\n" not in str(error.value)


FORMAT_FILES = sorted((Path(__file__).parent / "keypoints").glob("*.json"))


def test_mutated_keypoint_files(tmp_path: Path) -> None:
    """Flips, truncations and exchanged values of every format: people of finite numbers, or an InputError."""
    texts = [path.read_text() for path in FORMAT_FILES if path.name != "truth.json"]
    refused = 0
    for seed in range(800):
        rng = np.random.default_rng(seed)
        text = texts[seed % len(texts)]
        at = int(rng.integers(len(text)))
        parts = re.split(r"([\[\]{},:])", text)
        match seed % 4:
            case 0:
                text = text[:at] + chr(rng.integers(256)) + text[at + 1 :]
            case 1:
                text = text[:at]
            case _:
                values = [i for i, part in enumerate(parts) if part.strip() and part not in "[]{},:"]
                parts[int(rng.choice(values))] = str(rng.choice(VALUES))
                text = "".join(parts)
        path = tmp_path / "keypoints.json"
        path.write_text(text)
        try:
            people = read_keypoint_file(path, "park.jpg", (576, 1024)).people
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        for person in people:
            assert np.isfinite(person.keypoints30).all() and np.isfinite(person.box).all()
            assert 0 <= person.score <= 1
    assert 200 < refused < 800, refused


VALUES = (
    "1e999", "-1e999", "NaN", "null", "true", '""', "[]", "{}", "-0", "1e-320", "9" * 5000, "9" * 400, '"a"',
)  # fmt: skip
