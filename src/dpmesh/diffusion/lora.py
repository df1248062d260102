"""Low-rank adaptation of linear layers, y = W x + up(down(x)), which can be merged into W (Hu et al. 2022).

Names `linear`, `lora_down`, `lora_up` are those of the released checkpoints (lora_diffusion).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ROWS = 1024
"""Rows of a weight that are merged at a time."""


class LoRALinear(nn.Module):
    """A linear layer with a low-rank update, initially zero. No scaling factor, as in the released code."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.lora_down = nn.Linear(linear.in_features, rank, bias=False)
        self.lora_up = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.normal_(self.lora_down.weight, std=1 / rank)
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        return self.linear(x) + self.lora_up(self.lora_down(x))

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """The linear layer with the update added to its weight, in place.

        Computed in fp32, some rows at a time, to avoid a second copy of the weight.
        """
        down = self.lora_down.weight.float()
        for first in range(0, self.linear.out_features, _ROWS):
            rows = self.linear.weight[first : first + _ROWS]
            rows.copy_((self.lora_up.weight[first : first + _ROWS].float() @ down).add_(rows))
        return self.linear


def inject_lora(root: nn.Module, rank: int, is_target: Callable[[str], bool]) -> int:
    """Wrap every linear layer whose dotted name is a target, in place; returns their number."""
    targets = [
        (name, layer) for name, layer in all_layers(root) if isinstance(layer, nn.Linear) and is_target(name)
    ]
    for name, linear in targets:
        replace_layer(root, name, LoRALinear(linear, rank).to(linear.weight))
    return len(targets)


def merge_lora(root: nn.Module) -> int:
    """Replace every LoRALinear by its merged linear layer, in place; returns their number."""
    adapted = [(name, layer) for name, layer in all_layers(root) if isinstance(layer, LoRALinear)]
    for name, layer in adapted:
        replace_layer(root, name, layer.merge())
    return len(adapted)


def all_layers(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module with its dotted name, as a list: modules may be replaced during the iteration."""
    return list(root.named_modules())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def cross_attention(name: str) -> bool:
    """Whether a layer is a target in the paper: every projection of the cross-attention layers."""
    return ".attn2." in name


def released_targets(name: str) -> bool:
    """Whether a layer is a target in the released checkpoints: self- and cross-attention and the gated projection (144
    layers in SD 1.5)."""
    return ".attn1." in name or ".attn2." in name or name.endswith("ff.net.0.proj")


def replace_layer(root: nn.Module, name: str, new: nn.Module) -> None:
    """Replace the module with this dotted name."""
    parent, _, leaf = name.rpartition(".")
    holder = root.get_submodule(parent)
    if isinstance(holder, nn.ModuleList | nn.Sequential):
        holder[int(leaf)] = new
    else:
        setattr(holder, leaf, new)
