"""Muon for the backbone's matrices: what it steps and how far, that it resumes, and what it refuses."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from dpmesh.errors import ConfigError
from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.objectives.base import Group
from dpmesh.train.optimizers import make_optimizer


@pytest.fixture
def settings(child: ModuleType, tmp_path: Path) -> Settings:
    return child.settings(tmp_path / "run", child.stage("images", steps=4), model="reading", optimizer="muon")


def stepped(groups: list[Group], settings: Settings, rate: float = 0.01) -> list[torch.Tensor]:
    """The change of each parameter by a step on a fixed gradient, in the order of the groups."""
    parameters = [p for group in groups for p in group.parameters]
    torch.manual_seed(0)
    for p in parameters:
        p.grad = torch.randn_like(p)
    before = [p.detach().clone() for p in parameters]
    optimizer = make_optimizer(groups, rate, settings, sharded=False)
    for options in optimizer.param_groups:
        options["lr"] = rate * options["factor"]
    optimizer.step()
    return [p.detach() - b for p, b in zip(parameters, before, strict=True)]


def groups() -> list[Group]:
    kernel, bias = nn.Parameter(torch.zeros(16, 8, 3, 3)), nn.Parameter(torch.zeros(16))
    return [
        Group("regressor", [nn.Parameter(torch.zeros(16, 72))]),
        Group("backbone", [kernel, bias], 3.0, backbone=True),
        Group("loss weights", [nn.Parameter(torch.ones(2))], loss_weights=True),
    ]


def test_muon_makes_the_step_of_a_kernel_orthogonal(settings: Settings):
    """All singular values of the step are equal, its root mean square a fifth of the rate, as AdamW's steps have about.
    Of everything else each number moves by itself, as under AdamW: in a first step all of a group equally far."""
    matrix, kernel, bias, weights = stepped(groups(), settings)
    values = torch.linalg.svdvals(kernel.reshape(16, 72))
    assert values.max() / values.min() < 2
    assert kernel.square().mean().sqrt().item() == pytest.approx(0.2 * 0.03, rel=0.25)
    for alone in (matrix, bias, weights):
        assert alone.abs().max() / alone.abs().min() < 1.05
    assert (bias.abs().max() / matrix.abs().max()).item() == pytest.approx(3, rel=0.01)
    plain = stepped(groups(), replace(settings, optimizer="adamw"))[1]
    assert plain.abs().max() / plain.abs().min() < 1.05


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_weights(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    whole = replace(settings, out=settings.out + "_whole")
    loop.train(whole)
    stopping = replace(settings, checkpoint_every=0.0)
    with monkeypatch.context() as patch:
        steps = iter(range(3))
        save = loop.save_checkpoint
        patch.setattr(loop, "save_checkpoint", lambda out, state: (save(out, state), _stop(next(steps))))
        with pytest.raises(KeyboardInterrupt):
            loop.train(stopping)
    loop.train(stopping)
    one, other = ((Path(s.out) / "weights/model.safetensors").read_bytes() for s in (whole, stopping))
    assert one == other


def _stop(step: int) -> None:
    if step == 1:
        raise KeyboardInterrupt


def test_muon_is_refused_where_it_cannot_work(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="whole matrices"):
        make_optimizer(groups(), 1e-3, settings, sharded=True)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"muon needs timm, and timm is not installed"):
        make_optimizer(groups(), 1e-3, settings, sharded=False)
