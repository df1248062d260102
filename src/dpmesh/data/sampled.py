"""Poses that the pose prior makes: the tokens of two recorded people, mixed and decoded.

Exchanged limbs (poses.py) are recorded limbs on another trunk. The prior's tokens have no such seams: each says
something of the whole body, and what it decodes from a mixture is near what people do.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.data.poses import PoseBank
from dpmesh.pose_prior.files import load_prior
from dpmesh.pose_prior.rotations import axis_angle, rotation_matrix
from dpmesh.pose_prior.vqvae import PoseVQVAE

SHARE = 0.2
"""Of the poses: the prior knows the bank and nothing more, so most people keep what was captured."""

POOL = 1024
"""Poses that are decoded when the first is asked for: about a second."""


@dataclass(frozen=True)
class SampledPoses:
    """A bank of which a share of the samples is drawn from the prior (the shipped one). See scene.PoseSource."""

    bank: PoseBank
    prior: PoseVQVAE = field(default_factory=load_prior)
    share: float = SHARE

    def sample(self, rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 24 3"]:
        """The bank's samples; those of the prior keep their place's turn of the body (joint 0)."""
        poses = self.bank.sample(rng, n)
        rows = np.flatnonzero(rng.random(n) < self.share)
        if len(rows):
            mixed = poses[rows]
            mixed[:, 1:] = self.pool[rng.integers(len(self.pool), size=len(rows))]
            poses[rows, 1:] = self.bank.noisy(rng, mixed)[:, 1:]
        return poses

    @cached_property
    def pool(self) -> Float32[NDArray[np.float32], "m 23 3"]:
        """POOL poses of `drawn`, always the same ones of a bank."""
        return self.drawn(np.random.default_rng(POOL), POOL)

    @torch.inference_mode()
    def drawn(self, rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 23 3"]:
        """n poses of joints 1..23, axis-angle, within the bank's limits. Of each token's code one of two recorded
        people is the donor, the first one for anything from none to all of them."""
        prior, frames = self.prior, self.bank.both_sides
        parents = frames[rng.integers(len(frames), size=(2, n)), 1 : prior.config.joints + 1]
        kind = prior.codebook.codes.dtype
        given = rotation_matrix(torch.as_tensor(parents).flatten(0, 1)).to(kind)
        codes, *_ = prior.quantise(prior.encode(given))
        first, second = codes[:n], codes[n:]
        donor = torch.as_tensor(rng.random((n, prior.config.tokens)) < rng.random((n, 1)))
        vectors = axis_angle(prior.decode(torch.where(donor[..., None], first, second))).numpy()
        low, high = self.bank.limits[:, 1:]
        return np.minimum(np.maximum(vectors, low), high, dtype=np.float32)
