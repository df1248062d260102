"""The paper's backbone: one step of a text-to-image U-Net, controlled by keypoints (Figure 3a)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.backbone.features import Features
from dpmesh.backbone.joint_reading import FusedReading, JointReading
from dpmesh.config_io import check_sizes
from dpmesh.diffusion.controlnet import ControlNet, zero_convolution
from dpmesh.diffusion.unet import UNet, UNetConfig
from dpmesh.diffusion.vae import VAEConfig, VAEEncoder
from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import draw_heatmaps

LATENT = CROP // 8
"""Cells of the VAE latent along a side."""

Conditions = Literal["z0", "z0+cj", "z0+cj_added", "z0+cj+ct"]
"""Inputs of the U-Net (paper, Table 4). z0: the image latent. cj: the keypoint heatmaps through a ControlNet, which
reads them concatenated with the latent (`added`: added to it). ct: the joint coordinates as prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The diffusion backbone."""

    kind: Literal["diffusion"] = "diffusion"
    """Distinguishes the backbones in a config file."""
    joints: int = 30
    """Heatmap channels and prompt tokens."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """The image encoder."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    """The U-Net, and the encoder half that the ControlNet copies."""
    fused_channels: int = 2048
    """Channels of the fused 8×8 map."""
    fused_groups: int = 16
    """Groups of the group norms of the fusion."""
    conditions: Conditions = "z0+cj+ct"
    """Inputs of the U-Net; all of them in the paper's model, fewer in its ablation."""
    reading: bool = False
    """Also read joints off the maps (joint_reading.py). Not in the paper."""
    read_from: Literal["finest", "fused"] = "finest"
    """Maps that joints are read off: the U-Net's own down to the finest, or the fused one."""

    def __post_init__(self) -> None:
        check_sizes(self)

    @property
    def controlled(self) -> bool:
        """Whether there is a ControlNet."""
        return self.conditions != "z0"

    @property
    def prompted(self) -> bool:
        """Whether the prompt holds the joint coordinates."""
        return self.conditions == "z0+cj+ct"


class Fusion(nn.Module):
    """U-Net features of 4, 8, 16 and 32 cells, and the attention maps of 8 and 16, fused to one 8×8 map."""

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
        """features, maps: as UNet.forward returns them."""
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


class AddedHeatmaps(nn.Module):
    """Heatmaps through convolutions to the latent's channels, added to the latent: z0+cj_added of Table 4.

    The original ControlNet adds its condition after the first convolution. Here that would equal the concatenation,
    because a convolution of a concatenation is a sum of two convolutions. The last layer starts at zero, as in
    ControlNet.
    """

    def __init__(self, joints: int, latent_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(joints, joints, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(joints, latent_channels, 3, padding=1),
            nn.SiLU(),
            zero_convolution(latent_channels),
        )

    def forward(
        self, latent: Float[Tensor, "b z h w"], hint: Float[Tensor, "b j h w"]
    ) -> Float[Tensor, "b z h w"]:
        return latent + self.layers(hint)


class DiffusionBackbone(nn.Module):
    """VAE encoder, ControlNet and U-Net; `encode`, `draw_heatmaps`, then `forward`."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.vae = VAEEncoder(config.vae)
        self.added = (
            AddedHeatmaps(config.joints, config.unet.latent_channels)
            if config.conditions == "z0+cj_added"
            else None
        )
        hint_channels = config.joints if self.added is None else 0  # heatmaps concatenated with the latent
        self.controlnet = ControlNet(config.unet, hint_channels) if config.controlled else None
        self.unet = UNet(config.unet)
        self.fusion = Fusion(config)
        unet = config.unet
        self.reading = None
        if config.reading and config.read_from == "finest":
            self.reading = JointReading(unet.channels, unet.latent_channels, config.joints, unet.groups)
        elif config.reading:
            self.reading = FusedReading(config.fused_channels, config.joints, config.fused_groups)

    def encode(self, crop: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b z 32 32"]:
        """The image latent z0. crop: RGB in [0, 1]."""
        return self.vae(crop.contiguous(memory_format=torch.channels_last))

    def draw_heatmaps(
        self, joints: Float[Tensor, "b j 2"], visible: Float[Tensor, "b j"]
    ) -> Float[Tensor, "b j 32 32"]:
        """The joints as heatmaps of the latent's size. joints: crop pixels. visible: 0 leaves a heatmap empty."""
        return draw_heatmaps(joints, visible, size=LATENT)

    def forward(
        self,
        latent: Float[Tensor, "b z 32 32"],
        hint: Float[Tensor, "b j 32 32"],
        prompt: Float[Tensor, "b j d"],
    ) -> Features:
        """One U-Net step under control: latent, heatmaps and prompt to the fused map and the attention maps."""
        control = self.control(latent, hint, prompt)
        features, maps = self.unet(latent, prompt, control)
        fused = self.fusion(features, maps)
        if isinstance(self.reading, JointReading):
            return Features(fused, maps, self.reading(features, latent))
        return Features(fused, maps, None if self.reading is None else self.reading(fused))

    def control(
        self,
        latent: Float[Tensor, "b z 32 32"],
        hint: Float[Tensor, "b j 32 32"],
        prompt: Float[Tensor, "b j d"],
        timestep: Float[Tensor, " b"] | None = None,
    ) -> list[Tensor]:
        """The ControlNet's residuals: one for each skip connection, the last one for the middle (Eq. 5). Zeros without
        a ControlNet. timestep: as UNet.forward."""
        if self.controlnet is None:
            return [latent.new_zeros(())] * (len(self.unet.skip_widths) + 1)
        if self.added is not None:
            latent, hint = self.added(latent, hint), hint[:, :0]
        # By keyword: positional arguments are cast where the ControlNet runs in another type (device.cast_module).
        return self.controlnet(latent, hint, prompt, timestep=timestep)
