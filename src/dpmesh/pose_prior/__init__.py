"""Pose priors: from a latent or from tokens to the rotations of the body's joints."""
