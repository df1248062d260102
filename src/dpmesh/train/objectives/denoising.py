"""The denoising objective of Eq. 1-2, for a backbone that has no released weights.

Conditions are the paper's: ct is the joint prompt, cf the heat maps through the ControlNet, both of the ground truth.

The latent of the person's crop is denoised. A model with released weights has a fixed VAE. The embedded model's
encoder has random weights, so it is trained here too, but by other terms: a small decoder, used in this stage only,
reconstructs the crop (L1), and each cell's numbers are held to a mean square of 1, for which the noise schedule is
made. The denoising loss does not reach the encoder (z_0 is detached): it would reward latents that are easy to
denoise, the same for every image.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.backbone.diffusion import DiffusionBackbone
from dpmesh.diffusion.schedule import STEPS, add_noise
from dpmesh.errors import ConfigError
from dpmesh.geometry.crop_camera import draw_heatmaps
from dpmesh.model import DPMesh
from dpmesh.train.config import Settings
from dpmesh.train.dataloader import Part, Tensors
from dpmesh.train.distributed import attention_kernels, in_bf16
from dpmesh.train.objectives.base import Group, Objective
from dpmesh.train.objectives.mesh import crop_of, true_joints
from dpmesh.train.preview import PEOPLE
from dpmesh.train.stages import PretrainStage
from dpmesh.train.validate import validation_people

TIMESTEP, NOISE = 2, 3
"""Salts of the random numbers."""


class NoiseHead(nn.Module):
    """The U-Net's last two layers, which the features do not need; diffusers' names."""

    def __init__(self, width: int, groups: int, latent_channels: int) -> None:
        super().__init__()
        self.conv_norm_out = nn.GroupNorm(groups, width)
        self.conv_out = nn.Conv2d(width, latent_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h w"]:
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class PatchDecoder(nn.Sequential):
    """From each cell of a latent and its neighbours to its 8×8 pixels."""

    def __init__(self, latent_channels: int, width: int = 64) -> None:
        super().__init__(
            nn.Conv2d(latent_channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 3 * 8 * 8, 3, padding=1),
            nn.PixelShuffle(8),
        )


class DenoisingObjective(Objective):
    """‖ε - ε_θ(z_t, t, ct, cf)‖², a mean over all numbers."""

    def __init__(self, model: DPMesh, stage: PretrainStage, settings: Settings) -> None:
        super().__init__()
        self.model, self.stage, self.settings = model, stage, settings
        backbone = model.backbone
        if not isinstance(backbone, DiffusionBackbone) or model.prompt is None or model.config.lora_rank:
            raise ConfigError(
                f"{model.config.name!r} has no U-Net whose own weights are trained",
                where=f"stage {stage.name}",
            )
        parts = (backbone.vae, backbone.unet, backbone.controlnet, backbone.added, model.prompt)
        trained = [p for part in parts if part is not None for p in part.parameters() if p.requires_grad]
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        unet = backbone.config.unet
        self.head = NoiseHead(unet.channels[0], unet.groups, unet.latent_channels)
        learns = any(p.requires_grad for p in backbone.vae.parameters())
        self.decoder = PatchDecoder(unet.latent_channels) if learns else None

    @property
    def backbone(self) -> DiffusionBackbone:
        """A part of the model."""
        assert isinstance(self.model.backbone, DiffusionBackbone)  # else it was refused
        return self.model.backbone

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        crop = crop_of(batch)
        device = crop.device.type
        bf16 = in_bf16(self.settings.precision, device)
        with attention_kernels(device), torch.autocast(device, torch.bfloat16, enabled=bf16):
            latent = self.backbone.vae(crop.contiguous(memory_format=torch.channels_last))
            joints, visible = true_joints(batch)
            terms = {"denoise": self._denoise(latent.detach().float(), joints, visible, part)}
            total = terms["denoise"]
            if self.decoder is not None:
                terms["reconstruction"] = (self.decoder(latent).float() - crop).abs().mean()
                terms["latent"] = (latent.float().square().mean(1) - 1).square().mean()
                total = total + self.stage.reconstruction_weight * terms["reconstruction"]
                total = total + self.stage.latent_weight * terms["latent"]
            return total, terms

    def _denoise(self, latent: Tensor, joints: Tensor, visible: Tensor, part: Part) -> Float[Tensor, ""]:
        count = len(latent)
        timestep = (part.chance(count, salt=TIMESTEP) * STEPS).long().to(latent.device)
        noise = part.normal(*latent.shape, salt=NOISE).to(latent)
        dirty = add_noise(latent, noise, timestep)
        assert self.model.prompt is not None
        prompt = self.model.prompt(joints, visible)
        hint = draw_heatmaps(joints, visible, size=latent.shape[-1])
        control = self.backbone.control(dirty, hint, prompt, timestep.float())
        features, _maps = self.backbone.unet(dirty, prompt, control, timestep.float())
        return F.mse_loss(self.head(features[-1]).float(), noise)

    def groups(self) -> list[Group]:
        return [Group("backbone", [p for p in self.parameters() if p.requires_grad], backbone=True)]

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """The terms on the validation people, always with the same noise; predicting no noise has denoise 1."""
        settings = self.settings
        batch = validation_people(settings.data, settings.validation_people, settings.seed)
        device = next(self.parameters()).device
        chunks = zip(*(values.to(device).split(16) for values in batch.values()), strict=True)
        parts = [self(dict(zip(batch, chunk, strict=True)), Part(0, i))[1] for i, chunk in enumerate(chunks)]
        return {
            name: round(float(torch.stack([terms[name] for terms in parts]).mean()), 4) for name in parts[0]
        }

    @torch.no_grad()
    def preview(self, batch: Tensors) -> UInt8[np.ndarray, "h w 3"] | None:
        """Crops and their reconstructions."""
        if self.decoder is None:
            return None
        crop = crop_of({"crop": batch["crop"][:PEOPLE]})
        again = self.decoder(self.backbone.vae(crop.contiguous(memory_format=torch.channels_last)))
        pairs = torch.cat([crop, again.clamp(0, 1)], dim=3).permute(0, 2, 3, 1).flatten(0, 1)
        return (pairs * 255).round().byte().cpu().numpy()

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        self.model.save_pretrained(folder, provenance)
