"""The stage of a VPoser-like prior: it learns, leaves a decoder, and a model begins with it."""

from pathlib import Path

import pytest
import torch

from dpmesh.config_io import from_dict
from dpmesh.data.poses import PoseBank
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_any_prior, load_prior
from dpmesh.pose_prior.vposer import VPoserDecoder
from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import Part
from dpmesh.train.objectives.vposer import VAEObjective
from dpmesh.train.objectives.vqvae import body_rotations

STAGE = {"name": "p", "kind": "prior", "steps": 100, "batch": 64, "warmup_steps": 5, "learning_rate": 3e-3}


def settings(out: Path, model: str = "embedded-vposer", **more: object) -> Settings:
    plain = {"model": model, "out": str(out), "workers": 0, "validate_every": 25, "stages": [STAGE], **more}
    return from_dict(Settings, plain)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loop.train(settings(tmp_path_factory.mktemp("vae")))


def test_it_learns_and_leaves_a_decoder(trained: Path):
    lines = (trained.parent / "validation.csv").read_text().splitlines()[1:]
    first, *_, last = (float(line.split(",")[3]) for line in lines)
    assert last < 0.8 * first
    decoder = load_any_prior(trained)
    assert isinstance(decoder, VPoserDecoder) and not any(p.requires_grad for p in decoder.parameters())
    with pytest.raises(WeightsError, match="not a VQ-VAE"):
        load_prior(trained)


def test_a_model_begins_with_it(trained: Path, tmp_path: Path):
    images = {"name": "images", "kind": "images", "steps": 1, "batch": 2, "learning_rate": 1e-4}
    begun = make_objective(
        TrainingContext.resolve(settings(tmp_path, stages=[images], prior=str(trained))), 0
    )
    assert isinstance(begun.model, DPMesh)
    for name, value in load_any_prior(trained).state_dict().items():
        assert torch.equal(begun.model.pose_prior.state_dict()[name], value)
    with pytest.raises(ConfigError, match="no pose prior of 'embedded'"):
        make_objective(
            TrainingContext.resolve(settings(tmp_path, "embedded", stages=[images], prior=str(trained))), 0
        )
    direct = make_objective(
        TrainingContext.resolve(settings(tmp_path, "embedded-direct", stages=[images])), 0
    )  # has no prior and needs none
    assert not list(direct.model.pose_prior.parameters())
    with pytest.raises(ConfigError, match="no prior to train"):
        make_objective(TrainingContext.resolve(settings(tmp_path, "embedded-direct")), 0)


def test_the_distance_is_that_of_normal_distributions():
    """Against torch.distributions; and a draw is a function of the Part."""
    torch.manual_seed(0)
    objective = make_objective(TrainingContext.resolve(settings(Path("unused"))), 0)
    assert isinstance(objective, VAEObjective)
    batch = {"pose": torch.from_numpy(PoseBank.load("train").poses[:8]).float()}
    mean, spread = objective.encode(body_rotations(PoseBank.load("train").poses[:8]))
    apart = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (spread / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    loss, terms = objective(batch, Part(1, 2))
    torch.testing.assert_close(terms["kl"], apart.sum(1).mean(), rtol=1e-5, atol=1e-5)
    assert torch.equal(loss, objective(batch, Part(1, 2))[0])
    assert not torch.equal(loss, objective(batch, Part(1, 3))[0])
