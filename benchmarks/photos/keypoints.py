"""Compares predicted joints with a detector's confident keypoints: PCK, mirrored bodies, bodies upside down.

All in pixels of the image, which is assumed to be upright. A joint that is not finite is a miss.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dpmesh.skeletons import COCO17, JOINTS30

CONFIDENT = 0.3
"""A keypoint of this confidence counts: MoveNet's authors draw from it on. (The model uses keypoints from 0.2.)"""
_OURS = np.array(COCO17.indices_in(JOINTS30))
_TRUNK = tuple((f"L_{part}", f"R_{part}") for part in ("Shoulder", "Hip"))
_PAIRS = np.array([[COCO17.index(left), COCO17.index(right)] for left, right in _TRUNK])
_APART = 0.05
"""Of the box's longer side: a left and a right joint that are closer in the image decide nothing."""

Keypoints = Float[np.ndarray, "17 3"]
Joints2d = Float[np.ndarray, "30 2"]


def long_side(box: Float[np.ndarray, "4"]) -> float:
    """The longer side of x1 y1 x2 y2."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def distances(
    joints2d: Joints2d, keypoints: Keypoints, box: Float[np.ndarray, "4"]
) -> Float[np.ndarray, " k"]:
    """Of each confident keypoint to its joint, by the box's longer side; inf where the joint is not finite.

    PCK@a is the share below a (Yang and Ramanan, TPAMI 2013: the scale is the box's longer side).
    """
    sure = keypoints[:, 2] >= CONFIDENT
    off = np.linalg.norm(joints2d[_OURS[sure]].astype(np.float64) - keypoints[sure, :2], axis=1) / long_side(
        box
    )
    return np.where(np.isfinite(off), off, np.inf)


@dataclass(frozen=True)
class Verdict:
    """tested: whether the keypoints allow the test. failed: the result; False where it is not tested."""

    tested: bool
    failed: bool


def upside_down(joints2d: Joints2d, keypoints: Keypoints, box: Float[np.ndarray, "4"]) -> Verdict:
    """Whether the trunk (pelvis to neck) points more than a right angle away from the keypoints' trunk.

    The keypoints' trunk is middle of the hips to middle of the shoulders. Not tested where one of the four is not
    confident, or that trunk is shorter than a tenth of the box: then the person may lean towards the camera.
    """
    shoulders, hips = keypoints[_PAIRS[0]], keypoints[_PAIRS[1]]
    detected = shoulders[:, :2].mean(0) - hips[:, :2].mean(0)
    sure = bool((keypoints[_PAIRS.ravel(), 2] >= CONFIDENT).all())
    if not sure or np.linalg.norm(detected) < 0.1 * long_side(box):
        return Verdict(False, False)
    ours = joints2d[JOINTS30.index("Neck")] - joints2d[JOINTS30.index("Pelvis")]
    return Verdict(True, not bool(ours @ detected > 0))


def mirrored(joints2d: Joints2d, keypoints: Keypoints, box: Float[np.ndarray, "4"]) -> Verdict:
    """Whether shoulders and hips fit the keypoints better with left and right exchanged: turned back to front.

    Each joint is taken relative to the middle of its pair, so that a displaced body does not count as mirrored. Only
    pairs that are confident and apart in the keypoints are compared; without one, not tested.
    """
    pairs = [
        pair
        for pair in _PAIRS
        if (keypoints[pair, 2] >= CONFIDENT).all() and _width(keypoints, pair) >= _APART * long_side(box)
    ]
    if not pairs:
        return Verdict(False, False)
    agreement = 0.0
    for left, right in pairs:
        ours = joints2d[_OURS[left]] - joints2d[_OURS[right]]
        agreement += float(ours @ (keypoints[left, :2] - keypoints[right, :2]))
    return Verdict(True, not agreement > 0)


def _width(keypoints: Keypoints, pair: np.ndarray) -> float:
    return float(np.linalg.norm(keypoints[pair[0], :2] - keypoints[pair[1], :2]))


def feet_visible(keypoints: Keypoints) -> Bool[np.ndarray, "2"]:
    """Whether the left and the right ankle are confident."""
    return keypoints[[COCO17.index("L_Ankle"), COCO17.index("R_Ankle")], 2] >= CONFIDENT
