"""One interface for every pose prior: from a regressed latent to the rotations of the body's joints."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from dpmesh.pose_prior.direct import DirectConfig, DirectPose
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder
from dpmesh.pose_prior.vqvae import Mode, PoseVQVAE, PoseVQVAEConfig

PriorConfig = PoseVQVAEConfig | VPoserConfig | DirectConfig
"""Their `kind` tells them apart in a file."""


class PosePrior(Protocol):
    """What the mesh model asks of a prior. Its weights are fixed; gradients pass through."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Numbers regressed for each person."""
        ...

    def decode_latent(self, latent: Float[Tensor, "b *o"]) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of SMPL's joints 1..23, relative to their parents; the hands stay identity."""
        ...


def build_prior(config: PriorConfig, mode: Mode) -> PoseVQVAE | VPoserDecoder | DirectPose:
    """The prior of a config. mode: how tokens become a pose (PoseVQVAE.decode_latent); the others have none."""
    if isinstance(config, VPoserConfig):
        return VPoserDecoder(config)
    if isinstance(config, DirectConfig):
        return DirectPose(config)
    return PoseVQVAE(config).as_decoder(mode)
