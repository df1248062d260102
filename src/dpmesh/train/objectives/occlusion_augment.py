"""Occlusion augmentation: a box over the crop, and the keypoints under it dropped.

From it the uncertainty learns that a covered joint is less certain. Sizes, positions and surfaces vary; a grey box as
in evaluate/robustness/corruptions.py is one of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpmesh.geometry import CROP

SIDES = (0.1, 0.6)
"""Least and greatest side of a box, as shares of the crop's; log-uniform."""
TWICE = 0.25
"""Share of the people with a second box."""
DROPPED = 0.25
"""Share of the people of whose other visible joints up to half are dropped."""
_SURFACES = ("grey", "colour", "noise", "another")


@dataclass(frozen=True)
class Hidden:
    """crop, visible: after the augmentation. under: joints that were visible and are now under a box, their keypoint
    dropped."""

    crop: Float[Tensor, "b 3 256 256"]
    visible: Float[Tensor, "b 30"]
    under: Bool[Tensor, "b 30"]


def hide(
    rng: np.random.Generator,
    crop: Float[Tensor, "b 3 256 256"],
    joints: Float[Tensor, "b 30 2"],
    visible: Float[Tensor, "b 30"],
) -> Hidden:
    """The same people with a box or two about visible joints of each (anywhere, where none is visible).

    joints: the model's input, crop pixels; crop: RGB in [0, 1].
    """
    covered, left = crop.clone(), visible.clone()
    under = torch.zeros_like(visible, dtype=torch.bool)
    for row in range(len(crop)):
        for _ in range(1 + int(rng.random() < TWICE)):
            x1, y1, x2, y2 = _box(rng, joints[row], visible[row])
            covered[row, :, y1:y2, x1:x2] = _surface(rng, crop, row, (y1, y2, x1, x2)).to(crop)
            low, high = (torch.tensor(c, device=joints.device) for c in ((x1, y1), (x2, y2)))
            inside = ((joints[row] >= low) & (joints[row] < high)).all(-1)
            under[row] |= inside & (visible[row] > 0)
    left[under] = 0
    return Hidden(covered, drop(rng, left), under)


def drop(rng: np.random.Generator, visible: Float[Tensor, "b 30"]) -> Float[Tensor, "b 30"]:
    """Drop up to half of the visible joints of some people."""
    people, joints = visible.shape
    share = rng.uniform(0, 0.5, (people, 1)) * (rng.random((people, 1)) < DROPPED)
    kept = torch.from_numpy(rng.random((people, joints)) >= share)
    return visible * kept.to(visible)


def _box(rng: np.random.Generator, joints: Tensor, visible: Tensor) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2, whole crop pixels inside the crop, at least one pixel each way."""
    rows = torch.nonzero(visible > 0)[:, 0].tolist()
    middle = rng.uniform(0, CROP, 2)
    side = CROP * np.exp(rng.uniform(*np.log(SIDES)))
    ratio = np.exp(rng.normal(0, 0.25))
    size = np.array([side * ratio, side / ratio])
    if rows:  # mostly about the joint, sometimes with it at the rim
        middle = joints[rows[rng.integers(len(rows))]].cpu().numpy() + rng.uniform(-0.35, 0.35, 2) * size
    low = np.clip(np.rint(middle - size / 2), 0, CROP - 1).astype(int)
    high = np.clip(np.rint(middle + size / 2), low + 1, CROP).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _surface(rng: np.random.Generator, crop: Tensor, row: int, box: tuple[int, int, int, int]) -> Tensor:
    """(3, h, w) or what broadcasts to it: grey as often as the three others together."""
    y1, y2, x1, x2 = box
    what = rng.choice(_SURFACES, p=(0.5, 0.15, 0.15, 0.2))
    if what == "grey":
        return torch.full((3, 1, 1), 128 / 255)
    if what == "colour":
        return torch.from_numpy(rng.random((3, 1, 1)))
    if what == "noise":
        return torch.from_numpy(rng.random((3, y2 - y1, x2 - x1)))
    return crop[(row + 1) % len(crop), :, y1:y2, x1:x2]  # the next person's image
