"""The pose VQ-VAE: 21 joint rotations to tokens of a codebook, and back (PCT, Geng et al., CVPR 2023).

Encoder and decoder are MLP-mixers (Tolstikhin et al. 2021). The codebook follows the data by moving averages (van den
Oord et al. 2017, A.1). The mesh model uses codebook and decoder: it predicts a distribution over the codes, or a point
among them, for each token.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dpmesh.config_io import check_sizes
from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import rotation_from_6d, rotation_to_6d

ROWS = 4096
"""Latents compared with the codebook at a time; the table of distances then stays in the cache."""


class Codebook(nn.Module):
    """`codes` vectors of `width`. They have no gradient; in training mode `forward` moves them towards the latents.

    A code used by fewer than `dead_below` latents for each batch (moving average) is dead: it is moved to a latent of
    the batch, and its uses become 1. All codes of a new codebook are dead, so the first batch fills it.
    """

    codes: Tensor
    uses: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, decay: float, dead_below: float) -> None:
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("codes", torch.zeros(codes, width))  # (K, D)
        self.register_buffer("uses", torch.zeros(codes))  # moving average of the latents per batch and code
        self.register_buffer("sums", torch.zeros(codes, width))  # moving average of their sum

    def nearest(self, latents: Float[Tensor, "*b d"]) -> Int[Tensor, "*b"]:
        """Index of the code that is nearest to each latent (Euclidean)."""
        # |x - c|² = |x|² - 2 (x·c - |c|²/2): the largest bracket wins.
        half = -0.5 * self.codes.square().sum(-1)
        flat = latents.reshape(-1, latents.shape[-1])
        blocks = (flat[i : i + ROWS] for i in range(0, len(flat), ROWS))
        indices = [torch.addmm(half, rows, self.codes.T).argmax(-1) for rows in blocks]
        return torch.cat(indices).view(latents.shape[:-1])

    def forward(
        self, latents: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b t d"], Int[Tensor, "b t"], Float[Tensor, ""]]:
        """Nearest codes (straight-through gradient to the latents), their indices, and the commitment loss."""
        with torch.no_grad():
            if self.training and not self.uses.any():
                self.revive(latents.reshape(-1, latents.shape[-1]))
            indices = self.nearest(latents)
            nearest = self.codes[indices]
            if self.training:
                self.follow(latents, indices)
        commitment = (latents - nearest).square().mean()
        return latents + (nearest - latents).detach(), indices, commitment

    @torch.no_grad()
    def follow(self, latents: Float[Tensor, "*b d"], indices: Int[Tensor, "*b"]) -> None:
        """One step of the moving averages, then `revive`."""
        flat, chosen = latents.reshape(-1, latents.shape[-1]), indices.flatten()
        count = torch.bincount(chosen, minlength=len(self.codes)).to(self.uses.dtype)
        self.uses.lerp_(count, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, chosen, flat), 1 - self.decay)
        self.codes.copy_(self.sums / self.uses.clamp_min(1e-6)[:, None])
        self.revive(flat)

    @torch.no_grad()
    def revive(self, flat: Float[Tensor, "n d"]) -> int:
        """Move every dead code to a latent of this batch; returns their number.

        The latents are taken at even distances: the batch is random already.
        """
        dead = torch.nonzero(self.uses < self.dead_below).flatten()
        if len(dead):
            chosen = flat[torch.linspace(0, len(flat) - 1, len(dead), device=flat.device).long()]
            self.codes[dead] = chosen
            self.uses[dead] = 1.0
            self.sums[dead] = chosen
        return len(dead)


Mode = Literal["soft", "straight_through", "points", "nearest"]
POINT_MODES = ("points", "nearest")
"""Modes whose latent is a point in code space for each token; that of the others is logits over the codes."""


@dataclass(frozen=True, kw_only=True)
class PoseVQVAEConfig:
    """The pose VQ-VAE."""

    kind: Literal["vqvae"] = "vqvae"
    """Distinguishes the priors in a config file."""
    joints: int = 21
    """SMPL's joints 1 to `joints` are coded; the others (the hands, for 21) stay identity."""
    tokens: int = 48
    """Tokens of a pose."""
    codes: int = 2048
    """Vectors in the codebook."""
    code_width: int = 256
    """Width of a code vector."""
    encoder_width: int = 128
    """Width of the encoder's joint features."""
    encoder_layers: int = 2
    """Mixer layers of the encoder."""
    decoder_width: int = 128
    """Width of the decoder's joint features."""
    decoder_layers: int = 4
    """Mixer layers of the decoder."""
    decay: float = 0.99
    """Decay of the codebook's moving averages, in [0, 1)."""
    dead_below: float = 0.5
    """Codes with fewer uses for each batch (moving average) are revived (Codebook)."""

    def __post_init__(self) -> None:
        check_sizes(self, ("encoder_layers", "decoder_layers", "decay", "dead_below"))
        if not 0 < self.joints <= 23:
            raise ConfigError(f"joints={self.joints}: SMPL has 23 besides the root", where="PoseVQVAEConfig")
        if not 0 <= self.decay < 1:
            raise ConfigError(f"decay={self.decay} is not in [0, 1)", where="PoseVQVAEConfig")


class Reconstruction(NamedTuple):
    """Output of the whole auto-encoder."""

    rotations: Float[Tensor, "b 23 3 3"]
    indices: Int[Tensor, "b t"]
    commitment: Float[Tensor, ""]


class Mixer(nn.Module):
    """One mixer layer on (B, N, width): an MLP across the N positions, then one across the channels."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.place_norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.places = nn.Sequential(nn.Linear(places, 2 * places), nn.GELU(), nn.Linear(2 * places, places))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = x + self.places(self.place_norm(x).transpose(-1, -2)).transpose(-1, -2)
        return x + self.channels(self.channel_norm(x))


class PoseVQVAE(nn.Module):
    """The auto-encoder. Rotations are matrices relative to the parent joint, in SMPL's order."""

    def __init__(self, config: PoseVQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.mode: Mode = "soft"
        width, joints, tokens = config.encoder_width, config.joints, config.tokens
        self.joint_in = nn.Linear(6, width)
        self.joint_place = nn.Parameter(torch.zeros(joints, width))
        self.encoder = nn.Sequential(*(Mixer(joints, width) for _ in range(config.encoder_layers)))
        self.to_tokens = nn.Linear(joints, tokens)
        self.to_latent = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.code_width))
        self.codebook = Codebook(config.codes, config.code_width, config.decay, config.dead_below)
        width = config.decoder_width
        self.from_code = nn.Linear(config.code_width, width)
        self.token_place = nn.Parameter(torch.zeros(tokens, width))
        self.to_joints = nn.Linear(tokens, joints)
        self.decoder = nn.Sequential(*(Mixer(joints, width) for _ in range(config.decoder_layers)))
        self.joint_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 6))
        nn.init.normal_(self.joint_place, std=0.5)
        nn.init.normal_(self.token_place, std=0.5)

    def as_decoder(self, mode: Mode = "soft") -> "PoseVQVAE":
        """Make this prior a fixed part of a larger model, in place: no gradients, no moving averages in its state.

        mode: of `decode_latent`.
        """
        self.mode = mode
        self.requires_grad_(False)
        for name in ("uses", "sums"):
            self.codebook.register_buffer(name, None)
        return self

    def train(self, mode: bool = True) -> "PoseVQVAE":
        """As nn.Module.train, but a fixed prior stays in evaluation mode."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))

    def encode(self, rotations: Float[Tensor, "b j 3 3"]) -> Float[Tensor, "b t d"]:
        """Latents of a pose before quantisation."""
        x = self.joint_in(rotation_to_6d(rotations)) + self.joint_place  # (B, J, C)
        x = self.to_tokens(self.encoder(x).transpose(-1, -2)).transpose(-1, -2)  # (B, T, C)
        return self.to_latent(x)

    def quantise(
        self, latents: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b t d"], Int[Tensor, "b t"], Float[Tensor, ""]]:
        """As Codebook.forward. Training mode moves the codebook."""
        return self.codebook(latents)

    def decode(self, codes: Float[Tensor, "b t d"]) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of joints 1 to 23 from a code vector for each token; the hands stay identity."""
        x = self.from_code(codes) + self.token_place  # (B, T, C)
        x = self.decoder(self.to_joints(x.transpose(-1, -2)).transpose(-1, -2))  # (B, J, C)
        eye = torch.eye(3, device=x.device, dtype=x.dtype)
        body = rotation_from_6d(self.joint_out(x) + rotation_to_6d(eye))  # (B, J, 3, 3)
        return torch.cat((body, eye.expand(x.shape[0], 23 - self.config.joints, 3, 3)), 1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one person: for each token logits over the codes, or a point in code space."""
        return (self.config.tokens, self.config.code_width if self.mode in POINT_MODES else self.config.codes)

    def decode_latent(self, latent: Float[Tensor, "b t o"]) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of joints 1 to 23 from a latent for each token, by `mode`.

        soft: logits; decodes the mean code, softmax(logits) @ codebook (as the released VQ variant of DPMesh).
        straight_through: logits; decodes the most likely code, with the gradient of the mean code.
        points: points in code space, decoded as they are.
        nearest: points in code space; decodes the nearest codes, with the gradient of the points.
        """
        if self.mode == "points":
            return self.decode(latent)
        if self.mode == "nearest":
            return self.decode(self.quantise(latent)[0])
        mean = latent.softmax(-1) @ self.codebook.codes
        if self.mode == "soft":
            return self.decode(mean)
        hard = self.codebook.codes[latent.argmax(-1)]
        return self.decode(mean + (hard - mean).detach())

    @torch.no_grad()
    def tokens(self, rotations: Float[Tensor, "b j 3 3"]) -> Int[Tensor, "b t"]:
        """The pose as code indices. Never moves the codebook."""
        return self.codebook.nearest(self.encode(rotations))

    def forward(self, rotations: Float[Tensor, "b j 3 3"]) -> Reconstruction:
        """Encode, quantise, decode."""
        codes, indices, commitment = self.quantise(self.encode(rotations))
        return Reconstruction(self.decode(codes), indices, commitment)
