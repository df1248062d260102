"""Residual, down- and up-sampling blocks that the VAE encoder, the U-Net and the ControlNet share."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU and 3×3 convolution, twice, with an optional shift by the time embedding between them."""

    def __init__(
        self, inward: int, outward: int, groups: int, time_width: int | None = None, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inward, eps=eps)
        self.conv1 = nn.Conv2d(inward, outward, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, outward) if time_width else None
        self.norm2 = nn.GroupNorm(groups, outward, eps=eps)
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inward, outward, 1) if inward != outward else None

    def forward(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "n t"] | None = None
    ) -> Float[Tensor, "b d h w"]:
        """time: SiLU of the embedded timestep, one row for the whole batch or one for each sample."""
        hidden = self.conv1(silu(self.norm1(x)))
        if self.time_emb_proj is not None and time is not None:
            hidden = hidden + self.time_emb_proj(time)[:, :, None, None]
        hidden = self.conv2(silu(self.norm2(hidden)))
        return add(hidden, x if self.conv_shortcut is None else self.conv_shortcut(x))

    @torch.no_grad()
    def fold_time(self, time: Float[Tensor, "1 t"]) -> None:
        """Fold the shift by a constant embedding into the bias of the first convolution, in place."""
        if self.time_emb_proj is not None and self.conv1.bias is not None:
            self.conv1.bias += self.time_emb_proj(time)[0]
            self.time_emb_proj = None


def silu(x: Tensor) -> Tensor:
    """SiLU, in place without gradients: the caller must not use `x` again. Allocating a full-resolution map costs five
    times the arithmetic."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add(x: Tensor, other: Tensor) -> Tensor:
    """x + other, written into `x` without gradients: the caller must not use `x` again."""
    return x + other if torch.is_grad_enabled() else x.add_(other)


class Downsample(nn.Module):
    """Stride-2 convolution. The VAE pads only right and bottom, the U-Net on all sides."""

    def __init__(self, width: int, *, one_sided: bool = False) -> None:
        super().__init__()
        self.one_sided = one_sided
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=0 if one_sided else 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.one_sided else x)


class Upsample(nn.Module):
    """Nearest neighbour ×2, then a 3×3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class TimeEmbedding(nn.Module):
    """Two-layer MLP on the sinusoidal embedding of the diffusion timestep."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, time_width)
        self.linear_2 = nn.Linear(time_width, time_width)

    def forward(self, timestep: Float[Tensor, "n"]) -> Float[Tensor, "n t"]:
        return self.linear_2(
            F.silu(self.linear_1(sinusoid(timestep, self.width).to(self.linear_1.weight.dtype)))
        )


def sinusoid(timestep: Float[Tensor, "n"], width: int) -> Float[Tensor, "n d"]:
    """Sinusoidal embedding: cosines, then sines, of frequencies 10000^(-i/half) (Stable Diffusion's order)."""
    half = width // 2
    frequencies = torch.exp(
        -math.log(10000.0) * torch.arange(half, device=timestep.device, dtype=torch.float32) / half
    )
    angles = timestep.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
