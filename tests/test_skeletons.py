"""The joint sets, written out by number: an order that is off by one would train and measure another joint."""

import pytest

from dpmesh.skeletons import (
    COCO17,
    COCO_SIGMAS,
    CROWDPOSE14,
    GRAPH15,
    H36M14_ROWS,
    H36M17,
    JOINTS30,
    MUCO21,
    OPENPOSE18,
    SMPL24,
    Skeleton,
)

PAIRS = {
    JOINTS30: "1-2 4-5 7-8 10-11 13-14 16-17 18-19 20-21 22-23 25-26 27-28",
    SMPL24: "1-2 4-5 7-8 10-11 13-14 16-17 18-19 20-21 22-23",
    GRAPH15: "1-2 3-4 5-6 9-10 11-12 13-14",
    H36M17: "1-4 2-5 3-6 14-11 15-12 16-13",
    MUCO21: "2-5 3-6 4-7 8-11 9-12 10-13 17-18 19-20",
    COCO17: "1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16",
    CROWDPOSE14: "0-1 2-3 4-5 6-7 8-9 10-11",
}


@pytest.mark.parametrize("joints", PAIRS, ids=[joints.name for joints in PAIRS])
def test_flip_pairs(joints: Skeleton):
    expected = list(range(len(joints)))
    for pair in PAIRS[joints].split():
        a, b = map(int, pair.split("-"))
        expected[a], expected[b] = b, a
    assert list(joints.flip) == expected


def test_orders():
    assert JOINTS30.joints == (
        "Pelvis", "L_Hip", "R_Hip", "Torso", "L_Knee", "R_Knee", "Spine", "L_Ankle", "R_Ankle", "Chest", "L_Toe",
        "R_Toe", "Neck", "L_Thorax", "R_Thorax", "Head", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist",
        "R_Wrist", "L_Hand", "R_Hand", "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "Head_top",
    )  # fmt: skip
    assert JOINTS30.joints[:24] == SMPL24.joints
    assert [JOINTS30.index(j) for j in GRAPH15.joints] == [
        0,
        1,
        2,
        4,
        5,
        7,
        8,
        12,
        29,
        16,
        17,
        18,
        19,
        20,
        21,
    ]
    assert H36M17.joints == (
        "Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck", "Nose", "Head_top",
        "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist",
    )  # fmt: skip
    assert H36M14_ROWS == (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16)
    assert {*H36M17.joints} - {H36M17.joints[row] for row in H36M14_ROWS} == {"Pelvis", "Torso", "Nose"}
    assert OPENPOSE18.joints == (
        "Nose", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee",
        "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "R_Eye", "L_Eye", "R_Ear", "L_Ear",
    )  # fmt: skip
    assert COCO17.joints == (
        "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist",
        "R_Wrist", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle",
    )  # fmt: skip
    assert MUCO21.joints == (
        "Head_top", "Thorax", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip",
        "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe",
        "L_Toe",
    )  # fmt: skip
    assert CROWDPOSE14.joints == (
        "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "L_Hip", "R_Hip", "L_Knee", "R_Knee",
        "L_Ankle", "R_Ankle", "Head_top", "Neck",
    )  # fmt: skip
    assert len({*JOINTS30.joints} & {*MUCO21.joints}) == 20  # all but Thorax, which is no Neck


def test_sigmas_are_cocos():
    sigmas = dict(zip(COCO17.joints, COCO_SIGMAS, strict=True))
    of = {"Nose": 26, "Eye": 25, "Ear": 35, "Shoulder": 79, "Elbow": 72, "Wrist": 62, "Hip": 107, "Knee": 87}
    for joint, sigma in sigmas.items():
        assert round(1000 * sigma) == (of | {"Ankle": 89})[joint.removeprefix("L_").removeprefix("R_")], joint
