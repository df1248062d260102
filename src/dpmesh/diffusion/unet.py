"""Stable Diffusion's U-Net, run for one step at a constant timestep, as an image backbone.

It returns feature maps and cross-attention maps, not noise. Names equal diffusers' `UNet2DConditionModel`.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.config_io import check_sizes
from dpmesh.diffusion.attention import Transformer2D
from dpmesh.diffusion.blocks import Downsample, ResnetBlock, TimeEmbedding, Upsample
from dpmesh.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """The U-Net, and the encoder half that the ControlNet copies. Defaults: Stable Diffusion 1.5."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each of the four levels, the finest (32×32) first."""
    attention: tuple[bool, ...] = (True, True, True, False)
    """Levels with transformer blocks."""
    layers: int = 2
    """Residual blocks in each level of the down path; the up path has one more."""
    groups: int = 32
    """Groups of the group norms."""
    heads: int = 8
    """Attention heads."""
    latent_channels: int = 4
    """Channels of the VAE latent."""
    context_width: int = 768
    """Width of the prompt tokens."""
    timestep: int = 1
    """The constant timestep."""
    map_sizes: tuple[int, ...] = (8, 16)
    """Resolutions whose cross-attention maps are returned."""

    def __post_init__(self) -> None:
        check_sizes(self, ("timestep",))
        if len(self.channels) != 4 or len(self.attention) != 4:
            raise ConfigError(
                f"channels={self.channels} and attention={self.attention} must name 4 levels",
                where="UNetConfig",
            )
        for divisor in (self.groups, self.heads):
            if any(width % divisor for width in self.channels):
                raise ConfigError(
                    f"channels={self.channels} must be multiples of {divisor} (groups, heads)",
                    where="UNetConfig",
                )

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0]


@dataclass
class MapStore:
    """Collects the cross-attention maps of some resolutions (`sizes`) during one forward pass."""

    sizes: tuple[int, ...]
    maps: dict[int, list[Tensor]] = field(default_factory=lambda: {})

    def collects(self, x: Tensor) -> bool:
        """Whether the attention maps of this resolution are collected."""
        return int(x.shape[-1]) in self.sizes  # int: in a trace, sizes are tensors

    def add(self, attention_map: Tensor | None) -> None:
        """Store a map (b, tokens, size, size); None is ignored."""
        if attention_map is not None:
            self.maps.setdefault(int(attention_map.shape[-1]), []).append(attention_map)

    def mean(self) -> dict[int, Tensor]:
        """Size -> (b, tokens, size, size), averaged over all layers of that resolution."""
        return {size: torch.stack(maps).mean(0) for size, maps in self.maps.items()}


class DownBlock(nn.Module):
    """A level of the down path: residual blocks, each with an optional transformer, and downsampling."""

    def __init__(
        self, inward: int, outward: int, config: UNetConfig, *, attention: bool, downsample: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(inward if i == 0 else outward, outward, config.groups, config.time_width)
            for i in range(config.layers)
        )
        count = config.layers if attention else 0
        self.attentions = nn.ModuleList(
            Transformer2D(outward, config.heads, config.context_width, config.groups) for _ in range(count)
        )
        self.downsamplers = nn.ModuleList([Downsample(outward)] if downsample else [])

    def forward(
        self, x: Tensor, time: Tensor | None, context: Tensor, store: MapStore
    ) -> tuple[Tensor, list[Tensor]]:
        """The last feature map, and all feature maps for the skip connections."""
        skips: list[Tensor] = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if len(self.attentions):
                x, attention_map = self.attentions[i](x, context, store.collects(x))
                store.add(attention_map)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    """The middle: residual block, transformer, residual block."""

    def __init__(self, width: int, config: UNetConfig) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(width, width, config.groups, config.time_width) for _ in range(2)
        )
        self.attentions = nn.ModuleList(
            [Transformer2D(width, config.heads, config.context_width, config.groups)]
        )

    def forward(self, x: Tensor, time: Tensor | None, context: Tensor) -> Tensor:
        x, _ = self.attentions[0](self.resnets[0](x, time), context)
        return self.resnets[1](x, time)


class UpBlock(nn.Module):
    """A level of the up path: residual blocks on concatenated skips, optional transformers, and upsampling."""

    def __init__(
        self,
        inward: int,
        outward: int,
        skips: tuple[int, ...],
        config: UNetConfig,
        *,
        attention: bool,
        upsample: bool,
    ) -> None:
        """skips: width of each skip connection, in the order in which they are consumed."""
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock((inward if i == 0 else outward) + skip, outward, config.groups, config.time_width)
            for i, skip in enumerate(skips)
        )
        count = len(skips) if attention else 0
        self.attentions = nn.ModuleList(
            Transformer2D(outward, config.heads, config.context_width, config.groups) for _ in range(count)
        )
        self.upsamplers = nn.ModuleList([Upsample(outward)] if upsample else [])

    def forward(
        self, x: Tensor, skips: list[Tensor], time: Tensor | None, context: Tensor, store: MapStore
    ) -> tuple[Tensor, list[Tensor]]:
        """The block's output and the output of each of its layers; pops its skips off the end of `skips`."""
        outputs: list[Tensor] = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), time)
            if len(self.attentions):
                x, attention_map = self.attentions[i](x, context, store.collects(x))
                store.add(attention_map)
            outputs.append(x)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x, outputs


class EncoderHalf(nn.Module):
    """The U-Net down to the middle, which the ControlNet copies. in_channels: of its input."""

    def __init__(self, config: UNetConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        widths, last = config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.time_embedding: TimeEmbedding | None = TimeEmbedding(widths[0], config.time_width)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(i - 1, 0)], width, config, attention=config.attention[i], downsample=i < last
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], config)

    @property
    def skip_widths(self) -> list[int]:
        """Width of each skip connection, in the order of the down path."""
        last = len(self.config.channels) - 1
        widths = [self.config.channels[0]]
        for i, width in enumerate(self.config.channels):
            widths += [width] * (self.config.layers + (i < last))
        return widths

    def time(self, timestep: Float[Tensor, " n"] | None = None) -> Float[Tensor, "n t"] | None:
        """SiLU of the embedded timestep: one row for each sample, or a single row of the constant timestep without the
        argument. None after `fold_time`."""
        if self.time_embedding is None:
            return None
        if timestep is None:
            timestep = torch.full((1,), float(self.config.timestep), device=self.conv_in.weight.device)
        return F.silu(self.time_embedding(timestep))

    def fold_time(self) -> None:
        """Fold the embedding of the constant timestep into a bias of each residual block, and remove its MLP."""
        if (time := self.time()) is not None:
            for block in self.modules():
                if isinstance(block, ResnetBlock):
                    block.fold_time(time)
            self.time_embedding = None

    def encode(
        self, x: Tensor, time: Tensor | None, context: Tensor, store: MapStore
    ) -> tuple[Tensor, list[Tensor]]:
        """The output of the middle block and the skip connections. time: as `time` returns it. context: the prompt."""
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x, outputs = block(x, time, context, store)
            skips += outputs
        return self.mid_block(x, time, context), skips


class UNet(EncoderHalf):
    """Latent, prompt and control residuals in; feature maps of every level and attention maps out."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, config.latent_channels)
        skips = self.skip_widths
        widths = config.channels[::-1]
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            taken = tuple(skips.pop() for _ in range(config.layers + 1))
            inward = widths[max(i - 1, 0)]
            attention, upsample = config.attention[::-1][i], i < len(widths) - 1
            self.up_blocks.append(
                UpBlock(inward, width, taken, config, attention=attention, upsample=upsample)
            )

    def forward(
        self,
        latent: Float[Tensor, "b z h w"],
        context: Float[Tensor, "b j d"],
        control: list[Tensor],
        timestep: Float[Tensor, " b"] | None = None,
    ) -> tuple[list[Tensor], dict[int, Tensor]]:
        """Feature maps, coarsest first, and size -> attention map (b, j, size, size).

        Feature maps: of the finest level its last layer, of the others the layer before the last (output blocks 1, 4
        and 7 of the released code).
        control: one residual for each skip connection, the last one for the middle (Eq. 5). timestep: of each sample,
        instead of the constant one (Eq. 2: the denoising stage).
        """
        store, time = MapStore(self.config.map_sizes), self.time(timestep)
        x, skips = self.encode(latent, time, context, store)
        x = x + control[-1]
        skips = [skip + residual for skip, residual in zip(skips, control[:-1], strict=True)]
        features: list[Tensor] = []
        for block in self.up_blocks:
            x, outputs = block(x, skips, time, context, store)
            features.append(outputs[-2])
        return [*features[:-1], x], store.mean()
