"""Attention of Stable Diffusion's U-Net: self-attention, cross-attention to the joint prompt, gated feed-forward.

Names equal diffusers' `Transformer2DModel`, so stored weights load without a key map.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def attend(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], v: Float[Tensor, "b h m d"]
) -> Float[Tensor, "b h n d"]:
    """Scaled dot-product attention, softmax(QKᵀ/√d) V.

    With gradients on a CPU it is computed as plain products: for so few tokens, torch's fused kernel has a slower
    backward pass, and its other kernel also checks for fully masked rows.
    """
    if torch.is_grad_enabled() and q.device.type == "cpu":
        return torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head attention; `context_width=None` makes it self-attention.

    The probabilities are materialised only with return_map; otherwise `attend` runs.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width or width, width, bias=False)
        self.to_v = nn.Linear(context_width or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        context: Float[Tensor, "b m d"] | None = None,
        *,
        return_map: bool = False,
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n m"] | None]:
        """The attended tokens and, with return_map, softmax(QKᵀ/√d) averaged over the heads."""
        source = x if context is None else context
        q, k, v = self._split(self.to_q(x)), self._split(self.to_k(source)), self._split(self.to_v(source))
        if return_map:
            probabilities = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
            attended, mean_map = probabilities @ v, probabilities.mean(1)
        else:
            attended, mean_map = attend(q, k, v), None
        return self.to_out[0](attended.transpose(1, 2).flatten(2)), mean_map

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (b, n, h*d) -> (b, h, n, d)


class GEGLU(nn.Module):
    """Linear to twice the width; one half gates the other through the exact GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width, then linear back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Index 1 is a dropout of rate 0 in diffusers; an Identity keeps the numbering of the stored names.
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm: self-attention, cross-attention, feed-forward."""

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.attn2 = Attention(width, heads, context_width)
        self.ff = FeedForward(width)

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m d"], return_map: bool
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n m"] | None]:
        x = x + self.attn1(self.norm1(x))[0]
        attended, mean_map = self.attn2(self.norm2(x), context, return_map=return_map)
        x = x + attended
        return x + self.ff(self.norm3(x)), mean_map


class Transformer2D(nn.Module):
    """One transformer block over the cells of a feature map, as a residual."""

    def __init__(self, width: int, heads: int, context_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, context_width)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b m d"], return_map: bool = False
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b m h w"] | None]:
        """The feature map and, with return_map, the attention of each cell to each of the m prompt tokens."""
        height, width = x.shape[-2:]
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)  # (b, h*w, c)
        tokens, mean_map = self.transformer_blocks[0](tokens, context, return_map)
        out = self.proj_out(tokens.transpose(1, 2).unflatten(2, (height, width))) + x
        return out, None if mean_map is None else mean_map.transpose(1, 2).unflatten(2, (height, width))
