"""The output of a backbone: the fused feature map, attention maps, and joints read off the maps."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.geometry import CROP


@dataclass(frozen=True)
class JointReadings:
    """Joint positions, depths and the body surface read off the feature maps (joint_reading.py). Not in the paper."""

    scores: Float[Tensor, "b j s s"]
    """Logits over the cells of the map, for each joint."""
    positions: Float[Tensor, "b j 3"]
    """x and y in crop pixels, z in metres behind the pelvis."""
    confidence: Float[Tensor, "b j"]
    """Sum of the squared probabilities of the cells, in (0, 1]; 1 where all probability is on one cell."""
    surface: Float[Tensor, "b 26 s s"]
    """For each cell 25 logits (background, or the SMPL joint that moves the surface there), then the depth in metres
    behind the pelvis. Only the loss uses it."""

    def masked(self, weight: Float[Tensor, " b"]) -> "JointReadings":
        """Positions and confidence times a factor for each sample; with 0 no joint counts as read."""
        return JointReadings(
            self.scores,
            self.positions * weight[:, None, None],
            self.confidence * weight[:, None],
            self.surface,
        )

    def summary(self) -> Float[Tensor, "b j 4"]:
        """Input of the regressor: x and y as fractions of the crop, z in metres, confidence."""
        coordinates = [self.positions[..., :2] / CROP, self.positions[..., 2:]]
        return torch.cat([*coordinates, self.confidence[..., None]], dim=-1)


@dataclass(frozen=True)
class Features:
    """What the regressor gets from a backbone."""

    fused: Float[Tensor, "b c 8 8"]
    """The fused feature map."""
    maps: dict[int, Tensor]
    """Size -> cross-attention map (b, joints, size, size): the attention of each cell to each joint's prompt token.
    Empty without cross-attention."""
    readings: JointReadings | None = None
    """Joints read off the maps; None for a backbone without that head."""

    def masked(self, weight: Float[Tensor, " b"]) -> "Features":
        """Fused map and readings times a factor for each sample; 0 removes the image. Attention maps stay."""
        readings = None if self.readings is None else self.readings.masked(weight)
        return Features(self.fused * weight[:, None, None, None], self.maps, readings)
