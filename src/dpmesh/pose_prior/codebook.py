"""Vector quantisation; the codebook follows the data by moving averages (van den Oord et al. 2017, A.1)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

ROWS = 4096  # latents compared with the codebook at a time: the table of distances stays in the cache


class Codebook(nn.Module):
    """`codes` vectors of `width`, without gradient: in training mode `forward` moves them to the latents.

    A code that fewer than `dead_below` latents per batch use (moving average) is put on a latent of the batch
    and has uses 1 then. A fresh codebook consists of dead codes only: the first batch fills it.
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
        found = [torch.addmm(half, rows, self.codes.T).argmax(-1) for rows in blocks]
        return torch.cat(found).view(latents.shape[:-1])

    def forward(
        self, latents: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b t d"], Int[Tensor, "b t"], Float[Tensor, ""]]:
        """Codes (the gradient passes straight through to the latents), their indices, the commitment loss."""
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
        """One step of the moving averages; then dead codes are revived."""
        flat, chosen = latents.reshape(-1, latents.shape[-1]), indices.flatten()
        count = torch.bincount(chosen, minlength=len(self.codes)).to(self.uses.dtype)
        self.uses.lerp_(count, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, chosen, flat), 1 - self.decay)
        self.codes.copy_(self.sums / self.uses.clamp_min(1e-6)[:, None])
        self.revive(flat)

    @torch.no_grad()
    def revive(self, flat: Float[Tensor, "n d"]) -> int:
        """Put every dead code on a latent of this batch; returns how many there were.

        The latents are taken at even distances: the batch is random already, no generator is needed.
        """
        dead = torch.nonzero(self.uses < self.dead_below).flatten()
        if len(dead):
            chosen = flat[torch.linspace(0, len(flat) - 1, len(dead), device=flat.device).long()]
            self.codes[dead] = chosen
            self.uses[dead] = 1.0
            self.sums[dead] = chosen
        return len(dead)
