"""Pose priors: from a latent or from pose tokens to joint rotations."""
