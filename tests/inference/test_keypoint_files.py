"""Keypoint files: which people belong to an image, and how their points are read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keypoint_people import PERSON, RNG, SIZE, coco, read, read_keypoints, refused, write

from dpmesh.errors import InputError
from dpmesh.inference.keypoints import files as keypoint_files
from dpmesh.inference.keypoints.files import read_keypoint_file
from dpmesh.skeletons import COCO17, JOINTS30, OPENPOSE18, OPENPOSE25


def openpose(skeleton: Any, confidence: float = 1.0) -> np.ndarray:
    """A person whose neck and mid hip lie where OpenPose puts them, a little off the middle."""
    points = np.concatenate(
        [RNG.uniform(50, 350, (len(skeleton), 2)), np.full((len(skeleton), 1), confidence)], 1
    )
    for middle, sides in (("Neck", ("L_Shoulder", "R_Shoulder")), ("Pelvis", ("L_Hip", "R_Hip"))):
        if middle in skeleton.joints:
            points[skeleton.index(middle), :2] = points[[skeleton.index(s) for s in sides], :2].mean(0) + 5
    return points


def dataset(*annotations: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": 1, "file_name": "train/a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
    return {"images": images, "annotations": list(annotations)}


def test_coco_annotations_are_matched_by_file_name(tmp_path: Path) -> None:
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
    )  # The one of the file, not the middle of the shoulders.
    assert person.score == pytest.approx(0.5)


def test_openpose_pelvis_is_read_not_computed(tmp_path: Path) -> None:
    points = openpose(OPENPOSE25)
    person = read(tmp_path, {"people": [{"pose_keypoints_2d": points.reshape(-1).tolist()}]})[0]
    pelvis = person.keypoints30[JOINTS30.index("Pelvis")]
    np.testing.assert_allclose(pelvis, points[OPENPOSE25.index("Pelvis")], rtol=1e-5)


def test_coco_visibility_one_and_two_are_visible(tmp_path: Path) -> None:
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


def test_results_by_name_number_or_for_the_only_image(tmp_path: Path) -> None:
    path = write(tmp_path, [coco(file_name="x/a.jpg"), coco(file_name="b.jpg"), coco(file_name="b.jpg")])
    assert len(read_keypoints(path, "a.jpg", SIZE, only_image=False)) == 1
    assert len(read_keypoints(path, "b.jpg", SIZE, only_image=False)) == 2
    path = write(tmp_path, [coco(), coco(), {**coco(), "image_id": 9}])
    assert len(read_keypoints(path, "000000000001.jpg", SIZE, only_image=False)) == 2
    path = write(tmp_path, [{**coco(), "image_id": "a.jpg"}])
    assert len(read_keypoints(path, "a.jpg", SIZE, only_image=False)) == 1
    assert len(read(tmp_path, [coco(), coco()])) == 2
    nameless = coco()
    del nameless["image_id"]
    assert len(read(tmp_path, {"annotations": [nameless]})) == 1


def test_entries_that_may_belong_elsewhere_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, [coco()], "has no image a.jpg", only_image=False)
    refused(tmp_path, [coco(), {**coco(), "image_id": 8}], "has no image a.jpg")
    refused(tmp_path, [coco(file_name="b.jpg")], "has no image a.jpg")
    refused(tmp_path, {"people": []}, "names no image", only_image=False)
    refused(
        tmp_path,
        {"images": [{"id": 1, "file_name": "c.jpg"}], "annotations": []},
        "has no image a.jpg",
        "c.jpg",
    )


def test_no_people_is_no_error(tmp_path: Path) -> None:
    assert read(tmp_path, {"people": []}) == []
    assert read(tmp_path, []) == []
    assert read(tmp_path, dataset()) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, 10**400])
def test_invalid_numbers_hide_the_joint_and_are_counted(tmp_path: Path, bad: Any) -> None:
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


def test_no_visible_joint_is_skipped_unless_there_is_a_box(tmp_path: Path) -> None:
    unseen = np.zeros((17, 3))
    read_file = read_keypoint_file(write(tmp_path, [coco(unseen), coco()]), "a.jpg", SIZE)
    assert len(read_file.people) == 1 and read_file.skipped == 1
    read_file = read_keypoint_file(write(tmp_path, [coco(unseen, bbox=[1, 2, 30, 40])]), "a.jpg", SIZE)
    assert len(read_file.people) == 1 and not read_file.people[0].posed
    read_file = read_keypoint_file(write(tmp_path, [coco(iscrowd=1)]), "a.jpg", SIZE)
    assert not read_file.people and read_file.skipped == 1


def test_an_image_of_another_size_in_the_file(tmp_path: Path) -> None:
    """The file has the size of its image: half the size doubles the coordinates, another shape is refused."""
    half = dataset(coco(PERSON * [0.5, 0.5, 1]))
    half["images"][0] |= {"width": 300, "height": 200}
    np.testing.assert_allclose(read(tmp_path, half)[0].keypoints[:, :2], PERSON[:, :2], atol=1e-3)
    half["images"][0] |= {"width": 400, "height": 600}
    refused(tmp_path, half, "400×600", "600×400", "rotated by EXIF")


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
    """IMG_0001.jpg is not image 1 of a data set; a name that is a number, and COCO's long names, are."""
    path = write(tmp_path, [coco(), {**coco(), "image_id": 9}])
    for name in ("IMG_0001.jpg", "DSC_1.jpg", "a1.jpg"):
        with pytest.raises(InputError, match=f"has no image {name}"):
            read_keypoints(path, name, SIZE)
    for name in ("1.jpg", "000000000001.jpg", "COCO_val2014_000000000001.jpg"):
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


def test_unused_images_of_a_keypoint_file_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path, [coco(file_name="a.jpg"), coco(file_name="b.jpg")])
    file = keypoint_files.open_keypoints(path)
    file.people("a.jpg", SIZE)
    assert file.unused() == ["b.jpg"]
