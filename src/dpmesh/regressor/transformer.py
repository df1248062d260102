"""Post-norm transformer layers, positions added to queries and keys only (DETR), and sine position tables."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.diffusion.attention import attend

_TABLE_DEVICE = "cpu"
"""Device of the position tables: they need values also where the model is built on the meta device."""

PositionTable = Literal["detr", "released"]
"""Variants of sine_position_2d."""


class MultiHeadAttention(nn.Module):
    """Multi-head attention with separate keys and values, so that only the keys carry positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, query: Float[Tensor, "b n c"], key: Float[Tensor, "b m c"], value: Float[Tensor, "b m c"]
    ) -> Float[Tensor, "b n c"]:
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q(query), self.k(key), self.v(value))
        )
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward layer. inner: width of the latter."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b n c"], position: Float[Tensor, "#b n c"]) -> Float[Tensor, "b n c"]:
        placed = x + position
        x = self.norm1(x + self.attention(placed, placed, x))
        return self.norm2(x + self.feed_forward(x))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to a memory, and a feed-forward layer. inner: width of the latter."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(width, heads)
        self.cross_attention = MultiHeadAttention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        query_position: Float[Tensor, "#b n c"],
        memory: Float[Tensor, "b m c"],
        memory_position: Float[Tensor, "b m c"],
    ) -> Float[Tensor, "b n c"]:
        placed = x + query_position
        x = self.norm1(x + self.self_attention(placed, placed, x))
        x = self.norm2(x + self.cross_attention(x + query_position, memory + memory_position, memory))
        return self.norm3(x + self.feed_forward(x))


def sine_position_2d(width: int, size: int, table: PositionTable = "detr") -> Float[Tensor, "n c"]:
    """Fixed position codes of the cells of a size×size map: half the channels for y, then half for x; sines at even,
    cosines at odd channels.

    table: "detr" gives each pair of channels its own period, 10000^(2i/half). "released" has period 1 throughout: the
    released code rounds the exponent towards zero, and its weights were trained with that.
    """
    half = width // 2
    place = torch.arange(1, size + 1, dtype=torch.float32, device=_TABLE_DEVICE) / (size + 1e-6) * 2 * math.pi
    exponent = 2 * (torch.arange(half, device=_TABLE_DEVICE) // 2) / half
    if table == "released":
        exponent = exponent.trunc()
    angles = place[:, None] / 10000**exponent
    waves = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)  # (size, half)
    y, x = waves[:, None].expand(size, size, half), waves[None].expand(size, size, half)
    return torch.cat([y, x], dim=-1).flatten(0, 1)


def sine_position_1d(width: int, count: int) -> Float[Tensor, "n c"]:
    """Fixed position codes of a sequence: sines and cosines interleaved (Vaswani et al. 2017, section 3.5)."""
    place = torch.arange(count, dtype=torch.float64, device=_TABLE_DEVICE)[:, None]
    period = 10000 ** (torch.arange(0, width, 2, dtype=torch.float64, device=_TABLE_DEVICE) / width)
    return torch.stack([(place / period).sin(), (place / period).cos()], dim=2).flatten(1).float()
