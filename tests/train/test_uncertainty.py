"""The stage trains its head alone, may begin without one, hides joints, and calibrates what it leaves."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dpmesh.config import PRESETS
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.losses import uncertainty_term
from dpmesh.metrics import calibration_error
from dpmesh.model import DPMesh
from dpmesh.regressor.uncertainty import DEVIATION, TAILS, UncertaintyHead
from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.config_file import read_settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import BLIND, Part, batches
from dpmesh.train.objectives.occlusion_augment import hide
from dpmesh.train.objectives.uncertainty import UncertaintyObjective, calibrate
from dpmesh.train.stages import UncertaintyStage

CONFIG = Path(__file__).parents[2] / "configs/embedded_sigma.toml"
HEAD = "regressor.uncertainty."
STAGE: dict[str, Any] = {
    "name": "s", "kind": "uncertainty", "steps": 2, "batch": 2, "learning_rate": 1e-2, "warmup_steps": 0,
    "keypoint_batch": 4,
}  # fmt: skip


@pytest.fixture
def sure(child: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a narrow configuration with the head."""
    regressor = replace(child.READING.regressor, uncertainty=8)
    monkeypatch.setitem(PRESETS, "sure", replace(child.READING, name="sure", regressor=regressor))
    return "sure"


@pytest.fixture
def start(child: ModuleType, sure: str, tmp_path: Path) -> Path:
    """Weights without the head."""
    torch.manual_seed(0)
    config = PRESETS[sure]
    model = DPMesh(replace(config, regressor=replace(config.regressor, uncertainty=0)))
    model.pose_prior.codebook.codes.normal_()
    model.save_pretrained(tmp_path / "start", {"made": "here"})
    return tmp_path / "start"


def settings(start: Path, out: Path, stage: dict[str, Any] = STAGE, **more: Any) -> Settings:
    changes = {
        "model": "sure",
        "start": str(start),
        "out": str(out),
        "workers": 0,
        "validation_people": 8,
        **more,
    }
    return replace(read_settings(CONFIG, changes), stages=(UncertaintyStage(**stage),))


def test_a_run_moves_the_head_alone_and_leaves_it_calibrated(start: Path, tmp_path: Path):
    folder = loop.train(settings(start, tmp_path / "run"))
    before, after = DPMesh.from_pretrained(start), DPMesh.from_pretrained(folder)
    state = after.state_dict()
    assert {n for n in state if n.startswith(HEAD)} == set(state) - set(before.state_dict())
    for name, value in before.state_dict().items():
        assert torch.equal(state[name], value), name
    assert state[HEAD + "out"].any()
    assert state[HEAD + "offset"][1:].all() and not torch.equal(state[HEAD + "slope"], torch.ones(30))
    assert after.provenance["answers"] == {"made": "here"}
    assert after.provenance["calibrated_on"] == "8 validation people, each twice"
    *_, last = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    rank, rose = map(float, last.split(",")[-2:])
    assert -1 <= rank <= 1 and 0 <= rose <= 1
    again = make_objective(
        TrainingContext.resolve(settings(folder, tmp_path / "again")), 0
    )  # and weights that have it keep it
    assert isinstance(again, UncertaintyObjective)
    assert torch.equal(again.head.out, state[HEAD + "out"])


def test_a_missing_head_is_an_error_everywhere_else(
    start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    make_objective(TrainingContext.resolve(settings(start, tmp_path)), 0)
    assert "a new one is trained" in caplog.text
    images = read_settings(CONFIG.with_name("embedded_more.toml"), {"model": "sure", "start": str(start)})
    with pytest.raises(ConfigError, match="embedded_sigma"):
        make_objective(TrainingContext.resolve(images), 0)
    plain = json.loads((start / "config.json").read_text())
    plain["config"]["regressor"]["uncertainty"] = 8
    (start / "config.json").write_text(json.dumps(plain))
    for load in (
        lambda: DPMesh.from_pretrained(start),
        lambda: make_objective(TrainingContext.resolve(settings(start, tmp_path)), 0),
    ):
        with pytest.raises(WeightsError, match=r"missing: regressor\.uncertainty"):
            load()


def test_weights_that_differ_elsewhere_or_none_are_refused(start: Path, tmp_path: Path, child: ModuleType):
    with pytest.raises(ConfigError, match="not weights of"):
        make_objective(TrainingContext.resolve(settings(start, tmp_path, model="embedded")), 0)
    with pytest.raises(ConfigError, match="no weights"):
        make_objective(TrainingContext.resolve(replace(settings(start, tmp_path), start="")), 0)
    torch.manual_seed(0)
    bare = DPMesh(child.READING)
    with pytest.raises(ConfigError, match="uncertainty = 0"):
        UncertaintyObjective(bare, UncertaintyStage(**STAGE), settings(start, tmp_path))


def test_a_step_has_each_person_twice_and_people_without_images(start: Path, tmp_path: Path):
    run_settings = settings(start, tmp_path)
    objective = make_objective(TrainingContext.resolve(run_settings), 0).train()
    assert isinstance(objective, UncertaintyObjective)
    part, _, batch = next(batches(run_settings.stages[0], run_settings, range(1)))
    batches_run: list[int] = []
    objective.head.register_forward_hook(lambda _head, _args, out: batches_run.append(len(out)))
    total, terms = objective(batch, part)
    assert batches_run == [4, 4]
    assert set(terms) == {"uncertainty", "uncertainty_blind", "hiding"}
    torch.testing.assert_close(total, terms["uncertainty"] + terms["uncertainty_blind"] + terms["hiding"])
    image_batch = {name: v for name, v in batch.items() if not name.startswith(BLIND)}
    assert set(objective(image_batch, part)[1]) == {"uncertainty", "hiding"}
    assert {id(p) for p in objective.groups()[0].parameters} == {
        id(p) for p in objective.parameters() if p.requires_grad
    }


@pytest.mark.slow
def test_hidden_joints_learn_a_larger_sigma(start: Path, tmp_path: Path):
    """The same few people again and again, by the hiding term alone."""
    run_settings = settings(start, tmp_path, {**STAGE, "batch": 4, "keypoint_batch": 0})
    objective = make_objective(TrainingContext.resolve(run_settings), 0).train()
    assert isinstance(objective, UncertaintyObjective)
    _, _, batch = next(batches(run_settings.stages[0], run_settings, range(1)))
    optimiser = torch.optim.Adam(objective.head.parameters(), lr=1e-2)

    def hiding() -> torch.Tensor:
        return objective(batch, Part(1, 0))[1]["hiding"]

    first = float(hiding().detach())
    assert first == pytest.approx(
        0.1, abs=1e-3
    )  # a new head predicts the same for all: short of RISE by RISE
    for _ in range(40):
        optimiser.zero_grad()
        hiding().backward()
        optimiser.step()
    assert float(hiding().detach()) < 0.03
    judged, under = objective.judge_twice(batch, np.random.default_rng([Part(1, 0).own_seed, 23]))
    before, after = judged.log_scale.detach().chunk(2)
    assert (after > before)[under].float().mean() > 0.9  # up, not only apart


def test_hiding_covers_and_drops_the_joints_that_it_returns():
    rng = np.random.default_rng(0)
    crop, joints = torch.rand(64, 3, 256, 256), torch.rand(64, 30, 2) * 255
    visible = (torch.rand(64, 30) < 0.6).float()
    visible[3] = 0
    hidden = hide(rng, crop, joints, visible)
    changed = (hidden.crop != crop).any(1)  # (b, h, w)
    assert changed.flatten(1).any(1).all()
    columns, rows = joints.long().unbind(-1)
    at = changed[torch.arange(64)[:, None], rows, columns]  # whether the image changed at each joint's pixel
    assert at[hidden.under].float().mean() > 0.99
    assert (visible[hidden.under] == 1).all() and (hidden.visible[hidden.under] == 0).all()
    assert (hidden.visible <= visible).all()
    assert hidden.under.any(1).float().mean() > 0.9 and not hidden.under[3].any()
    besides = (visible > 0) & ~hidden.under
    dropped = (besides & (hidden.visible == 0)).float().sum(1) / besides.float().sum(1).clamp(min=1)
    assert 0.1 < (dropped > 0).float().mean() < 0.4 and dropped.max() < 0.8
    share = changed.float().mean((1, 2))
    assert share.min() < 0.03 and 0.15 < share.max() < 0.75  # small ones and large ones
    grey = (hidden.crop - 128 / 255).abs().amax(1) < 1e-6
    assert 0.3 < (grey.flatten(1).sum(1) > 20).float().mean() < 0.7


def test_the_calibration_finds_what_was_planted():
    """Errors drawn from the model of the error with other scales than the head predicts."""
    g = torch.Generator().manual_seed(0)
    n = 4000
    head = UncertaintyHead(30, 8, 2, map_width=4, state_width=4, regressed=4)
    log_scale = -2.5 + 0.5 * torch.randn(n, 30, generator=g)
    offset, slope = torch.linspace(-0.5, 0.5, 30), torch.linspace(0.6, 1.6, 30)
    true = (offset + slope * log_scale).exp()
    chi = torch.distributions.Chi2(torch.tensor(TAILS))
    torch.manual_seed(0)
    errors = (
        torch.randn(n, 30, 3, generator=g) * (TAILS / chi.sample((n, 30)))[..., None].sqrt() * true[..., None]
    )
    errors[:, 0] = 0  # errors are relative to the pelvis
    truth = torch.randn(n, 30, 3, generator=g) + torch.tensor([0.0, 0.0, 5.0])
    known = torch.ones(n, 30)
    known[:50] = 0
    errors[:50] = 100.0  # joints of unknown position may be anywhere
    prediction = truth + errors

    def expected() -> float:
        sigma, length = head.sigma(log_scale)[50:, 1:], errors[50:, 1:].norm(dim=-1)
        return calibration_error(sigma.detach().numpy(), length.numpy())

    assert expected() > 0.05
    calibrate(head, log_scale, prediction, truth, known)
    torch.testing.assert_close(head.get_buffer("slope")[1:], slope[1:], atol=0.08, rtol=0)
    middle = offset + slope * -2.5
    torch.testing.assert_close(
        (head.get_buffer("offset") - 2.5 * head.get_buffer("slope"))[1:], middle[1:], atol=0.05, rtol=0
    )
    assert expected() < 0.01
    assert uncertainty_term(head.calibrated(log_scale), prediction, truth, known) < uncertainty_term(
        log_scale, prediction, truth, known
    )
    assert pytest.approx((TAILS / (TAILS - 2)) ** 0.5) == DEVIATION
