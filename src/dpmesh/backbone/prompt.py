"""The joint prompt: embedded 2D joint coordinates in place of Stable Diffusion's text (paper Eq. 6)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.config_io import check_sizes
from dpmesh.geometry import CROP


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """The joint prompt."""

    joints: int = 30
    """Tokens, one for each joint."""
    width: int = 768
    """Width of the tokens."""
    layers: int = 2
    """2: the paper's MLP. 1: the released code's linear layer."""
    visible_only: bool = True
    """Replace the token of an invisible joint by a learned vector (paper: "visible 2D joints"); False embeds the
    coordinates of all joints (released code)."""
    identity: bool = False
    """Add a learned vector for each joint; without it, tokens do not identify their joint."""

    def __post_init__(self) -> None:
        check_sizes(self)


class JointPrompt(nn.Module):
    """Joint coordinates to prompt tokens, by an MLP shared by all joints."""

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
        """One token for each joint. joints: crop pixels. visible: 1 or 0."""
        tokens = self.mlp(joints / CROP)
        if self.unseen is not None:
            tokens = torch.where(visible[..., None] > 0, tokens, self.unseen.to(tokens.dtype))
        return tokens if self.identity is None else tokens + self.identity


class ConstantPrompt(nn.Module):
    """A learned prompt that does not depend on the input, for the conditions without ct.

    It is learned because with a context of zeros every cross-attention layer returns its bias: LoRA on those layers
    would learn nothing, and the attention maps would be flat. It has as many tokens as joints, so that maps, fusion
    and all other parameters equal those of the full model.
    """

    def __init__(self, config: PromptConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(config.joints, config.width) * 0.5)

    def forward(
        self, joints: Float[Tensor, "b j 2"], visible: Float[Tensor, "b j"]
    ) -> Float[Tensor, "b j d"]:
        """The same tokens for every sample."""
        return self.tokens.expand(len(joints), -1, -1)
