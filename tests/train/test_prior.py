"""The prior stage: it learns, and its forward kinematics is the body layer's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.model import BodyModel
from dpmesh.configurations import EMBEDDED, PRESETS
from dpmesh.data.poses import PoseBank
from dpmesh.plain import from_plain
from dpmesh.pose_prior.files import load_prior
from dpmesh.pose_prior.vqvae import PoseVQVAEConfig
from dpmesh.train import loop
from dpmesh.train.feed import VALIDATION_CLIPS, pose_bank
from dpmesh.train.prior import body_rotations, evaluate_prior, forward_kinematics, rest_joints
from dpmesh.train.settings import Settings

SMALL = PoseVQVAEConfig(
    tokens=6, codes=20, code_width=5, encoder_width=8, encoder_layers=1, decoder_width=8, decoder_layers=1
)


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pose file with both splits and a validation clip."""
    path = tmp_path_factory.mktemp("poses") / "poses.npz"
    some = PoseBank.load("train").poses[::200]
    np.savez(
        path,
        poses=some,
        lens=np.array([30, 30, len(some) - 60]),
        names=np.array(["amc:03_01", "amc:02_01", "amc:01_01"]),
    )
    return path


def test_forward_kinematics_is_the_body_layers() -> None:
    rotations = body_rotations(PoseBank.load("test").poses[::500])
    body = BodyModel(free_body())
    whole = torch.cat((torch.eye(3).expand(len(rotations), 1, 3, 3), rotations), 1)
    joints = body(torch.zeros(len(rotations), 10), whole, None).joints
    ours = forward_kinematics(rotations, rest_joints())
    assert torch.allclose(ours, joints - joints[:, :1], atol=1e-5)


def test_it_learns_and_leaves_a_prior(tmp_path: Path, poses: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "small", replace(EMBEDDED, name="small", pose_prior=SMALL))
    stage = {
        "name": "p", "kind": "prior", "steps": 60, "batch": 32, "warmup": 5, "learning_rate": 1e-2, "poses": str(poses),
    }  # fmt: skip
    plain = {
        "model": "small", "out": str(tmp_path), "workers": 0, "validate_every": 3, "log_every": 20, "stages": [stage],
    }  # fmt: skip
    folder = loop.train(from_plain(Settings, plain))
    assert folder == tmp_path / "prior"
    lines = (tmp_path / "validation.csv").read_text().splitlines()
    first, *_, last = (float(line.split(",")[3]) for line in lines[1:])
    assert last < 0.8 * first
    score = evaluate_prior(load_prior(folder), pose_bank("validation", str(poses)), rest_joints())
    assert score.mpjpe_mm == pytest.approx(last, abs=1e-3) and score.frames == 30


def test_validation_clips_are_kept_from_training_and_are_no_test_clips() -> None:
    train, held, everything = (pose_bank(motions) for motions in ("train", "validation", "all"))
    assert len(train) + len(held) == len(everything) == len(PoseBank.load("train"))
    assert 0.04 < len(held) / len(everything) < 0.1
    assert all(name.startswith(VALIDATION_CLIPS) for name in held.names)
    assert not set(held.names) & set(train.names)
    assert not set(held.names) & set(PoseBank.load("test").names)
