"""Stored priors: the round trip, refusals, and what the shipped one is worth."""

import json
from pathlib import Path

import pytest
import torch

from dpmesh.data.poses import PoseBank
from dpmesh.errors import WeightsError
from dpmesh.pose_prior.files import load_any_prior, load_prior, save_prior
from dpmesh.pose_prior.vqvae import PoseVQVAE, PoseVQVAEConfig
from dpmesh.train.objectives.vqvae import evaluate_prior, rest_joints

SMALL = PoseVQVAEConfig(
    tokens=6, codes=20, code_width=5, encoder_width=8, encoder_layers=1, decoder_width=8, decoder_layers=1
)


def test_round_trip(tmp_path: Path) -> None:
    model = PoseVQVAE(SMALL).train()
    rotations = torch.eye(3).expand(2, 21, 3, 3)
    model(rotations)  # fills the codebook
    save_prior(model, tmp_path, {"why": "test"})
    again = load_prior(tmp_path)
    assert not again.training and again.config == SMALL
    assert torch.equal(again(rotations).rotations, model.eval()(rotations).rotations)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_prior(PoseVQVAE(SMALL), tmp_path, {})
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["config"]["codes"] = 21
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(WeightsError, match=r"codebook\.codes"):
        load_prior(tmp_path)
    stored["config"]["colour"] = 1
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(WeightsError, match="colour"):
        load_prior(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError):
        load_prior(tmp_path)


def test_the_shipped_prior_reconstructs_held_out_poses() -> None:
    model = load_prior()
    test = PoseBank.load("test")
    score = evaluate_prior(model, test, rest_joints())
    assert score.mpjpe_mm <= 15 and score.code_use >= 0.6 and score.frames == len(test)
    decoding = sum(
        p.numel()
        for name, p in model.named_parameters()
        if name.startswith(("from_code", "token_place", "to_joints", "decoder", "joint_out"))
    )
    assert decoding + model.codebook.codes.numel() <= 1_000_000


@pytest.mark.parametrize(
    "change",
    [{"codes": 10**9}, {"codes": -1}, {"encoder_layers": 10**9}, {"tokens": "6"}, {"decay": float("nan")},
     {"joints": 24}, {"codes": 65_536, "code_width": 65_536}, {"kind": "vposer"}, {"kind": []},
     {"decoder_layers": None}],
)  # fmt: skip
def test_a_damaged_config_is_one_line(tmp_path: Path, change: dict[str, object]) -> None:
    save_prior(PoseVQVAE(SMALL), tmp_path, {})
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(WeightsError) as caught:
        load_any_prior(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
