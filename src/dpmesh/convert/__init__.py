"""Weights of other layouts brought into ours: the released checkpoints, Stable Diffusion 1.5, ControlNet."""
