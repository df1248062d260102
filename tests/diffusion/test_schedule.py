"""Eq. 1 against diffusers' scheduler with Stable Diffusion's settings."""

import torch
from diffusers import DDPMScheduler

from dpmesh.diffusion.schedule import STEPS, add_noise, alphas_cumprod


def test_noise_is_stable_diffusions():
    theirs = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=STEPS
    )
    torch.testing.assert_close(alphas_cumprod(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    torch.manual_seed(0)
    latent, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    timestep = torch.tensor([0, 500, 999])
    torch.testing.assert_close(
        add_noise(latent, noise, timestep), theirs.add_noise(latent, noise, timestep), rtol=1e-4, atol=1e-5
    )
