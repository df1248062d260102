"""Stable Diffusion's noise schedule: how much of a picture is left at each timestep (paper Eq. 1)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEPS = 1000
_FIRST, _LAST = 0.00085, 0.012
"""Variance that the first and the last step add; between them its square root grows linearly."""


def alphas_cumprod() -> Float[Tensor, "1000"]:
    """ᾱ_t of Eq. 1 for t = 0 ... 999, the product of 1 - β."""
    betas = torch.linspace(_FIRST**0.5, _LAST**0.5, STEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def noised(
    latent: Float[Tensor, "b z h w"], noise: Float[Tensor, "b z h w"], timestep: Int[Tensor, " b"]
) -> Float[Tensor, "b z h w"]:
    """z_t = √ᾱ_t z_0 + √(1 - ᾱ_t) ε (Eq. 1). timestep: 0 ... 999, of each sample."""
    left = alphas_cumprod().to(latent)[timestep][:, None, None, None]
    return left.sqrt() * latent + (1 - left).sqrt() * noise
