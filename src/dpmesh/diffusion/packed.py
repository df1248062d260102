"""Layers whose weights lie as oneDNN's kernels read them. CPU, inference only.

torch hands a convolution its weights row by row, and oneDNN rearranges them in every call: in bf16 that is a quarter of
the whole model's time at batch 1. In fp32 the kernels that oneDNN chooses for rearranged weights are the slower ones
(docs/speed.md has both). The operators are those that torch's own compiler uses for frozen weights; torch has no public
name for them.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.diffusion.lora import all_layers, replace_layer

_ONEDNN: Any = torch.ops.mkldnn

LEAST = 400_000
"""Numbers in a weight from which packing pays; below, fetching the layer in oneDNN's order costs more."""


class PackedConv2d(nn.Module):
    """A 2D convolution with zero padding. Its weight is no parameter: it cannot be saved, moved or trained."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert not isinstance(conv.padding, str)
        self.geometry = [list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups]
        self.packed = _ONEDNN._reorder_convolution_weight(conv.weight.detach(), *self.geometry)
        self.bias = None if conv.bias is None else conv.bias.detach()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return _ONEDNN._convolution_pointwise(x, self.packed, self.bias, *self.geometry, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer; as PackedConv2d."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.packed = _ONEDNN._reorder_linear_weight(linear.weight.detach())
        has_bias = "bias" in dict(linear.named_parameters())
        self.bias = linear.bias.detach() if has_bias else None

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        return _ONEDNN._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN and the operators, and this processor the type."""
    if not (torch.backends.mkldnn.is_available() and hasattr(_ONEDNN, "_convolution_pointwise")):
        return False
    types = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return dtype == torch.float32 or (dtype in types and bool(getattr(_ONEDNN, types[dtype])()))


def pack(root: nn.Module, dtype: torch.dtype) -> int:
    """Exchange convolutions and linear layers of at least LEAST weights of this type for packed ones, in place;
    returns how many.

    One by one: the weights are never there twice.
    """
    count = 0
    for name in [name for name, layer in all_layers(root) if _packable(layer, dtype)]:
        layer = root.get_submodule(name)
        packed = PackedConv2d(layer) if isinstance(layer, nn.Conv2d) else PackedLinear(layer)  # pyright: ignore
        replace_layer(root, name, packed)
        count += 1
    return count


def _packable(layer: nn.Module, dtype: torch.dtype) -> bool:
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return False
    elif type(layer) is not nn.Linear:
        return False
    return layer.weight.numel() >= LEAST and layer.weight.dtype == dtype
