"""The pose head: from the regressed pose code to the pose tokens (paper 3.2)."""

from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.errors import ConfigError
from dpmesh.pose_prior.vqvae import Mixer


class TokenHead(nn.Module):
    """Project the pose code to tokens, mix them once, and predict an output for each token.

    The output is a distribution over the codebook (the paper's "entry indices") or a point in code space. A narrow
    token width keeps the head small: one linear layer from the code to all logits would have more parameters than the
    rest of the embedded model.
    """

    def __init__(self, code: int, tokens: int, out: int, width: int = 32) -> None:
        """code: numbers of the pose code. out: numbers for each token, the codebook's size or a code's width."""
        super().__init__()
        self.tokens, self.width = tokens, width
        self.spread = nn.Linear(code, tokens * width)
        self.mix = Mixer(tokens, width)
        self.say = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, code: Float[Tensor, "b c"]) -> Float[Tensor, "b t o"]:
        return self.say(self.mix(self.spread(code).reshape(-1, self.tokens, self.width)))


def build_pose_head(code: int, latent: tuple[int, ...], width: int) -> nn.Module:
    """The module from pose code to the pose prior's latent: a TokenHead for a latent (tokens, out), the identity for a
    vector. Raises ConfigError where code and vector differ in length."""
    if len(latent) == 2:
        return TokenHead(code, *latent, width)
    if latent != (code,):
        raise ConfigError(
            f"regressor.pose_code={code} must equal the pose prior's latent {latent}", where="DPMeshConfig"
        )
    return nn.Identity()
