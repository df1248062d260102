"""The joint prompt: 2D joint coordinates in the place of Stable Diffusion's text (paper Eq. 6)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.config_io import check_sizes
from dpmesh.geometry import CROP


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """layers: 2 is the paper's MLP, 1 the released code's linear layer.

    visible_only: an unseen joint's token is a learned vector that carries no coordinate (paper: "visible 2D
    joints"); False prompts with all coordinates, the unseen included (released code).
    identity: add a learned vector for each joint, without which the tokens do not say whose coordinates they are.
    """

    joints: int = 30
    width: int = 768
    layers: int = 2
    visible_only: bool = True
    identity: bool = False

    def __post_init__(self) -> None:
        check_sizes(self)


class JointPrompt(nn.Module):
    def __init__(self, config: PromptConfig) -> None:
        super().__init__()
        self.config = config
        widths = [2] + [config.width] * config.layers
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for inward, outward in pairwise(widths[1:]):
            layers += [nn.GELU(), nn.Linear(inward, outward)]
        self.mlp = nn.Sequential(*layers)
        self.unseen = nn.Parameter(torch.zeros(config.width)) if config.visible_only else None
        self.identity = (
            nn.Parameter(torch.randn(config.joints, config.width) * 0.5) if config.identity else None
        )

    def forward(
        self, joints: Float[Tensor, "b j 2"], visible: Float[Tensor, "b j"]
    ) -> Float[Tensor, "b j d"]:
        """joints: crop pixels. One token for each joint."""
        tokens = self.mlp(joints / CROP)
        if self.unseen is not None:
            tokens = torch.where(visible[..., None] > 0, tokens, self.unseen.to(tokens.dtype))
        return tokens if self.identity is None else tokens + self.identity


class ConstantPrompt(nn.Module):
    """A learned prompt that says nothing of the picture: what the U-Net's cross-attention reads without ct.

    Learned and not empty: with a context of zeros every cross-attention layer returns its bias, so that LoRA on
    those layers has nothing to learn and the maps are flat. As many tokens as joints: the maps, the fusion and the
    parameters besides the prompt's own are then those of the full model.
    """

    def __init__(self, config: PromptConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(config.joints, config.width) * 0.5)

    def forward(
        self, joints: Float[Tensor, "b j 2"], visible: Float[Tensor, "b j"]
    ) -> Float[Tensor, "b j d"]:
        """The same tokens for everybody."""
        return self.tokens.expand(len(joints), -1, -1)
