"""Stable Diffusion's encoder, U-Net and ControlNet, as one deterministic step. Module names are diffusers' own."""
