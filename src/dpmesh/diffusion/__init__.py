"""Stable Diffusion's VAE encoder, U-Net and ControlNet, run for one step. Module names equal diffusers'."""
