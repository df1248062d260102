"""The paper's backbone: one step of a text-to-image U-Net, controlled by keypoints (Figure 3a)."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.backbone.reading import JointReading, JointsRead
from dpmesh.diffusion.controlnet import ControlNet
from dpmesh.diffusion.unet import UNet, UNetConfig
from dpmesh.diffusion.vae import VAEConfig, VAEEncoder
from dpmesh.geometry.heatmap import draw_heatmaps


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """joints: heatmap channels and prompt tokens. fused_channels: width of the 8×8 map for the regressor.

    reading: also read joints off the finest map (reading.py). Not in the paper.
    """

    joints: int = 30
    vae: VAEConfig = field(default_factory=VAEConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    fused_channels: int = 2048
    fused_groups: int = 16
    reading: bool = False


@dataclass(frozen=True)
class Features:
    """fused: (b, C, 8, 8). maps: size -> (b, joints, size, size), how strongly each cell looks at each joint.

    read: joints read off the finest map, if the backbone does that.
    """

    fused: Tensor
    maps: dict[int, Tensor]
    read: JointsRead | None = None

    def times(self, felt: Float[Tensor, " b"]) -> "Features":
        """The features of each person times a factor: with 0 the picture might not be there."""
        read = None if self.read is None else self.read.times(felt)
        return Features(self.fused * felt[:, None, None, None], self.maps, read)


class Fusion(nn.Module):
    """Features of 4, 8, 16 and 32 cells with the attention maps of 8 and 16, brought to one 8×8 map."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        fine, medium, coarse, coarsest = config.unet.channels
        groups, with_maps = config.fused_groups, medium + config.joints
        finest_maps = config.joints if 32 in config.unet.map_sizes else 0
        self.from_32 = nn.Sequential(
            nn.Conv2d(fine + finest_maps, fine, 3, stride=2, padding=1),
            nn.GroupNorm(groups, fine),
            nn.ReLU(),
            nn.Conv2d(fine, fine, 3, stride=2, padding=1),
        )
        self.from_16 = nn.Conv2d(with_maps, with_maps, 3, stride=2, padding=1)
        joined = fine + with_maps + coarse + config.joints + coarsest
        self.mix = nn.Sequential(
            nn.Conv2d(joined, config.fused_channels, 1),
            nn.GroupNorm(groups, config.fused_channels),
            nn.ReLU(),
        )

    def forward(self, features: list[Tensor], maps: dict[int, Tensor]) -> Float[Tensor, "b c 8 8"]:
        at_4, at_8, at_16, at_32 = features
        if 32 in maps:
            at_32 = torch.cat([at_32, maps[32]], dim=1)
        return self.mix(
            torch.cat(
                [
                    self.from_32(at_32),
                    self.from_16(torch.cat([at_16, maps[16]], dim=1)),
                    torch.cat([at_8, maps[8]], dim=1),
                    F.interpolate(at_4, scale_factor=2.0, mode="nearest"),
                ],
                dim=1,
            )
        )


class DiffusionBackbone(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.vae = VAEEncoder(config.vae)
        self.controlnet = ControlNet(config.unet, config.joints)
        self.unet = UNet(config.unet)
        self.fusion = Fusion(config)
        unet = config.unet
        self.reading = (
            JointReading(unet.channels, unet.latent_channels, config.joints, unet.groups)
            if config.reading
            else None
        )

    def forward(
        self,
        crop: Float[Tensor, "b 3 256 256"],
        joints: Float[Tensor, "b j 2"],
        visible: Float[Tensor, "b j"],
        prompt: Float[Tensor, "b j d"],
    ) -> Features:
        latent = self.vae(crop.contiguous(memory_format=torch.channels_last))  # (b, 4, 32, 32)
        hint = draw_heatmaps(joints, visible, size=latent.shape[-1])  # (b, 30, 32, 32)
        control = self.controlnet(latent, hint, prompt)
        features, maps = self.unet(latent, prompt, control)
        read = None if self.reading is None else self.reading(features, latent)
        return Features(self.fusion(features, maps), maps, read)
