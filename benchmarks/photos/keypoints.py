"""Predicted joints against the keypoints that a detector was sure of: PCK, and left, right and up.

All in pixels of the picture, which is taken to be upright. A joint that is not finite is a miss.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dpmesh.skeletons import COCO17, JOINTS30

CONFIDENT = 0.3
"""A keypoint of this confidence counts (the threshold that MoveNet's authors draw with; the model is told from 0.2)."""
_OURS = np.array(COCO17.indices_in(JOINTS30))
_TRUNK = tuple((f"L_{part}", f"R_{part}") for part in ("Shoulder", "Hip"))
_PAIRS = np.array([[COCO17.index(left), COCO17.index(right)] for left, right in _TRUNK])
_APART = 0.05
"""Of the box's longer side: left and right nearer than that in the picture do not tell which is which."""

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
    """tested: whether the keypoints could tell. failed: what they told; never where they could not."""

    tested: bool
    failed: bool


def upside_down(joints2d: Joints2d, keypoints: Keypoints, box: Float[np.ndarray, "4"]) -> Verdict:
    """Whether the trunk (pelvis to neck) points more than a right angle away from the keypoints' trunk.

    The keypoints' trunk is middle of the hips to middle of the shoulders. Not tested where one of the four is not
    confident, or that trunk is shorter than a tenth of the box: then somebody may lean towards the camera.
    """
    shoulders, hips = keypoints[_PAIRS[0]], keypoints[_PAIRS[1]]
    given = shoulders[:, :2].mean(0) - hips[:, :2].mean(0)
    sure = bool((keypoints[_PAIRS.ravel(), 2] >= CONFIDENT).all())
    if not sure or np.linalg.norm(given) < 0.1 * long_side(box):
        return Verdict(False, False)
    ours = joints2d[JOINTS30.index("Neck")] - joints2d[JOINTS30.index("Pelvis")]
    return Verdict(True, not bool(ours @ given > 0))


def mirrored(joints2d: Joints2d, keypoints: Keypoints, box: Float[np.ndarray, "4"]) -> Verdict:
    """Whether shoulders and hips fit the keypoints better with left and right exchanged: turned back to front.

    Each is asked relative to the middle of its pair, so that a body beside its place is not called mirrored. Only
    pairs that are confident and apart in the keypoints are asked; without one, not tested.
    """
    asked = [
        pair
        for pair in _PAIRS
        if (keypoints[pair, 2] >= CONFIDENT).all() and _width(keypoints, pair) >= _APART * long_side(box)
    ]
    if not asked:
        return Verdict(False, False)
    agreement = 0.0
    for left, right in asked:
        ours = joints2d[_OURS[left]] - joints2d[_OURS[right]]
        agreement += float(ours @ (keypoints[left, :2] - keypoints[right, :2]))
    return Verdict(True, not agreement > 0)


def _width(keypoints: Keypoints, pair: np.ndarray) -> float:
    return float(np.linalg.norm(keypoints[pair[0], :2] - keypoints[pair[1], :2]))


def feet_seen(keypoints: Keypoints) -> Bool[np.ndarray, "2"]:
    """Whether the left and the right ankle are confident."""
    return keypoints[[COCO17.index("L_Ankle"), COCO17.index("R_Ankle")], 2] >= CONFIDENT
