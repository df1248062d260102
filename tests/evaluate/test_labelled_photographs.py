"""Photographs labelled by eye: the label file, whose body is whose, and what is counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photos.labelled import Row, causes, failing, summary
from benchmarks.photos.labels import LABELS, Labelled, Photograph, match, photographs
from dpmesh.io import read_json
from dpmesh.skeletons import COCO17

ALL = list(photographs(Path("elsewhere"), Path()))


def labelled(box: tuple[float, ...], crowd: bool = False) -> Labelled:
    return Labelled(np.array(box, np.float64), np.full((17, 3), 2.0), False, False, crowd)


def photograph(*everybody: Labelled) -> Photograph:
    return Photograph("a", Path("a.png"), (1000, 1000), "report", everybody)


NEAR, FAR = labelled((100, 100, 300, 500)), labelled((600, 100, 700, 300))
BOTH = photograph(NEAR, FAR, labelled((0, 600, 1000, 1000), crowd=True))


def test_every_labelled_joint_lies_in_its_persons_box_and_image() -> None:
    for image in ALL:
        for person in image.everybody:
            assert (person.box[:2] >= 0).all()
            assert (person.box[2:] <= image.size).all()
            assert (person.box[2:] > person.box[:2]).all()
            joints = person.keypoints[person.keypoints[:, 2] > 0, :2]
            assert (joints >= person.box[:2] - 10).all(), image.name
            assert (joints <= person.box[2:] + 10).all(), image.name


def test_the_labels_are_as_many_as_the_page_says() -> None:
    people = [person for image in ALL for person in image.people]
    marked = [person for person in people if person.keypoints[:, 2].any()]
    joints = sum(int((person.keypoints[:, 2] > 0).sum()) for person in marked)
    text = (LABELS.parent / "README.md").read_text()
    for count in (
        f"{len(ALL)} photographs",
        f"{len(marked)} people with {joints} joints",
        f"{len(people) - len(marked)} further people",
        f"{sum(p.occluded for p in marked)} of the {len(marked)} are occluded",
        f"{sum(p.cut for p in marked)} cut",
        f"({sum(p.cut and p.occluded for p in marked)} both)",
    ):
        assert count in text


def test_the_label_file_is_cocos() -> None:
    read = read_json(LABELS)
    names = [
        name.replace("left_", "L_").replace("right_", "R_").title()
        for name in read["categories"][0]["keypoints"]
    ]
    assert names == list(COCO17.joints)
    assert {image["license"] for image in read["images"]} <= {one["id"] for one in read["licenses"]}
    assert all(image["source"] and image["author"] for image in read["images"])
    assert [image["split"] for image in read["images"]] == ["tune", "report"] * 21


def test_each_body_belongs_to_the_person_whose_box_it_shares() -> None:
    matches = match(BOTH, [FAR.box + 5, NEAR.box - 5])
    assert matches.of == (1, 0)
    assert matches.false == ()


def test_a_second_body_and_one_where_nobody_is_are_false_but_not_one_of_the_crowd() -> None:
    nowhere, crowd = np.array([800.0, 100, 900, 300]), np.array([100.0, 650, 200, 900])
    matches = match(BOTH, [NEAR.box, NEAR.box + 5, nowhere, crowd])
    assert matches.of == (0, None)
    assert matches.false == (1, 2)
    assert match(photograph(), [nowhere]).false == (0,)


def test_joints_of_a_missed_person_are_wrong() -> None:
    right = np.zeros(17)
    seen = Row("a", 0, NEAR, True, tuple(range(17)), right, right, False)
    missed = replace(seen, found=False, body=right + np.inf, keypoints=right + np.inf, exchanged=None)
    counted = summary([seen, missed], [], 1)
    assert counted["found"] == 1
    assert counted["joints"]["all"]["bodies_pck_0.1"] == pytest.approx(0.5)
    assert counted["joints"]["detected"]["bodies_pck_0.1"] == 1.0
    assert counted["wrong_joints"] == {"person missed": 17}
    assert [entry["missed"] for entry in failing([seen, missed])] == [True]


def test_a_wrong_joint_has_its_cause() -> None:
    body = np.array([0.2, 0.2, np.inf, 0.05])
    keypoints = np.array([np.inf, 0.3, 0.02, np.inf])
    row = Row("a", 0, NEAR, True, (5, 6, 7, 8), body, keypoints, None)
    assert causes(row) == ["no keypoint", "keypoint wrong", "body wrong, keypoint right"]
