"""No prior at all: six numbers for each joint, regressed directly (the ablation's plainest pose head)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import rotation_from_6d, rotation_to_6d


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectConfig:
    """joints: SMPL's 1..joints; the others (21: the two hands) stay identity."""

    kind: Literal["direct"] = "direct"
    joints: int = 21

    def __post_init__(self) -> None:
        if not 0 < self.joints <= 23:
            raise ConfigError(f"joints={self.joints}: SMPL has 23 besides the root", where="DirectConfig")


class DirectPose(nn.Module):
    """The pose code is the pose: six numbers a joint, and zeros are the rest pose. It has no weights."""

    def __init__(self, config: DirectConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Numbers regressed for each person."""
        return (6 * self.config.joints,)

    def decode_latent(self, latent: Float[Tensor, "b l"]) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of joints 1..23, by Gram-Schmidt; the hands stay identity."""
        eye = torch.eye(3, device=latent.device, dtype=latent.dtype)
        numbers = latent.reshape(len(latent), self.config.joints, 6)
        body = rotation_from_6d(numbers + rotation_to_6d(eye))
        return torch.cat([body, eye.expand(len(body), 23 - self.config.joints, 3, 3)], dim=1)
