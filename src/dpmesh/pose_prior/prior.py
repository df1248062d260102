"""One interface for every pose prior: from a regressed latent to the rotations of the body's joints."""

from dpmesh.pose_prior.direct import DirectConfig, DirectPose
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder
from dpmesh.pose_prior.vqvae import Mode, PoseVQVAE, PoseVQVAEConfig

PriorConfig = PoseVQVAEConfig | VPoserConfig | DirectConfig
"""Their `kind` tells them apart in a file."""


def build_prior(config: PriorConfig, mode: Mode) -> PoseVQVAE | VPoserDecoder | DirectPose:
    """The prior of a config. mode: how tokens become a pose (PoseVQVAE.decode_latent); the others have none.

    Each has `latent_shape`, the shape of what is regressed for a person, and `decode_latent`, which makes of it
    (b, *latent_shape) the rotations (b, 23, 3, 3) of SMPL's joints 1..23, relative to their parents; the hands stay
    identity. Their weights are fixed; gradients pass through.
    """
    if isinstance(config, VPoserConfig):
        return VPoserDecoder(config)
    if isinstance(config, DirectConfig):
        return DirectPose(config)
    return PoseVQVAE(config).as_decoder(mode)
