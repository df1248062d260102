"""The prior stage: it learns, and its forward kinematics is the body layer's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.checkpoint import read_config
from dpmesh.config import EMBEDDED, PRESETS
from dpmesh.config_io import from_dict
from dpmesh.data.poses import VALIDATION_CLIPS, PoseBank
from dpmesh.errors import ConfigError
from dpmesh.pose_prior.files import load_prior
from dpmesh.pose_prior.vqvae import PoseVQVAEConfig
from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.dataloader import held_out_poses, pose_bank, prior_poses
from dpmesh.train.objectives.vqvae import (
    body_rotations,
    evaluate_prior,
    evenly_spaced,
    fitted_mixtures,
    forward_kinematics,
    rest_joints,
)
from dpmesh.train.stages import PriorStage

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


@pytest.fixture(scope="module")
def amass(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pose file with AMASS's names alone: no name that the shipped split knows."""
    path = tmp_path_factory.mktemp("amass") / "amass.npz"
    poses = PoseBank.load("train").poses[::100]
    lens = np.full(20, len(poses) // 20)
    names = np.array([f"amass:ACCAD/s{i % 4}/walk_{i}_poses" for i in range(20)])
    np.savez(path, poses=poses[: lens.sum()], lens=lens, names=names)
    return path


@pytest.mark.parametrize("model", ["small", "embedded-vposer"])
@pytest.mark.parametrize(
    ("more", "validates"), [({}, True), ({"validate_every": 0}, False), ({"share": 0.0}, False)]
)
def test_a_file_with_other_names_trains_validates_and_leaves_a_prior(
    tmp_path: Path,
    amass: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    more: dict[str, float],
    validates: bool,
) -> None:
    """With validation, without it, and without a clip to validate on."""
    monkeypatch.setitem(PRESETS, "small", replace(EMBEDDED, name="small", pose_prior=SMALL))
    share = {"held_out_share": more["share"]} if "share" in more else {}
    stage = {
        "name": "p", "kind": "prior", "steps": 2, "batch": 8, "learning_rate": 1e-2, "poses": str(amass), **share,
    }  # fmt: skip
    every = int(more.get("validate_every", 1))
    plain = {"model": model, "out": str(tmp_path), "workers": 0, "validate_every": every, "stages": [stage]}
    folder = loop.train(from_dict(Settings, plain))
    assert (tmp_path / "validation.csv").is_file() is validates
    record = read_config(folder)[1]
    assert bool(record["validation"]) is not bool(share)  # also without validation during training
    assert record["poses"]["file"] == "amass.npz" and len(record["poses"]["sha256"]) == 64


def test_the_rule_of_the_config_decides(amass: Path) -> None:
    common = {"name": "p", "batch": 8, "learning_rate": 1e-2, "steps": 1, "poses": str(amass)}
    named = PriorStage(**common, held_out=("amass:ACCAD/s2/",))
    held, train = held_out_poses(named), prior_poses(named, "train")
    assert held is not None and len(held.names) == 5 and len(train.names) == 15
    assert all("/s2/" in n for n in held.names) and not set(held.names) & set(train.names)
    assert len(prior_poses(named, "all").names) == 20
    with pytest.raises(ConfigError, match="every clip of the pose file is held out"):
        prior_poses(PriorStage(**common, held_out=("amass:",)), "train")
    with pytest.raises(ConfigError, match=r"begin with 'amass:SFU/'.*begin as 'amass:ACCAD/s0/walk_0_poses'"):
        held_out_poses(PriorStage(**common, held_out=("amass:ACCAD/s2/", "amass:SFU/")))
    with pytest.raises(ConfigError, match=r"held_out_share=1\.0 is not in"):
        held_out_poses(PriorStage(**common, held_out_share=1.0))


def test_what_mixtures_of_codes_give_back() -> None:
    """Between the nearest codes and the latents; fitted to the pose itself better than by distance."""
    model, rest = load_prior(), rest_joints()
    bank = evenly_spaced(PoseBank.load("test"), 24)
    score = evaluate_prior(model, bank, rest)
    assert score.frames == 24 and score.continuous_mm < score.soft_mm < score.mpjpe_mm
    assert fitted_mixtures(model, bank, rest, steps=8) < score.soft_mm


def test_it_learns_and_leaves_a_prior(tmp_path: Path, poses: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "small", replace(EMBEDDED, name="small", pose_prior=SMALL))
    stage = {
        "name": "p", "kind": "prior", "steps": 60, "batch": 32, "warmup_steps": 5, "learning_rate": 1e-2,
        "poses": str(poses),
    }  # fmt: skip
    plain = {
        "model": "small", "out": str(tmp_path), "workers": 0, "validate_every": 3, "log_every": 20, "stages": [stage],
    }  # fmt: skip
    folder = loop.train(from_dict(Settings, plain))
    assert folder == tmp_path / "prior"
    lines = (tmp_path / "validation.csv").read_text().splitlines()
    first, *_, last = (float(line.split(",")[3]) for line in lines[1:])
    assert last < 0.8 * first
    held = held_out_poses(PriorStage(**{k: v for k, v in stage.items() if k != "kind"}))
    assert held is not None
    score = evaluate_prior(load_prior(folder), held, rest_joints())
    assert score.mpjpe_mm == pytest.approx(last, abs=1e-3) and score.frames == 30


def test_validation_clips_are_kept_from_training_and_are_no_test_clips() -> None:
    train, held, everything = (pose_bank(motions) for motions in ("train", "validation", "all"))
    assert len(train) + len(held) == len(everything) == len(PoseBank.load("train"))
    assert 0.04 < len(held) / len(everything) < 0.1
    assert all(name.startswith(VALIDATION_CLIPS) for name in held.names)
    assert not set(held.names) & set(train.names)
    assert not set(held.names) & set(PoseBank.load("test").names)
