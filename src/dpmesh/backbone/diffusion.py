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
from dpmesh.geometry.heatmap import draw_heatmaps

Conditions = Literal["z0", "z0+cj", "z0+cj_added", "z0+cj+ct"]
"""What the U-Net is told besides the picture z0 (paper, Table 4). cj: the heatmaps, through a ControlNet; `added` to
the latent that it reads instead of concatenated with it. ct: the joints' coordinates, as prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """joints: heatmap channels and prompt tokens. fused_channels: width of the 8×8 map for the regressor.

    conditions: all of them in the paper's model; fewer are its ablation (docs/ablations.md).
    reading: also read joints off the maps (joint_reading.py). Not in the paper. read_from: the U-Net's own maps down to
    the finest, or the fused one, which other backbones have too.
    """

    kind: Literal["diffusion"] = "diffusion"
    joints: int = 30
    vae: VAEConfig = field(default_factory=VAEConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    fused_channels: int = 2048
    fused_groups: int = 16
    conditions: Conditions = "z0+cj+ct"
    reading: bool = False
    read_from: Literal["finest", "fused"] = "finest"

    def __post_init__(self) -> None:
        check_sizes(self)

    @property
    def controlled(self) -> bool:
        """Whether there is a ControlNet."""
        return self.conditions != "z0"

    @property
    def prompted(self) -> bool:
        """Whether the prompt tells where the joints are."""
        return self.conditions == "z0+cj+ct"


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


class AddedHeatmaps(nn.Module):
    """Heatmaps through convolutions to the latent's channels, added to it: z0 + cj_added of Table 4.

    Added to the latent and not, as in the first ControlNet, behind the first convolution: a convolution of the
    concatenation is the sum of two convolutions, so there it would be the concatenation once more. The last one
    starts at zero, as ControlNet's does.
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
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.vae = VAEEncoder(config.vae)
        self.added = (
            AddedHeatmaps(config.joints, config.unet.latent_channels)
            if config.conditions == "z0+cj_added"
            else None
        )
        beside = config.joints if self.added is None else 0  # heatmaps concatenated with the latent
        self.controlnet = ControlNet(config.unet, beside) if config.controlled else None
        self.unet = UNet(config.unet)
        self.fusion = Fusion(config)
        unet = config.unet
        self.reading = None
        if config.reading and config.read_from == "finest":
            self.reading = JointReading(unet.channels, unet.latent_channels, config.joints, unet.groups)
        elif config.reading:
            self.reading = FusedReading(config.fused_channels, config.joints, config.fused_groups)

    def forward(
        self,
        crop: Float[Tensor, "b 3 256 256"],
        joints: Float[Tensor, "b j 2"],
        visible: Float[Tensor, "b j"],
        prompt: Float[Tensor, "b j d"],
        latent: Float[Tensor, "b z h w"] | None = None,
    ) -> Features:
        """latent: what `encode` makes of the crop, where it has been made already."""
        latent = self.encode(crop) if latent is None else latent  # (b, 4, 32, 32)
        size = int(latent.shape[-1])  # int: in a trace, sizes are tensors
        hint = draw_heatmaps(joints, visible, size=size)  # (b, 30, 32, 32)
        control = self.control(latent, hint, prompt)
        features, maps = self.unet(latent, prompt, control)
        fused = self.fusion(features, maps)
        if isinstance(self.reading, JointReading):
            return Features(fused, maps, self.reading(features, latent))
        return Features(fused, maps, None if self.reading is None else self.reading(fused))

    def encode(self, crop: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b z h w"]:
        """The latent z0."""
        return self.vae(crop.contiguous(memory_format=torch.channels_last))

    def control(
        self,
        latent: Float[Tensor, "b z h w"],
        hint: Float[Tensor, "b j h w"],
        prompt: Float[Tensor, "b j d"],
        timestep: Float[Tensor, " b"] | None = None,
    ) -> list[Tensor]:
        """One residual for each skip connection and the middle, by the conditions; zeros without a ControlNet.
        timestep: as UNet.forward."""
        if self.controlnet is None:
            return [latent.new_zeros(())] * (len(self.unet.skip_widths) + 1)
        if self.added is not None:
            latent, hint = self.added(latent, hint), hint[:, :0]
        # By keyword: what goes in by place is cast where the ControlNet runs in another type (precision.py).
        return self.controlnet(latent, hint, prompt, timestep=timestep)
