"""The stage that trains a VPoser-like pose prior: a variational auto-encoder of whole poses.

VPoser's own weights are licensed. For an ablation of pose heads on our own data (Table 4's question) its decoder is
trained here, on the poses that the VQ-VAE was trained on, in the manner of its paper (Pavlakos et al., CVPR 2019,
section 3.3): two layers of 512 to a mean and a spread of 32 numbers, and back.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.pose_prior.files import save_prior
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder
from dpmesh.train.dataloader import Part, Tensors
from dpmesh.train.objectives.base import Group, Objective
from dpmesh.train.objectives.vqvae import (
    body_rotations,
    forward_kinematics,
    poses_record,
    rest_joints,
    validation_poses,
)
from dpmesh.train.stages import PriorStage

DRAW = 4
"""Salt of the draw from the encoder's distribution."""


class VAEObjective(Objective):
    """Rotations and joints of poses reconstructed from a sampled latent, and the Kullback-Leibler divergence of the
    latent from a unit normal distribution."""

    mixed = False
    rest: Tensor

    def __init__(self, config: VPoserConfig, stage: PriorStage) -> None:
        super().__init__()
        self.config, self.stage = config, stage
        self.held_out = validation_poses(stage)
        width, numbers = config.hidden, 9 * config.joints
        self.encoder = nn.Sequential(
            nn.Linear(numbers, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 2 * config.latent),
        )
        self.decoder = VPoserDecoder(config).requires_grad_(True)
        self.register_buffer("rest", rest_joints(), persistent=False)

    def encode(self, rotations: Float[Tensor, "b 23 3 3"]) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, (b, latent) each."""
        mean, spread = self.encoder(rotations[:, : self.config.joints].flatten(1)).chunk(2, 1)
        return mean, spread

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: "pose" (b, 24, 3) axis-angle."""
        target = rotation_matrix(batch["pose"][:, 1:])
        mean, spread = self.encode(target)
        noise = part.normal(*mean.shape, salt=DRAW).to(mean)
        rotations = self.decoder.decode_latent(mean + noise * (spread / 2).exp())
        turned = (rotations - target).square().sum((-1, -2)).mean()
        error = _off(rotations, target, self.rest).mean()
        apart = (mean.square() + spread.exp() - spread - 1).sum(1).mean() / 2
        loss = turned + self.stage.joints_weight * error + self.stage.kl_weight * apart
        return loss, {"rotations": turned, "joints_mm": error * 1000, "kl": apart}

    def groups(self) -> list[Group]:
        return [Group("prior", list(self.parameters()))]

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Error of poses reconstructed from the mean latent: mm over 24 joints relative to the pelvis."""
        if (bank := self.held_out) is None:
            return {}
        errors: list[Tensor] = []
        for rotations in body_rotations(bank.poses).to(self.rest.device).split(512):
            again = self.decoder.decode_latent(self.encode(rotations)[0])
            errors.append(_off(again, rotations, self.rest).mean(-1) * 1000)
        return {"mpjpe_mm": round(float(torch.cat(errors).mean()), 4), "frames": float(len(bank))}

    def preview(self, batch: Tensors) -> None:
        return None

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """The decoder alone: no model encodes a pose."""
        origin = {**provenance, "poses": poses_record(self.stage), "validation": self.figures()}
        save_prior(self.decoder, folder, origin)


def _off(a: Float[Tensor, "b 23 3 3"], b: Float[Tensor, "b 23 3 3"], rest: Tensor) -> Float[Tensor, "b 24"]:
    return (forward_kinematics(a, rest) - forward_kinematics(b, rest)).norm(dim=-1)
