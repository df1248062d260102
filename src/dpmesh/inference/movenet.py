"""MoveNet's outputs: the poses of MultiPose, and the decoding of Thunder's four heads.

Both models are Google's. Thunder detects one person in a square crop: its centre head says where people's middles are,
its regression where their joints are from there; each joint is then the peak of its heatmap near the regressed point.
Where several people are in the crop, `person_pose` takes the centre that agrees with the box and with MultiPose's pose.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Shaped

from dpmesh.inference.detections import box_iou
from dpmesh.skeletons import COCO17, COCO_SIGMAS

Pose = Float32[np.ndarray, "17 3"]
"""COCO-17: x, y (px) and score."""

HEADS = ("heatmaps", "centre", "regression", "offsets")
"""Outputs of the shipped file: n×17, n×1, n×34 and n×34 (17 pairs y, x), each 64×64."""
CELL = 4
"""Pixels of the crop for each cell of the heads."""
NEAREST = 1.8
"""Cells added to a distance before a score is divided by it, as in MoveNet's own decoding."""
LEAST_CENTRE, MOST_CENTRES, APART = 0.03, 4, 2
"""Of other centres than the first: least score; how many in all; cells between them and the first, more than."""
FIRST = 1.15
"""How much more MoveNet's own choice of the person counts than another centre."""
MARGIN = 0.06
"""From the joints of a pose to its box, in longer sides of the joints' extent."""
SIDES_SCORE, SIDES_JOINTS, SIDES_FARTHEST = 0.2, 4, 0.3
"""Joints below the neck count in `same_sides` if both poses have this score, and if there are so many of them;
distances count up to this share of the box."""
_FLIP, _BODY = np.array(COCO17.flip), np.arange(17) >= 5
_ROW, _COLUMN = (grid.astype(np.float32) for grid in np.mgrid[:64, :64])
_FROM_MIDDLE = np.hypot(_ROW - 32, _COLUMN - 32) + np.float32(NEAREST)
_SPREAD = 2 * (2.5 * np.asarray(COCO_SIGMAS)) ** 2 * 0.5


class Reading(NamedTuple):
    """One pose that Thunder reads from a crop.

    pose: in pixels of the crop. regressed: where the centre's regression puts the joints, px. centre: its score.
    """

    pose: Pose
    regressed: Float32[np.ndarray, "17 2"]
    centre: float


def read_thunder(outputs: list[Float32[np.ndarray, "1 _ 64 64"]]) -> list[Reading]:
    """The poses of one crop: MoveNet's own choice, the person nearest the middle, first. outputs: HEADS."""
    heatmaps, centre, regression, offsets = (output[0] for output in outputs)
    pairs = (17, 2, 64, 64)
    return [
        _decode(heatmaps, centre[0], regression.reshape(pairs), offsets.reshape(pairs), *at)
        for at in _centres(centre[0])
    ]


def _centres(score: Float32[np.ndarray, "64 64"]) -> list[tuple[int, int]]:
    """Row and column of the centre that MoveNet takes, then of the other peaks by their scores."""
    row, column = np.divmod(int((score / _FROM_MIDDLE).argmax()), 64)
    peaks = (score == cv2.dilate(score, np.ones((7, 7), np.uint8))) & (score > LEAST_CENTRE)
    peaks &= np.hypot(_ROW - row, _COLUMN - column) > APART
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-score[rows, columns], kind="stable")[: MOST_CENTRES - 1]
    return [(int(row), int(column)), *((int(rows[i]), int(columns[i])) for i in order)]


def _decode(
    heatmaps: Float32[np.ndarray, "17 64 64"],
    centre: Float32[np.ndarray, "64 64"],
    regression: Float32[np.ndarray, "17 2 64 64"],
    offsets: Float32[np.ndarray, "17 2 64 64"],
    row: int,
    column: int,
) -> Reading:
    expected = regression[:, :, row, column] + np.asarray([row, column], np.float32)  # y, x
    away = np.hypot(_ROW - expected[:, :1, None], _COLUMN - expected[:, 1:, None])
    best = (heatmaps / (away + np.float32(NEAREST))).reshape(17, -1).argmax(1)
    y, x = np.divmod(best, 64)
    joint = np.arange(17)
    peak = np.stack([x + offsets[joint, 1, y, x], y + offsets[joint, 0, y, x]], 1) * CELL
    pose = np.column_stack([peak, heatmaps[joint, y, x]]).astype(np.float32)
    return Reading(pose, (expected[:, ::-1] * CELL).astype(np.float32), float(centre[row, column]))


def read_multipose(
    rows: Shaped[np.ndarray, "1 6 56"], width: int, height: int
) -> tuple[Float32[np.ndarray, "6 17 3"], Float32[np.ndarray, "6 4"], Float32[np.ndarray, "6"]]:
    """Poses and boxes (px of an input of that size) and scores of up to six people."""
    values = rows[0].astype(np.float32)
    poses = values[:, :51].reshape(6, 17, 3)[..., [1, 0, 2]]
    poses[..., :2] *= np.asarray([width, height], np.float32)
    poses[..., 2] = poses[..., 2].clip(0, 1)
    boxes = values[:, [52, 51, 54, 53]] * np.asarray([width, height, width, height], np.float32)
    return poses, boxes, values[:, 55]


def person_pose(readings: list[Reading], guide: Pose, box: Shaped[np.ndarray, "4"]) -> Reading:
    """The reading of the person in the box. guide: MultiPose's pose of them, scores 0 if it has none.

    All in the same pixels.
    """

    def agreement(number: int) -> float:
        reading = readings[number]
        overlap = float(box_iou(np.asarray(box)[None], pose_box(reading.pose)[None])[0, 0])
        first = FIRST if number == 0 else 1.0
        return first * (0.3 + _similarity(reading.pose, guide, box)) * (0.3 + overlap) * reading.centre**0.5

    return readings[max(range(len(readings)), key=agreement)]


def same_sides(a: Pose, b: Pose, box: Shaped[np.ndarray, "4"]) -> float:
    """How much better two poses of one person agree as they are than with b's left and right exchanged.

    Below the neck, in longer sides of the box; negative where they agree on the joints but not on which is left. 0
    where few joints are in both.
    """
    both = _BODY & (a[:, 2] > SIDES_SCORE) & (b[:, 2] > SIDES_SCORE) & (b[_FLIP, 2] > SIDES_SCORE)
    if both.sum() < SIDES_JOINTS:
        return 0.0
    side = max(float((box[2:] - box[:2]).max()), 1.0)
    kept, exchanged = (
        (np.linalg.norm(a[both, :2] - other[both, :2], axis=1) / side).clip(max=SIDES_FARTHEST)
        for other in (b, b[_FLIP])
    )
    return float((exchanged - kept).mean())


def exchange_sides(pose: Float32[np.ndarray, "17 c"]) -> Float32[np.ndarray, "17 c"]:
    """The joints below the neck with left and right exchanged."""
    return np.where(_BODY[:, None], pose[_FLIP], pose)


def pose_box(pose: Pose, least: float = 0.2) -> Float[np.ndarray, "4"]:
    """The box (xyxy) around the joints with a higher score than `least`; empty if there are none."""
    joints = pose[pose[:, 2] > least, :2].astype(np.float64)
    if not len(joints):
        return np.zeros(4)
    low, high = joints.min(0), joints.max(0)
    margin = MARGIN * float((high - low).max())
    return np.concatenate([low - margin, high + margin])


def _similarity(pose: Pose, guide: Pose, box: Shaped[np.ndarray, "4"]) -> float:
    """Object-keypoint similarity with wider tolerance, weighted by the lower score of each joint."""
    weight = np.minimum(pose[:, 2], guide[:, 2])
    squared = ((pose[:, :2] - guide[:, :2]).astype(np.float64) ** 2).sum(1) / max(
        float((box[2:] - box[:2]).max()), 1
    ) ** 2
    return float((np.exp(-squared / _SPREAD) * weight).sum() / (weight.sum() + 1e-6))
