"""From the pose code to a distribution over the codebook for each pose token (paper 3.2, "entry indices")."""

from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.pose_prior.vqvae import Mixer


class TokenHead(nn.Module):
    """Spread the code over the tokens, let them talk once, classify each.

    A narrow token width keeps this head small: one linear layer from code to all logits would need more
    parameters than the rest of the embedded model together.
    """

    def __init__(self, code: int, tokens: int, codes: int, width: int = 32) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.spread = nn.Linear(code, tokens * width)
        self.mix = Mixer(tokens, width)
        self.classify = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, codes))

    def forward(self, code: Float[Tensor, "b c"]) -> Float[Tensor, "b t k"]:
        return self.classify(self.mix(self.spread(code).unflatten(-1, (self.tokens, self.width))))
