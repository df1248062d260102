"""The interface of all pose priors, the prior that is none, and `build_prior`."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import rotation_from_6d, rotation_to_6d
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder
from dpmesh.pose_prior.vqvae import Mode, PoseVQVAE, PoseVQVAEConfig


class PosePrior(Protocol):
    """From a regressed latent to the rotations of the body's joints. Weights are fixed; gradients pass through."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one person."""
        ...

    def decode_latent(self, latent: Float[Tensor, "b *l"]) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of SMPL's joints 1 to 23 relative to their parents; the hands stay identity."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectConfig:
    """No pose prior."""

    kind: Literal["direct"] = "direct"
    """Distinguishes the priors in a config file."""
    joints: int = 21
    """Joints 1 to `joints` are regressed; the others (the hands, for 21) stay identity."""

    def __post_init__(self) -> None:
        if not 0 < self.joints <= 23:
            raise ConfigError(f"joints={self.joints}: SMPL has 23 besides the root", where="DirectConfig")


class DirectPose(nn.Module):
    """Six numbers for each joint, regressed directly; zeros are the rest pose. No weights."""

    def __init__(self, config: DirectConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one person."""
        return (6 * self.config.joints,)

    def decode_latent(self, latent: Float[Tensor, "b l"]) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of joints 1 to 23, by Gram-Schmidt."""
        eye = torch.eye(3, device=latent.device, dtype=latent.dtype)
        numbers = latent.reshape(len(latent), self.config.joints, 6)
        body = rotation_from_6d(numbers + rotation_to_6d(eye))
        return torch.cat([body, eye.expand(len(body), 23 - self.config.joints, 3, 3)], dim=1)


PriorConfig = PoseVQVAEConfig | VPoserConfig | DirectConfig
"""Configs of the priors; `kind` distinguishes them in a file."""


def build_prior(config: PriorConfig, mode: Mode) -> PoseVQVAE | VPoserDecoder | DirectPose:
    """The prior of a config. mode: of a VQ-VAE (PoseVQVAE.decode_latent); ignored by the others."""
    if isinstance(config, VPoserConfig):
        return VPoserDecoder(config)
    if isinstance(config, DirectConfig):
        return DirectPose(config)
    return PoseVQVAE(config).as_decoder(mode)
