"""One file of every common format, read correctly or refused; tests/inference/keypoints/README.md lists them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.files import read_keypoint_file

FILES = Path(__file__).parent / "keypoints"
TRUTH = json.loads((FILES / "truth.json").read_text())
SIZE = (TRUTH["picture"]["height"], TRUTH["picture"]["width"])
PEOPLE = [np.array(person["keypoints"]) for person in TRUTH["people"]]
NOT_VISIBLE = 0.05


def compare(case: dict[str, Any], result: list[Any], wanted: list[int]) -> None:
    """Each person's joints within 2 px, joints that are not visible stay so, and the box fits."""
    assert len(result) == len(wanted), f"{len(found)} people instead of {len(wanted)}"
    names: list[str] = TRUTH["joints"]
    known = names if case["joints"] == "all" else case["joints"]
    for person, which in zip(result, wanted, strict=True):
        truth, points = PEOPLE[which], person.keypoints
        for i, joint in enumerate(names):
            if [which, joint] in case.get("free", []):
                continue
            hidden = truth[i, 2] == 0 or joint not in known or [which, joint] in case.get("unseen", [])
            if hidden:
                assert points[i, 2] < NOT_VISIBLE, f"{joint} is invented"
                continue
            assert np.abs(points[i, :2] - truth[i, :2]).max() < 2, f"{joint} of person {which}"
            assert points[i, 2] >= NOT_VISIBLE
            if case["confidence"] == "same":
                assert abs(points[i, 2] - truth[i, 2]) <= 0.03
            elif case["confidence"] == "cut":
                assert (
                    abs(points[i, 2] - (1 if truth[i, 2] > 0.85 else truth[i, 2])) <= 0.2 or points[i, 2] == 1
                )
        visible = truth[truth[:, 2] > 0, :2]
        x1, y1, x2, y2 = person.box
        extent = np.ptp(visible, axis=0).max()
        assert (visible > [x1 - 3, y1 - 3]).all() and (visible < [x2 + 3, y2 + 3]).all(), (
            "the box cuts the person"
        )
        assert max(x2 - x1, y2 - y1) < 1.6 * extent, "the box is too large"


@pytest.mark.parametrize("case", TRUTH["cases"], ids=lambda case: case["name"])
def test_a_file_of_every_format(case: dict[str, Any]):
    only = len(case["pictures"]) == 1

    def read() -> list[list[Any]]:
        path = FILES / case["file"]
        return [list(read_keypoint_file(path, p["name"], SIZE, only).people) for p in case["pictures"]]

    if case["expect"] != "people":
        try:
            result = read()
        except InputError as error:
            line = str(error)
            assert "\n" not in line
            assert any(word.lower() in line.lower() for word in case.get("says", [""])), line
            return
        assert case["expect"] == "either", "no error"
    else:
        result = read()
    for people, image in zip(result, case["pictures"], strict=True):
        if case["name"] == "trap_all_zero.json":  # kept with its box, joints not visible
            people = [person for person in people if person.keypoints[:, 2].any()]
        order = [which for which in image["people"]]
        compare(case, people, order)
