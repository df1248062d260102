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
from dpmesh.inference.keypoints import files as keypoint_files
from dpmesh.inference.keypoints.boxes import read_boxes
from dpmesh.inference.keypoints.files import read_keypoint_file, read_keypoints
from dpmesh.skeletons import COCO17, JOINTS30, OPENPOSE18, OPENPOSE25

SIZE = (400, 600)
RNG = np.random.default_rng(0)


def openpose(skeleton: Any, confidence: float = 1.0) -> np.ndarray:
    """A person whose neck and mid hip lie where OpenPose puts them, a little off the middle."""
    points = np.concatenate(
        [RNG.uniform(50, 350, (len(skeleton), 2)), np.full((len(skeleton), 1), confidence)], 1
    )
    for middle, sides in (("Neck", ("L_Shoulder", "R_Shoulder")), ("Pelvis", ("L_Hip", "R_Hip"))):
        if middle in skeleton.joints:
            points[skeleton.index(middle), :2] = points[[skeleton.index(s) for s in sides], :2].mean(0) + 5
    return points


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
    points = openpose(skeleton, 0.5)
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
    points = openpose(OPENPOSE25)
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
    refused(tmp_path, [coco()], "knows no image a.jpg", only_image=False)
    refused(tmp_path, [coco(), {**coco(), "image_id": 8}], "knows no image a.jpg")
    refused(tmp_path, [coco(file_name="b.jpg")], "knows no image a.jpg")
    refused(tmp_path, {"people": []}, "names no image", only_image=False)
    refused(
        tmp_path,
        {"images": [{"id": 1, "file_name": "c.jpg"}], "annotations": []},
        "knows no image a.jpg",
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
    found = read_keypoint_file(write(tmp_path, [coco(), bad, {**coco(), "keypoints": None}]), "a.jpg", SIZE)
    assert len(found.people) == 1 and found.malformed == 1 and found.skipped == 1
    refused(tmp_path, [bad], "results[0]", "50 numbers")


def test_one_bad_person_of_another_tool_costs_that_person(tmp_path: Path) -> None:
    """A field that lacks in one entry is that entry's fault, whatever the format."""
    rows = json.loads((Path(__file__).parent / "keypoints" / "ultralytics_to_json.json").read_text())
    del rows[1]["keypoints"]
    path = write(tmp_path, rows)
    found = read_keypoint_file(path, "park.jpg", (576, 1024))
    assert len(found.people) == 1 and found.malformed == 1


def test_boxes_of_a_detector_are_no_keypoints(tmp_path: Path) -> None:
    """Otherwise every image would be an empty scene, in silence."""
    row = {"image_id": "a.jpg", "bbox": [1, 2, 30, 40], "category_id": 1, "score": 0.9}
    refused(tmp_path, [row, row], "no entry has keypoints", "--boxes")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (PERSON * [1 / 600, 1 / 400, 1], "parts of the image, not pixels"),
        (PERSON * [5, 5, 1], "lie outside the 600×400 image"),
        (np.c_[PERSON[:, :2], np.full(17, 255.0)], "confidences go up to 255"),
    ],
)
def test_coordinates_that_cannot_belong_to_the_image(tmp_path: Path, points: np.ndarray, said: str) -> None:
    refused(tmp_path, [coco(points)], said)


def test_an_image_of_another_size_in_the_file(tmp_path: Path) -> None:
    """The file says how large its image was: half as large is twice the coordinates, another shape is refused."""
    half = dataset(coco(PERSON * [0.5, 0.5, 1]))
    half["images"][0] |= {"width": 300, "height": 200}
    np.testing.assert_allclose(read(tmp_path, half)[0].keypoints[:, :2], PERSON[:, :2], atol=1e-3)
    half["images"][0] |= {"width": 400, "height": 600}
    refused(tmp_path, half, "400×600", "600×400", "turned by EXIF")


def test_a_named_order_overrides(tmp_path: Path) -> None:
    points = np.concatenate([RNG.uniform(50, 350, (14, 2)), np.ones((14, 1))], 1)
    path = write(tmp_path, [{**coco(), "keypoints": points.reshape(-1).tolist()}])
    with pytest.raises(InputError, match="42 numbers"):
        read_keypoint_file(path, "a.jpg", SIZE)
    person = read_keypoint_file(path, "a.jpg", SIZE, format="aichallenger").people[0]
    np.testing.assert_allclose(person.keypoints[COCO17.index("R_Shoulder")], points[0], atol=1e-3)
    person = read_keypoint_file(path, "a.jpg", SIZE, format="crowdpose").people[0]
    np.testing.assert_allclose(person.keypoints[COCO17.index("L_Shoulder")], points[0], atol=1e-3)


def test_a_camera_counter_is_no_image_id(tmp_path: Path) -> None:
    """IMG_0007.jpg is not image 7 of a data set; a name that is a number, and COCO's long names, are."""
    path = write(tmp_path, [coco(), {**coco(), "image_id": 9}])
    for name in ("IMG_0007.jpg", "DSC_7.jpg", "a7.jpg"):
        with pytest.raises(InputError, match=f"knows no image {name}"):
            read_keypoints(path, name, SIZE)
    for name in ("7.jpg", "000000000007.jpg", "COCO_val2014_000000000007.jpg"):
        assert len(read_keypoints(path, name, SIZE)) == 1


def test_a_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 images of one file would otherwise be 5,000 times its decoding."""
    calls: list[Path] = []
    real = keypoint_files.read_bytes
    monkeypatch.setattr(
        keypoint_files, "read_bytes", lambda path, *a: (calls.append(path), real(path, *a))[1]
    )
    path = write(tmp_path, [coco(file_name=f"{i}.jpg") for i in range(50)])
    for i in range(50):
        assert len(read_keypoints(path, f"{i}.jpg", SIZE, only_image=False)) == 1
    assert calls == [path]
    path.write_text(json.dumps([coco(file_name="other.jpg")]))
    assert len(read_keypoints(path, "other.jpg", SIZE)) == 1, "a changed file is read again"


def test_images_that_were_not_asked_for_are_known(tmp_path: Path) -> None:
    path = write(tmp_path, [coco(file_name="a.jpg"), coco(file_name="b.jpg")])
    file = keypoint_files.open_keypoints(path)
    file.people("a.jpg", SIZE)
    assert file.unused() == ["b.jpg"]


def test_not_a_keypoint_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "{", "not json", "\x00\x01", "[" * 100_000):
        refused(tmp_path, text, "is not JSON")
    refused(tmp_path, {"something": 1}, "no keypoint file of a known format")
    refused(tmp_path, "3", "no keypoint file of a known format")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="is not JSON"):
        read_keypoints(tmp_path / "binary.json", "a.jpg", SIZE)
    with pytest.raises(InputError, match="no such file"):
        read_keypoints(tmp_path / "absent.json", "a.jpg", SIZE)
    monkeypatch.setattr(keypoint_files, "LARGEST_FILE", 10)
    refused(tmp_path, [coco()], "larger than")


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
    ("text", "said"),
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
def test_boxes_that_are_none(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_boxes(text, "a.jpg", SIZE)


def boxes_of(folder: Path, content: Any) -> Any:
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return read_boxes(path, "a.jpg", SIZE)


def test_boxes_of_detectors(tmp_path: Path) -> None:
    """COCO detections with scores; other classes are skipped and counted; xywh and xyxy by name."""
    row = {"image_id": "a.jpg", "bbox": [10, 20, 30, 40], "category_id": 1, "score": 0.9}
    found = boxes_of(tmp_path, [row, {**row, "category_id": 18}, {**row, "image_id": "b.jpg"}])
    np.testing.assert_array_equal(found.xyxy, [[10, 20, 40, 60]])
    assert found.scores == pytest.approx([0.9]) and found.skipped == 1
    named = {"xyxy": [10, 20, 40, 60]}, {"xywh": [10, 20, 30, 40]}, {"x1": 10, "y1": 20, "x2": 40, "y2": 60}
    np.testing.assert_array_equal(boxes_of(tmp_path, list(named)).xyxy, [[10, 20, 40, 60]] * 3)
    annotated = dataset({"image_id": 7, "bbox": [10, 20, 30, 40]}, {"image_id": 8, "bbox": [1, 1, 2, 2]})
    np.testing.assert_array_equal(boxes_of(tmp_path, annotated).xyxy, [[10, 20, 40, 60]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([[0.1, 0.2, 0.5, 0.9]], "parts of the image, not pixels"),
        ([{"image_id": "b.jpg", "bbox": [1, 2, 3, 4]}], "has no boxes for a.jpg. It has: b.jpg"),
        ([{"bbox": [1, 2, 3, 4], "category_id": 3}], "no entry is a person"),
        ([{"score": 1}], "box 0: no box"),
        ({"a.jpg": 3}, "holds no list of boxes"),
        ([[1, 2, 3, None]], "box 0: None is not a number"),
    ],
)
def test_boxes_that_cannot_be_meant(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        boxes_of(tmp_path, content)


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
        with suppress(InputError):
            for person in read_keypoint_file(path, "park.jpg", (576, 1024)).people:
                assert np.isfinite(person.keypoints30).all() and np.isfinite(person.box).all()
                assert 0 <= person.score <= 1


VALUES = (
    "1e999", "-1e999", "NaN", "null", "true", '""', "[]", "{}", "-0", "1e-320", "9" * 5000, "9" * 400, '"a"',
)  # fmt: skip
