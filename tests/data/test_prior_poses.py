"""Poses from the prior: a function of the generator, within limits, what their parents say, and new."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dpmesh.data.poses import PoseBank, SampledPoses
from dpmesh.geometry.rotations import rotation_matrix


@pytest.fixture(scope="module")
def source() -> SampledPoses:
    return SampledPoses(PoseBank.load("train"))


def test_a_share_comes_from_the_prior_and_the_rest_from_the_bank(source: SampledPoses) -> None:
    plain = source.bank.sample(np.random.default_rng(3), 400)
    mixed = source.sample(np.random.default_rng(3), 400)
    assert np.array_equal(mixed, source.sample(np.random.default_rng(3), 400))
    other = (mixed != plain).any((1, 2))
    assert 0.13 < other.mean() < 0.28
    assert np.array_equal(mixed[:, 0], plain[:, 0])  # who turns how is the bank's
    assert np.array_equal(replace(source, share=0.0).sample(np.random.default_rng(3), 400), plain)


def test_they_stay_within_the_limits(source: SampledPoses) -> None:
    low, high = source.bank.limits[:, 1:]
    drawn = source.drawn(np.random.default_rng(1), 300)
    noisy = replace(source, share=1.0).sample(np.random.default_rng(1), 300)[:, 1:]
    for poses in (drawn, noisy):
        assert poses.shape == (300, 23, 3) and np.isfinite(poses).all()
        assert (poses >= low).all() and (poses <= high).all()
    assert len(np.unique(noisy.reshape(300, -1), axis=0)) == 300  # noise: none twice


class _OneSided(np.random.Generator):
    """Every token from the first parent."""

    def random(self, size=None, *_: object, **__: object):
        return np.zeros(size) if size is not None and size[-1] > 1 else np.ones(size)


def test_with_one_donor_they_are_what_the_prior_gives_back(source: SampledPoses) -> None:
    """So tokens are whole and in their places; and mixtures are new poses."""
    rng = _OneSided(np.random.PCG64(5))
    frames = source.bank.both_sides
    chosen = frames[np.random.Generator(np.random.PCG64(5)).integers(len(frames), size=(2, 50)), 1:22][0]
    rotations = rotation_matrix(torch.from_numpy(chosen))
    with torch.inference_mode():
        again = source.prior(rotations).rotations
    drawn = rotation_matrix(torch.from_numpy(source.drawn(rng, 50)))
    off = (drawn[:, :21] - again[:, :21]).square().sum((-1, -2)).mean(-1)
    assert off.median() < 0.01  # clipped at the limits here and there
    mixed = rotation_matrix(torch.from_numpy(source.drawn(np.random.default_rng(5), 50)))
    nearest = torch.cdist(mixed[:, :21].flatten(1), rotations.flatten(1)).min(1).values
    assert nearest.median() > 1.0
