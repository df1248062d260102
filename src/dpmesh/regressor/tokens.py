"""From the pose code to the pose tokens: a distribution over the codebook, or a point in its space (paper 3.2)."""

from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.errors import ConfigError
from dpmesh.pose_prior.vqvae import Mixer


class TokenHead(nn.Module):
    """Spread the code over the tokens, let them talk once, say of each what it is.

    out: numbers for each token; logits over all codes (the paper's "entry indices"), or a point in code space.
    A narrow token width keeps this head small: one linear layer from code to all logits would need more
    parameters than the rest of the embedded model together.
    """

    def __init__(self, code: int, tokens: int, out: int, width: int = 32) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.spread = nn.Linear(code, tokens * width)
        self.mix = Mixer(tokens, width)
        self.say = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, code: Float[Tensor, "b c"]) -> Float[Tensor, "b t o"]:
        return self.say(self.mix(self.spread(code).reshape(-1, self.tokens, self.width)))


def pose_head(code: int, latent: tuple[int, ...], width: int) -> nn.Module:
    """From the regressed code to the pose prior's latent: tokens are spoken of each; a vector is the code itself."""
    if len(latent) == 2:
        return TokenHead(code, *latent, width)
    if latent != (code,):
        raise ConfigError(
            f"regressor.pose_code={code} must equal the pose prior's latent {latent}", where="DPMeshConfig"
        )
    return nn.Identity()
