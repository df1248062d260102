"""Stable Diffusion's noise schedule (paper Eq. 1); only the denoising stage of the training uses it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEPS = 1000
"""Timesteps of the schedule."""
_FIRST, _LAST = 0.00085, 0.012
"""Variance β added by the first and the last step; its square root grows linearly in between."""


def alphas_cumprod() -> Float[Tensor, "1000"]:
    """ᾱ_t of Eq. 1 for t = 0 ... 999, the cumulative product of 1 - β."""
    betas = torch.linspace(_FIRST**0.5, _LAST**0.5, STEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def add_noise(
    latent: Float[Tensor, "b z h w"], noise: Float[Tensor, "b z h w"], timestep: Int[Tensor, " b"]
) -> Float[Tensor, "b z h w"]:
    """z_t = √ᾱ_t z_0 + √(1 - ᾱ_t) ε (Eq. 1). timestep: 0 ... 999, for each sample. noise: ε, standard normal."""
    alpha = alphas_cumprod().to(latent)[timestep][:, None, None, None]
    return alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
