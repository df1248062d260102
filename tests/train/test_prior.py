"""Training of the prior: it learns, it resumes, its forward kinematics is the body layer's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.model import BodyModel
from dpmesh.data.poses import PoseBank
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.pose_prior.vqvae import PoseVQVAEConfig
from dpmesh.train.prior import (
    PriorTraining,
    body_rotations,
    evaluate_prior,
    forward_kinematics,
    rest_joints,
    train_prior,
)

SMALL = PoseVQVAEConfig(
    tokens=6, codes=20, code_width=5, encoder_width=8, encoder_layers=1, decoder_width=8, decoder_layers=1
)


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pose file with both splits."""
    path = tmp_path_factory.mktemp("poses") / "poses.npz"
    bank = PoseBank.load("train")
    some = bank.poses[::200]
    np.savez(
        path, poses=some, lens=np.array([60, len(some) - 60]), names=np.array(["amc:03_01", "amc:01_01"])
    )
    return path


def test_forward_kinematics_is_the_body_layers() -> None:
    rotations = body_rotations(PoseBank.load("test").poses[::500])
    body = BodyModel(free_body())
    whole = torch.cat((torch.eye(3).expand(len(rotations), 1, 3, 3), rotations), 1)
    joints = body(torch.zeros(len(rotations), 10), whole, None).joints
    ours = forward_kinematics(rotations, rest_joints())
    assert torch.allclose(ours, joints - joints[:, :1], atol=1e-5)


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, poses: Path) -> None:
    config = PriorTraining(
        model=SMALL, poses=poses, out=tmp_path / "a", steps=6, batch=8, warmup=2, log_every=2, save_every=3
    )
    whole = train_prior(config)
    stopped = dataclasses.replace(config, out=tmp_path / "b")

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if "code_use" in row:
            raise Killed

    with pytest.raises(Killed):
        train_prior(stopped, report=kill)
    resumed = train_prior(stopped)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert (tmp_path / "a/log.csv").read_text() == (tmp_path / "b/log.csv").read_text()
    with pytest.raises(WeightsError, match="does not fit"):
        train_prior(dataclasses.replace(stopped, model=dataclasses.replace(SMALL, codes=21)))


def test_it_learns(tmp_path: Path, poses: Path) -> None:
    config = PriorTraining(model=SMALL, poses=poses, out=tmp_path, steps=60, batch=32, warmup=5, lr=1e-2)
    test, rest = PoseBank.load("test", poses), rest_joints()
    first = evaluate_prior(train_prior(dataclasses.replace(config, steps=1)), test, rest)
    (tmp_path / "checkpoint.pt").unlink()
    after = evaluate_prior(train_prior(config), test, rest)
    assert after.mpjpe_mm < 0.8 * first.mpjpe_mm and after.frames == 60


def test_settings_from_toml(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('out = "runs/x"\nsteps = 7\n[model]\ntokens = 5\n')
    config = PriorTraining.read(tmp_path / "a.toml")
    assert (config.steps, config.model.tokens, config.out) == (7, 5, Path("runs/x"))
    (tmp_path / "a.toml").write_text("stepz = 7\n")
    with pytest.raises(ConfigError, match="stepz"):
        PriorTraining.read(tmp_path / "a.toml")
    assert PriorTraining.read(Path(__file__).parents[2] / "configs/prior.toml").steps > 0


def test_the_learning_rate_warms_up_and_falls() -> None:
    config = PriorTraining(steps=100, warmup=10, lr=1.0)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1) and rates[-1] < 0.02
