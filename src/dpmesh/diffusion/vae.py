"""The encoder of Stable Diffusion's VAE: from an image to a latent of an eighth of its size."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.config_io import check_sizes
from dpmesh.diffusion.attention import attend
from dpmesh.diffusion.blocks import Downsample, ResnetBlock, silu
from dpmesh.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """The VAE encoder. Defaults: Stable Diffusion 1.5."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Width of each level; every level but the last halves the resolution."""
    stem_stride: Literal[1, 2] = 1
    """1: four levels, the first at full resolution. 2: three levels, the first at half resolution, for small models:
    the full-resolution level costs more than all others together."""
    mid_attention: bool = True
    """Self-attention over the cells of the coarsest level."""
    layers: int = 2
    """Residual blocks in each level."""
    groups: int = 32
    """Groups of the group norms."""
    latent_channels: int = 4
    """Channels of the latent."""
    image_range: Literal["unit", "symmetric"] = "symmetric"
    """Range of the encoder's input: [0, 1] (released DPMesh) or [-1, 1] (Stable Diffusion)."""
    latent_scale: float = 0.18215
    """Factor on the latent: 0.18215 in Stable Diffusion, 1 in the released DPMesh."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if len(self.channels) != (levels := 5 - self.stem_stride):
            raise ConfigError(
                f"channels={self.channels} must name {levels} levels",
                where="VAEConfig",
                fix="The latent is 8 times smaller.",
            )
        if any(width % self.groups for width in self.channels):
            raise ConfigError(
                f"channels={self.channels} must be multiples of groups={self.groups}", where="VAEConfig"
            )


class MidAttention(nn.Module):
    """Single-head self-attention over the cells of the coarsest map."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (layer(tokens)[:, None] for layer in (self.to_q, self.to_k, self.to_v))  # (b, 1, n, c)
        attended = attend(q, k, v)[:, 0]
        return x + self.to_out[0](attended).transpose(1, 2).unflatten(2, x.shape[-2:])


class DownBlock(nn.Module):
    """Residual blocks and downsampling."""

    def __init__(self, inward: int, outward: int, config: VAEConfig, *, downsample: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(inward if i == 0 else outward, outward, config.groups, eps=1e-6)
            for i in range(config.layers)
        )
        self.downsamplers = nn.ModuleList([Downsample(outward, one_sided=True)] if downsample else [])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class MidBlock(nn.Module):
    """Residual block, optional attention, residual block."""

    def __init__(self, width: int, groups: int, *, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups, eps=1e-6) for _ in range(2))
        self.attentions = nn.ModuleList([MidAttention(width, groups)] if attention else [])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        for layer in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Image to mean and log variance of the latent, concatenated, before the last 1×1 convolution."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.channels
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1, stride=config.stem_stride)
        self.down_blocks = nn.ModuleList(
            DownBlock(widths[max(i - 1, 0)], width, config, downsample=i < len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], config.groups, attention=config.mid_attention)
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b z h8 w8"]:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(silu(self.conv_norm_out(self.mid_block(x))))


class VAEEncoder(nn.Module):
    """Image to latent: the mean of the posterior, without sampling."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)

    def forward(self, crop: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b z h8 w8"]:
        """The scaled latent. crop: RGB in [0, 1]."""
        image = crop * 2 - 1 if self.config.image_range == "symmetric" else crop
        mean, _log_variance = self.quant_conv(self.encoder(image)).chunk(2, dim=1)
        return mean * self.config.latent_scale
