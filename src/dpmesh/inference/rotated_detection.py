"""A second look at people who lean, lie or hang: the pose model has mostly seen upright people.

Where the first pose's trunk is far from upright, the same window is shown again, turned so that the trunk stands. The
second pose is taken only where it is the same person's and the model is surer of it.
"""

import numpy as np
from jaxtyping import Float, Float32

from dpmesh.geometry.crop import Crop
from dpmesh.skeletons import COCO17

LEAN, STEP = 20.0, 15.0
"""Degrees off the picture's vertical from which on a second look is worth its time, and its rounding: in steps, so
that the next frame of a video gives the same turn."""
SURER, NEAR, TOLD = 0.05, 0.04, 0.2
"""The second pose must be surer by so much (mean confidence); its trunk at most so far away (of the window's side);
confidence that the first trunk's joints must have."""
_TRUNK = np.array([COCO17.index(f"{side}_{part}") for part in ("Shoulder", "Hip") for side in "LR"])

Pose = Float32[np.ndarray, "17 3"]


def lean(pose: Pose) -> float:
    """Degrees clockwise from the picture's up to the trunk (hips to shoulders), in STEPs.

    0 where a second look is not worth it: nearly upright, or a joint of the trunk not seen.
    """
    trunk = pose[_TRUNK]
    if (trunk[:, 2] < TOLD).any():
        return 0.0
    x, y = trunk[:2, :2].mean(0) - trunk[2:, :2].mean(0)
    angle = float(np.rad2deg(np.arctan2(x, -y)))
    return STEP * float(np.round(angle / STEP)) if abs(angle) >= LEAN else 0.0


def turned_window(crop: Crop, degrees: float) -> Float[np.ndarray, "2 3"]:
    """Affine map from the pixels of the window to the picture's: what leans `degrees` clockwise stands in it."""
    t, middle = np.deg2rad(degrees), (Crop.SIZE - 1) / 2
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    start = crop.to_image(np.full(2, middle)) - turn @ np.full(2, middle) / crop.scale
    return np.column_stack([turn / crop.scale, start])


def surer(first: Pose, seconds: Float32[np.ndarray, "n 17 3"], side: float) -> Pose | None:
    """Of the second look's poses (picture's pixels) the one whose trunk is nearest the first's, if it is better.

    side: of the window, px.
    """
    off = np.linalg.norm(seconds[:, _TRUNK, :2] - first[_TRUNK, :2], axis=-1).mean(1)
    best = int(off.argmin())
    better = seconds[best, :, 2].mean() >= first[:, 2].mean() + SURER
    return seconds[best] if better and off[best] <= NEAR * side else None
