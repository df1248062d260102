"""Keypoint files of every format, and every way they can be wrong."""

import json
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.pipeline import keypoint_files
from dpmesh.pipeline.keypoint_files import read_boxes, read_keypoint_file, read_keypoints
from dpmesh.skeletons import COCO17, JOINTS30, OPENPOSE18, OPENPOSE25

SIZE = (400, 600)
RNG = np.random.default_rng(0)
PERSON = np.concatenate([RNG.uniform(50, 350, (17, 2)), np.ones((17, 1))], 1).round(2)


def write(folder: Path, content: Any) -> Path:
    path = folder / "keypoints.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(points: np.ndarray = PERSON, **more: Any) -> dict[str, Any]:
    return {"image_id": 7, "keypoints": points.reshape(-1).tolist(), **more}


def dataset(*annotations: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "train/a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
    return {"images": images, "annotations": list(annotations)}


def read(folder: Path, content: Any, **options: Any) -> list[Any]:
    return read_keypoints(write(folder, content), "a.jpg", SIZE, **options)


def refused(folder: Path, content: Any, *said: str, **options: Any) -> None:
    with pytest.raises(InputError) as error:
        read(folder, content, **options)
    for part in ("keypoints.json", *said):
        assert part in str(error.value)


def test_coco_annotations_are_found_by_file_name(tmp_path: Path) -> None:
    other = coco(PERSON + 1, bbox=[1, 2, 3, 4])
    other["image_id"] = 8
    people = read(tmp_path, dataset(coco(bbox=[10, 20, 300, 200], score=0.7), other))
    assert len(people) == 1
    np.testing.assert_allclose(people[0].keypoints, PERSON, atol=1e-4)
    np.testing.assert_array_equal(people[0].box, [10, 20, 310, 220])
    assert people[0].score == pytest.approx(0.7)


def test_pelvis_and_neck_are_added_to_coco(tmp_path: Path) -> None:
    person = read(tmp_path, [coco()])[0]
    hips = PERSON[[COCO17.index("L_Hip"), COCO17.index("R_Hip")]].mean(0)
    np.testing.assert_allclose(person.keypoints30[JOINTS30.index("Pelvis")], hips, atol=1e-4)
    assert person.keypoints30[JOINTS30.index("Neck"), 2] == 1
    assert person.keypoints30[JOINTS30.index("Head_top"), 2] == 0


@pytest.mark.parametrize("skeleton", [OPENPOSE18, OPENPOSE25])
def test_openpose_of_both_sizes(tmp_path: Path, skeleton: Any) -> None:
    points = np.concatenate([RNG.uniform(50, 350, (len(skeleton), 2)), np.full((len(skeleton), 1), 0.5)], 1)
    person = read(tmp_path, {"version": 1.3, "people": [{"pose_keypoints_2d": points.reshape(-1).tolist()}]})[
        0
    ]
    for joint in ("Nose", "L_Wrist", "R_Ankle", "L_Ear"):
        np.testing.assert_allclose(
            person.keypoints[COCO17.index(joint)], points[skeleton.index(joint)], rtol=1e-5
        )
    neck = person.keypoints30[JOINTS30.index("Neck")]
    np.testing.assert_allclose(
        neck, points[skeleton.index("Neck")], rtol=1e-5
    )  # The given one, not a middle.
    assert person.score == pytest.approx(0.5)


def test_openpose_pelvis_is_the_given_one(tmp_path: Path) -> None:
    points = np.concatenate([RNG.uniform(50, 350, (25, 2)), np.ones((25, 1))], 1)
    person = read(tmp_path, {"people": [{"pose_keypoints_2d": points.reshape(-1).tolist()}]})[0]
    pelvis = person.keypoints30[JOINTS30.index("Pelvis")]
    np.testing.assert_allclose(pelvis, points[OPENPOSE25.index("Pelvis")], rtol=1e-5)


def test_coco_visibility_one_and_two_are_seen(tmp_path: Path) -> None:
    points = PERSON.copy()
    points[:, 2] = 2
    points[3, 2], points[5:, :] = 1, 0
    person = read(tmp_path, [coco(points)])[0]
    np.testing.assert_array_equal(person.keypoints[:, 2], [1] * 5 + [0] * 12)


def test_box_around_keypoints_holds_them(tmp_path: Path) -> None:
    box = read(tmp_path, [coco()])[0].box
    assert (box[:2] < PERSON[:, :2].min(0)).all() and (box[2:] > PERSON[:, :2].max(0)).all()
    one = np.zeros((17, 3))
    one[9] = 100, 200, 1
    box = read(tmp_path, [coco(one)])[0].box
    assert box[0] < 99 and box[2] > 101 and box[1] < 199 and box[3] > 201


def test_results_by_name_number_or_for_the_only_picture(tmp_path: Path) -> None:
    path = write(tmp_path, [coco(file_name="x/a.jpg"), coco(file_name="b.jpg"), coco(file_name="b.jpg")])
    assert len(read_keypoints(path, "a.jpg", SIZE, only_image=False)) == 1
    assert len(read_keypoints(path, "b.jpg", SIZE, only_image=False)) == 2
    path = write(tmp_path, [coco(), coco(), {**coco(), "image_id": 9}])
    assert len(read_keypoints(path, "000000000007.jpg", SIZE, only_image=False)) == 2
    path = write(tmp_path, [{**coco(), "image_id": "a.jpg"}])
    assert len(read_keypoints(path, "a.jpg", SIZE, only_image=False)) == 1
    assert len(read(tmp_path, [coco(), coco()])) == 2
    nameless = coco()
    del nameless["image_id"]
    assert len(read(tmp_path, {"annotations": [nameless]})) == 1


def test_entries_that_may_belong_elsewhere_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, [coco()], "no entry belongs to a.jpg", only_image=False)
    refused(tmp_path, [coco(), {**coco(), "image_id": 8}], "no entry belongs to a.jpg")
    refused(tmp_path, [coco(file_name="b.jpg")], "no entry belongs to a.jpg")
    refused(tmp_path, {"people": []}, "names no picture", only_image=False)
    refused(
        tmp_path,
        {"images": [{"id": 1, "file_name": "c.jpg"}], "annotations": []},
        "no picture a.jpg",
        "c.jpg",
    )


def test_nobody_is_no_error(tmp_path: Path) -> None:
    assert read(tmp_path, {"people": []}) == []
    assert read(tmp_path, []) == []
    assert read(tmp_path, dataset()) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, 10**400])
def test_numbers_that_are_none_make_the_joint_unseen_and_are_counted(tmp_path: Path, bad: Any) -> None:
    row = coco()
    row["keypoints"][3 * 4 + 1] = bad
    read_file = read_keypoint_file(write(tmp_path, [row]), "a.jpg", SIZE)
    assert read_file.non_finite == 1 and read_file.far_outside == 0
    np.testing.assert_array_equal(read_file.people[0].keypoints[4], 0)
    np.testing.assert_allclose(
        np.delete(read_file.people[0].keypoints, 4, 0), np.delete(PERSON, 4, 0), atol=1e-4
    )
    assert np.isfinite(read_file.people[0].box).all()


def test_points_outside_stay_and_points_far_outside_do_not(tmp_path: Path) -> None:
    points = PERSON.copy()
    points[0, :2] = -40, 430
    points[1, :2] = 5000, 100
    points[2, :2] = 100, -1e30
    read_file = read_keypoint_file(write(tmp_path, [coco(points)]), "a.jpg", SIZE)
    assert read_file.far_outside == 2
    np.testing.assert_array_equal(read_file.people[0].keypoints[:3], [[-40, 430, 1], [0, 0, 0], [0, 0, 0]])


def test_all_unseen_is_skipped_unless_there_is_a_box(tmp_path: Path) -> None:
    unseen = np.zeros((17, 3))
    read_file = read_keypoint_file(write(tmp_path, [coco(unseen), coco()]), "a.jpg", SIZE)
    assert len(read_file.people) == 1 and read_file.skipped == 1
    read_file = read_keypoint_file(write(tmp_path, [coco(unseen, bbox=[1, 2, 30, 40])]), "a.jpg", SIZE)
    assert len(read_file.people) == 1 and not read_file.people[0].posed
    read_file = read_keypoint_file(write(tmp_path, [coco(iscrowd=1)]), "a.jpg", SIZE)
    assert not read_file.people and read_file.skipped == 1


def test_errors_name_the_person_and_the_field(tmp_path: Path) -> None:
    lacking = coco()
    del lacking["keypoints"]
    refused(tmp_path, [coco(), lacking], "results[1]", "keypoints is missing")
    refused(tmp_path, {"people": [{}]}, "people[0]", "pose_keypoints_2d is missing")
    refused(tmp_path, {"people": [{"pose_keypoints_2d": [1.0] * 51}]}, "people[0]", "51 numbers", "54 or 75")
    refused(tmp_path, [{**coco(), "keypoints": [1.0] * 54}], "results[0].keypoints", "54 numbers", "51")
    refused(tmp_path, [{**coco(), "keypoints": ["1"] * 51}], "results[0].keypoints", "not a number")
    refused(tmp_path, [{**coco(), "keypoints": [True] * 51}], "results[0].keypoints", "not a number")
    refused(tmp_path, [{**coco(), "keypoints": "1 2 3"}], "results[0].keypoints", "not a list")
    refused(tmp_path, [coco(bbox=[1, 2, 0, 5])], "results[0].bbox", "no area")
    refused(tmp_path, [coco(bbox=[1, 2, 5])], "results[0].bbox", "4 numbers")
    refused(tmp_path, [coco(bbox=[1, 2, 5, math.nan])], "results[0].bbox", "not finite")
    refused(tmp_path, [coco(score="high")], "results[0].score", "not a number")
    refused(tmp_path, dataset({"keypoints": [0] * 51}), "annotations[0]", "image_id is missing")
    refused(tmp_path, {"images": [{"id": 1}], "annotations": []}, "images[0]", "file_name is missing")
    refused(tmp_path, [3], "results[0]", "not an object")
    refused(tmp_path, {"people": {}}, "people is not a list")


def test_not_a_keypoint_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "{", "not json", "\x00\x01", "[" * 100_000):
        refused(tmp_path, text, "not JSON")
    refused(tmp_path, {"something": 1}, "neither COCO nor OpenPose")
    refused(tmp_path, "3", "neither COCO nor OpenPose")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="not JSON"):
        read_keypoints(tmp_path / "binary.json", "a.jpg", SIZE)
    with pytest.raises(InputError, match="no such file"):
        read_keypoints(tmp_path / "absent.json", "a.jpg", SIZE)
    monkeypatch.setattr(keypoint_files, "LARGEST_FILE", 10)
    refused(tmp_path, [coco()], "larger than")


def test_boxes_of_every_form(tmp_path: Path) -> None:
    wanted = np.asarray([[1, 2, 30, 40], [5.5, 6, 70, 80]], np.float32)
    assert np.array_equal(read_boxes("1,2,30,40; 5.5,6,70,80", "a.jpg", SIZE), wanted)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(wanted.tolist()))
    assert np.array_equal(read_boxes(path, "a.jpg", SIZE), wanted)
    path.write_text(json.dumps({"x/a.jpg": wanted.tolist(), "b.jpg": [[0, 0, 1, 1]]}))
    assert np.array_equal(read_boxes(str(path), "a.jpg", SIZE), wanted)
    with pytest.raises(InputError, match=r"no boxes for c\.jpg"):
        read_boxes(path, "c.jpg", SIZE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10,10,10,20", "no area"),
        ("10,20,30,20", "no area"),
        ("30,10,10,20", "no area"),
        ("700,10,800,20", "outside"),
        ("1,2,3", "not 4 numbers"),
        ("1,2,3,x", "not four numbers"),
        ("1,2,3,nan", "not finite"),
        ("", "no boxes"),
        ("absent.json", "no such file"),
        ("1,2,3,4;5,5,5,5", "box 1"),
    ],
)
def test_boxes_that_are_none(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_boxes(text, "a.jpg", SIZE)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_hostile_keypoint_files_are_one_line(tmp_path: Path) -> None:
    """Numbers beyond any image, nesting, wrong types anywhere, names with control characters and of a megabyte."""
    huge = json.dumps([coco()]).replace(str(PERSON[0, 0]), "1e999", 1)
    assert read_keypoint_file(write(tmp_path, huge), "a.jpg", SIZE).non_finite == 1
    people = read(tmp_path, json.dumps([coco()]).replace(str(PERSON[0, 0]), "1" + "0" * 300, 1))
    assert not people[0].keypoints[0].any() and np.isfinite(people[0].box).all()
    for depth in (500, 700, 900, 950, 100_000):
        refused(tmp_path, f'[{{"keypoints": {nested(depth)}, "image_id": 7}}]')
        refused(
            tmp_path, f'[{{"keypoints": {[0] * 50 + ["x"]}, "image_id": 7}}]'.replace("'x'", nested(depth))
        )
        refused(tmp_path, f'[{{"image_id": {nested(depth)}}}, {{"image_id": {nested(depth)}}}]')
        refused(tmp_path, f'{{"images": [{{"id": 1, "file_name": {nested(depth)}}}], "annotations": []}}')
        refused(
            tmp_path, f'{{"images": [{{"id": {nested(depth)}, "file_name": "a.jpg"}}], "annotations": []}}'
        )
    refused(tmp_path, dataset({"image_id": {}, "keypoints": []}), "image_id")
    for name in ("\x1b[2J\n" * 9, "x" * 1_000_000):
        with pytest.raises(InputError) as error:
            read(tmp_path, [coco(file_name=name)])
        assert len(str(error.value)) < 1000 and str(error.value).isprintable()
    refused(tmp_path, [coco(bbox=[0, 0, 1e300, 1e300])], "far outside")
    refused(tmp_path, [coco(bbox=[1e308, 0, 1e308, 5])], "not finite")
    refused(tmp_path, [coco(bbox=[5, 5, 1e-300, 1e-300])], "area")
    refused(tmp_path, [coco(bbox=[5, 5, 1e-3, 1e-3])], "smaller than a pixel")


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
    for path in (fifo, Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="not a"):
            read_keypoints(path, "a.jpg", SIZE)
    with pytest.raises(InputError, match="not a regular file"):
        read_boxes(fifo, "a.jpg", SIZE)
    for text in ("/dev/zero", "1" * 10_000, "1,2,3,4;" * 2000, "a\0b", "x" * 5000 + ".json", "1,2,1e999,4"):
        with pytest.raises(InputError) as error:
            read_boxes(text, "a.jpg", SIZE)
        assert "\n" not in str(error.value)


def test_mutated_keypoint_files(tmp_path: Path) -> None:
    """Flips, truncations and exchanged values of all three formats: people of finite numbers, or an InputError."""
    openpose = {"people": [{"pose_keypoints_2d": [1.5] * 75}]}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        text = json.dumps((dataset(coco(bbox=[1, 2, 30, 40], score=0.5)), [coco()], openpose)[seed % 3])
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
        with suppress(InputError):
            for person in read(tmp_path, text):
                assert np.isfinite(person.keypoints30).all() and np.isfinite(person.box).all()
                assert 0 <= person.score <= 1


VALUES = (
    "1e999",
    "-1e999",
    "NaN",
    "null",
    "true",
    '""',
    "[]",
    "{}",
    "-0",
    "1e-320",
    "9" * 5000,
    "9" * 400,
    '"a"',
)
