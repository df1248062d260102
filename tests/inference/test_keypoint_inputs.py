"""Which input image an entry of a file of keypoints or boxes serves: one at most, and never another one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.boxes import read_boxes
from dpmesh.inference.keypoints.files import open_keypoints, read_keypoint_file

SIZE = (400, 600)
PERSON = np.concatenate([np.random.default_rng(0).uniform(50, 350, (17, 2)), np.ones((17, 1))], 1).round(2)


def entry(image: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "keypoints": PERSON.reshape(-1).tolist(), **more}


def results(folder: Path, *images: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps([entry(image) for image in images]))
    return path


def people(path: Path, inputs: list[str]) -> list[int | str]:
    """The number of people of each input, or its error."""
    counts: list[int | str] = []
    for name in inputs:
        try:
            counts.append(len(read_keypoint_file(path, name, SIZE, len(inputs) == 1, inputs=inputs).people))
        except InputError as error:
            counts.append(str(error))
    return counts


@pytest.mark.parametrize(
    ("label", "inputs"),
    [
        ("x.jpg", ["a/x.jpg", "b/x.jpg"]),
        ("c/x.jpg", ["a/x.jpg", "b/x.jpg"]),
        ("p", ["p.jpg", "p.png"]),
        ("p.webp", ["p.jpg", "p.png"]),
        (139, ["139.jpg", "000139.png"]),
        ("X.JPG", ["a/x.jpg", "b/x.jpg"]),
    ],
)
def test_an_entry_that_matches_several_inputs_is_refused(
    tmp_path: Path, label: Any, inputs: list[str]
) -> None:
    path = results(tmp_path, label)
    for message in people(path, inputs):
        assert isinstance(message, str) and all(
            name in message for name in (*inputs, "equally well", str(path))
        )
    assert people(path, inputs[:1]) == [1] and people(path, inputs[1:]) == [1], "each of them alone is served"
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({str(label): [[10, 10, 90, 90]]}))
    for name in inputs:
        with pytest.raises(InputError, match="equally well"):
            read_boxes(boxes, name, SIZE, False, inputs)


@pytest.mark.parametrize(
    ("label", "owner", "other"),
    [
        ("a/x.jpg", "a/x.jpg", "b/x.jpg"),
        ("p.jpg", "p.jpg", "p.png"),
        ("x.jpg", "x.jpg", "X.jpg"),
        ("p", "q/p.jpg", "COCO_p.jpg"),
    ],
)
def test_the_name_or_the_folder_decides(tmp_path: Path, label: str, owner: str, other: str) -> None:
    path = results(tmp_path, label)
    for inputs in ([owner, other], [other, owner]):
        counts = dict(zip(inputs, people(path, inputs), strict=True))
        assert counts[owner] == 1 and "has no image" in str(counts[other])


def test_an_openpose_folder_with_one_file_for_two_images(tmp_path: Path) -> None:
    (tmp_path / "x_keypoints.json").write_text('{"people": []}')
    assert all("equally well" in str(message) for message in people(tmp_path, ["a/x.jpg", "b/x.jpg"]))


def test_a_stream_learns_its_inputs_as_they_come(tmp_path: Path) -> None:
    """The list of inputs grows between two images."""
    file, inputs = open_keypoints(results(tmp_path, "x.jpg", "y.jpg")), ["a/x.jpg"]
    assert len(file.people("a/x.jpg", SIZE, False, inputs).people) == 1
    inputs.append("y.jpg")
    assert len(file.people("y.jpg", SIZE, False, inputs).people) == 1
    inputs.append("b/x.jpg")
    with pytest.raises(InputError, match="equally well"):
        file.people("b/x.jpg", SIZE, False, inputs)


def test_another_suffix_is_the_same_image_where_one_entry_has_the_stem(tmp_path: Path) -> None:
    assert people(results(tmp_path, "park.png", "lake.png"), ["park.jpg"]) == [1]
    assert "more than one image" in str(people(results(tmp_path, "park.png", "park.webp"), ["park.jpg"])[0])
    assert "has no image" in str(people(results(tmp_path, "park.0001"), ["park.jpg"])[0])


def test_boxes_without_a_name_serve_a_single_image(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text("[[10, 10, 90, 90]]")
    for source, what in (("10,10,90,90", "text boxes belong to one image"), (path, "names no image")):
        assert len(read_boxes(source, "a.jpg", SIZE).xyxy) == 1
        with pytest.raises(InputError, match=what):
            read_boxes(source, "a.jpg", SIZE, False, ["a.jpg", "b.jpg"])
    path.write_text('{"a.jpg": [[10, 10, 90, 90]], "b.jpg": [[10, 10, 90, 90]]}')
    assert len(read_boxes(path, "a.jpg", SIZE, False, ["a.jpg", "b.jpg"]).xyxy) == 1


def test_a_foreign_id_is_not_the_single_image(tmp_path: Path) -> None:
    """A file of one image counts it as 0 or 1; any other id is another image's, unless the name is that number."""
    for image in (0, 1, "1"):
        path = results(tmp_path, image, image)
        assert people(path, ["park.jpg"]) == [2] and people(path, ["IMG_0139.jpg"]) == [2]
        assert open_keypoints(path).unused() == []
        assert "has no image" in str(people(path, ["000139.jpg"])[0])
        assert "has no image" in str(people(path, ["park.jpg", "lake.jpg"])[0])
    message = str(people(results(tmp_path, 77), ["park.jpg"])[0])
    assert "has no image park.jpg. Its images: 77. These are ids: add the file's `images` table" in message
    assert people(results(tmp_path, 77), ["77.jpg"]) == [1]
    assert "has no image" in str(people(results(tmp_path, 0, 1), ["park.jpg"])[0])


def test_results_of_another_category_are_no_people(tmp_path: Path) -> None:
    """AP-10K's animals have 17 joints too."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps([entry("a.jpg"), entry("a.jpg", category_id=8)]))
    read = read_keypoint_file(path, "a.jpg", SIZE)
    assert len(read.people) == 1 and read.skipped == 1
    path.write_text(json.dumps([entry("a.jpg", category_id=8)] * 2))
    with pytest.raises(InputError, match="no entry is a person: category_id is 8"):
        read_keypoint_file(path, "a.jpg", SIZE)


def test_easy_vitpose_names_its_files_result(tmp_path: Path) -> None:
    points = (PERSON[:, [1, 0, 2]]).tolist()
    (tmp_path / "park_result.json").write_text(json.dumps({"keypoints": [{"0": points}]}))
    (tmp_path / "lake_result.json").write_text(json.dumps({"keypoints": [{}]}))
    assert people(tmp_path, ["park.jpg", "lake.jpg"]) == [1, 0]


def test_a_folder_of_labels_has_no_file_for_an_image_without_people(tmp_path: Path) -> None:
    """YOLO writes none; where no image has its file, the folder is another one."""
    row = " ".join(["0", "0.5", "0.5", "0.4", "0.4", *(["0.5"] * 34)])
    (tmp_path / "a.txt").write_text(row)
    inputs = ["a.jpg", "b.jpg"]
    assert people(tmp_path, inputs) == [1, 0]
    assert read_keypoint_file(tmp_path, "b.jpg", SIZE, False, inputs=inputs).no_label_file == 1
    assert all("has no image" in str(message) for message in people(tmp_path, ["c.jpg", "d.jpg"]))
    assert "has no image" in str(people(tmp_path, ["c.jpg"])[0])


def test_a_mirrored_folder_of_keypoints_is_read(tmp_path: Path) -> None:
    """kp/sub/NAME_keypoints.json belongs to sub/NAME.jpg, kp/NAME_keypoints.json to NAME.jpg."""
    (tmp_path / "sub").mkdir()
    person = {"people": [{"pose_keypoints_2d": PERSON.reshape(-1).tolist()}]}
    (tmp_path / "x_keypoints.json").write_text('{"people": []}')
    (tmp_path / "sub" / "x_keypoints.json").write_text(json.dumps(person))
    assert people(tmp_path, ["album/x.jpg", "album/sub/x.jpg"]) == [0, 1]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("k.npy", b"\x93NUMPY\x01\x00", "is a NumPy array"),
        ("k.json", b"\xff\xd8\xff\xe0", "is a JPEG image"),
        ("k.xml", b"<?xml version='1.0'?><annotations/>", "is XML"),
        ("k.csv", b"name,x,y\nnose,1,2\n", "is a CSV table"),
        ("k.json", b'{"pose_world_landmarks": [[{"x": 0, "y": 0, "z": 0}]]}', "metres, not pixels"),
        ("k.json", b'{"boxes": [], "labels": [], "scores": [], "keypoints": []}', "torchvision's output"),
    ],
)
def test_other_files_are_named_as_what_they_are(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert says in str(people(tmp_path / name, ["a.jpg"])[0])


def test_utf16_rtmlib_and_landmarks_without_visibility_are_read(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    marks = [{"x": 0.2 + 0.01 * i, "y": 0.5, "z": 0.0} for i in range(33)]
    rtmlib = {"keypoints": [PERSON[:, :2].tolist()] * 2, "scores": [[0.5] * 17] * 2}
    for content, encoding, count in (
        (rtmlib, "utf-8", 2),
        (marks, "utf-8", 1),
        ([entry("a.jpg")], "utf-16", 1),
    ):
        path.write_text(json.dumps(content), encoding=encoding)
        assert people(path, ["a.jpg"]) == [count]
        path.unlink()
