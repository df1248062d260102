"""How likely a keypoint is right: a correction of MoveNet Thunder's own confidence.

Thunder is as confident of joints that something hides as of those in sight. A network of one hidden layer judges each
joint by its score, by what MultiPose, a second model, says of it, and by what is known of its neighbours. It was fitted
on people of whom the truth is known, half of them hidden (tools/assets/fit_confidence.py).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Shaped

from dpmesh.assets import shipped
from dpmesh.errors import AssetError
from dpmesh.inference.movenet import Pose, Reading
from dpmesh.io import read_json
from dpmesh.skeletons import COCO17

THRESHOLD = 0.2
"""Confidence up to which a detected joint counts as not visible. Bodies gain from joints that are less likely right
than not: the model was trained on wrong ones, and refining weights them (dev/training_log.md)."""
KINDS = np.array([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8])
"""Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles."""
FEATURES = (
    "score", "to_regressed", "to_opposite", "outside_box", "centre", "mean_score", "neighbour_score", "other_score",
    "to_other", "other_mean", "mean_to_other", "neighbour_to_other", "to_others_opposite", "aspect",
)  # fmt: skip
"""What is known of a joint, before its kind. "Other" is MultiPose; distances are logarithms of shares of the box."""
_FLIP = np.array(COCO17.flip)
_PAIRED = np.arange(17) != _FLIP
_LIMBS = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12)),
    *((11, 13), (13, 15), (12, 14), (14, 16)),
)
_JOINED = np.zeros((17, 17), np.float32)
for _a, _b in _LIMBS:
    _JOINED[_a, _b] = _JOINED[_b, _a] = 1
_JOINED /= _JOINED.sum(1, keepdims=True)
"""Row j averages over the joints next to joint j."""


OTHER_GAIN = 0.1
"""MultiPose's pose is taken where the mean probability of its joints is higher by this: where Thunder's joints are of
two people."""


class Layers(NamedTuple):
    """Of a network: log odds from features."""

    mean: Float32[np.ndarray, "f"]
    scale: Float32[np.ndarray, "f"]
    hidden: Float32[np.ndarray, "h f"]
    hidden_bias: Float32[np.ndarray, "h"]
    out: Float32[np.ndarray, "h"]
    out_bias: Float32[np.ndarray, ""]


class Networks(NamedTuple):
    """Of Thunder's joints and of MultiPose's. least: log odds from which at most 6 % of the joints are wrong; only
    measured, no joint is dropped for it."""

    thunder: Layers
    multipose: Layers
    least: float


def features(reading: Reading, guide: Pose, box: Shaped[np.ndarray, "4"]) -> Float32[np.ndarray, "17 f"]:
    """FEATURES and the joint's kind as one of nine. guide: MultiPose's pose, scores 0 if it has none.

    All in pixels of the image.
    """
    pose = reading.pose
    side = max(float((box[2:] - box[:2]).max()), 1.0)

    def apart(a: Shaped[np.ndarray, "17 _"], b: Shaped[np.ndarray, "17 _"]) -> Float32[np.ndarray, "17"]:
        return np.log(np.linalg.norm(a[:, :2] - b[:, :2], axis=1) / side + 0.01).astype(np.float32)

    score, other = _log_odds(pose[:, 2]), _log_odds(guide[:, 2])
    away = apart(pose, guide) if guide[:, 2].any() else np.full(17, np.log(0.5), np.float32)
    outside = np.maximum(box[:2] - pose[:, :2], pose[:, :2] - box[2:]).max(1) / side
    width, height = box[2:] - box[:2]
    columns = (
        score,
        apart(pose, reading.regressed),
        apart(pose, pose[_FLIP]) * _PAIRED,
        10 * outside.clip(-0.1, 0.2),
        _log_odds(np.array([reading.centre])),
        score.mean(),
        _JOINED @ score,
        other,
        away,
        other.mean(),
        away.mean(),
        _JOINED @ away,
        apart(pose, guide[_FLIP]) * _PAIRED,
        np.log(max(width, height) / max(min(width, height), 1)),
    )
    known = np.stack([np.broadcast_to(np.asarray(column, np.float32), (17,)) for column in columns], 1)
    return np.concatenate([known, np.eye(9, dtype=np.float32)[KINDS]], 1)


def confidences(reading: Reading, guide: Pose, box: Shaped[np.ndarray, "4"]) -> tuple[Pose, Pose]:
    """Thunder's pose and MultiPose's, with confidences in [0, 1]: the probability that a joint is right.

    Calibrated on people like those that the networks were fitted on; right is within a tenth of the box's longer side.
    """
    networks, known = shipped_networks(), features(reading, guide, box)
    odds = log_odds(known, networks.thunder), log_odds(known, networks.multipose)
    own, other = (
        np.column_stack([pose[:, :2], 1 / (1 + np.exp(-o))]).astype(np.float32)
        for pose, o in zip((reading.pose, guide), odds, strict=True)
    )
    return own, other


def better(own: Pose, other: Pose) -> Pose:
    """Thunder's pose or MultiPose's: the one whose joints are more likely right."""
    return other if other_is_better(own[:, 2], other[:, 2]) else own


def other_is_better(own: Float32[np.ndarray, "17"], other: Float32[np.ndarray, "17"]) -> bool:
    """Whether MultiPose's pose is to be taken, by the confidences of Thunder's pose and its own."""
    return bool(other.mean() - own.mean() > OTHER_GAIN)


def log_odds(known: Float32[np.ndarray, "*n f"], layers: Layers) -> Float32[np.ndarray, "*n"]:
    """A network's output for the features of joints: log odds that they are right."""
    hidden = np.tanh((known - layers.mean) / layers.scale @ layers.hidden.T + layers.hidden_bias)
    return hidden @ layers.out + layers.out_bias


@cache
def shipped_networks() -> Networks:
    """Raises AssetError if the file is missing."""
    values = read_json(shipped("detector/confidence.json"), error=AssetError)
    thunder, multipose = (
        Layers(*(np.asarray(values[name][part], np.float32) for part in Layers._fields))
        for name in Networks._fields[:2]
    )
    return Networks(thunder, multipose, float(values["least"]))


def _log_odds(score: Float[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    kept = np.clip(score, 0.005, 0.995)
    return np.log(kept / (1 - kept)).astype(np.float32)
