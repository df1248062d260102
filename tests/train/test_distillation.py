"""Eq. 7-8: what the two terms are, who gets a gradient, and that each student wants its own teacher."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import Part, batches
from dpmesh.train.objectives.distillation import TEMPERATURE, contrast, watch
from dpmesh.train.objectives.mesh import MeshObjective


def test_the_contrast_is_simclrs():
    """Written out: -log of the softmax of -(1 - cos) / τ at the own teacher."""
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 30), torch.randn(4, 30)
    cosine = F.cosine_similarity(student[:, None], teacher[None], dim=-1)
    likely = torch.exp(-(1 - cosine) / TEMPERATURE)
    by_hand = -(likely.diagonal() / likely.sum(1)).log().mean()
    assert contrast(student, teacher) == pytest.approx(float(by_hand), rel=1e-5)
    assert contrast(student[:1], teacher[:1]) == 0  # no other person, and still finite
    assert contrast(3 * student, teacher) == pytest.approx(float(contrast(student, teacher)), rel=1e-5)


@pytest.fixture(scope="module")
def at_work(child: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[MeshObjective, dict]:
    """A student with another teacher, and a batch."""
    out: Path = tmp_path_factory.mktemp("nkr") / "run"
    own, other = child.make_weights(out, "tiny", 1), child.make_weights(out, "tiny", 2)
    settings = child.settings(out, child.stage("student", teacher=other), start=own)
    objective = make_objective(TrainingContext.resolve(settings), 0)
    assert isinstance(objective, MeshObjective)
    return objective, next(batches(settings.stages[0], settings, range(1)))[2]


def test_swapping_two_teacher_features_raises_the_loss(at_work: tuple[MeshObjective, dict]):
    """A student near its teacher; then two people's teachers are exchanged."""
    objective, batch = at_work
    crop = batch["crop"].permute(0, 3, 1, 2).float() / 255
    teacher = objective.teaching.features(crop, batch["joints2d"], batch["joints2d_valid"])
    draw = torch.Generator().manual_seed(0)
    near = {k: v + 0.01 * v.std() * torch.randn(v.shape, generator=draw) for k, v in teacher.items()}

    def terms(teachers: dict[str, torch.Tensor]) -> tuple[float, float]:
        pairs = [(near[k].flatten(1), teachers[k].flatten(1)) for k in near]
        return tuple(float(sum(f(s, t) for s, t in pairs)) for f in (contrast, F.mse_loss))

    swapped = {k: v[[1, 0, *range(2, len(v))]] for k, v in teacher.items()}
    before, after = terms(teacher), terms(swapped)
    assert after[0] > before[0] and after[1] > before[1]


def test_the_features_are_the_two_maps_and_no_gradient_reaches_the_teacher(
    at_work: tuple[MeshObjective, dict],
):
    objective, batch = at_work
    teaching = objective.teaching
    with watch(objective.model) as features:
        loss, terms = objective(batch, Part(1, 0))
    assert {k: tuple(v.shape) for k, v in features.items()} == {
        "map": (4, 64, 16),
        "volume": (4, 16, 8, 8, 8),
    }
    assert terms["nkr_contrast"] > 0 and terms["nkr_mse"] > 0
    loss.backward()
    trained = {id(p) for p in objective.model.parameters() if p.requires_grad}
    own = [p for p in teaching.teacher.parameters() if id(p) not in trained]
    assert len(own) == len(list(teaching.teacher.parameters()))
    assert not any(p.requires_grad or p.grad is not None for p in own)
    assert not any("teach" in name for name in objective.state_dict())

    objective.zero_grad()
    (terms["nkr_mse"].requires_grad, terms["nkr_contrast"].requires_grad)
    _, again = objective(batch, Part(1, 0))
    (again["nkr_contrast"] + again["nkr_mse"]).backward()
    reached = {
        name.split(".")[1] for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached == {"backbone", "prompt", "regressor"}


def test_what_is_frozen_and_alike_is_there_once(
    at_work: tuple[MeshObjective, dict], child: ModuleType, tmp_path: Path
):
    own = child.make_weights(tmp_path / "run", "tiny", 1)
    settings = child.settings(tmp_path / "run", child.stage("student", teacher=own), start=own)
    objective = make_objective(TrainingContext.resolve(settings), 0)
    teacher = objective.teaching.teacher
    shared = {id(p) for p in teacher.parameters()} & {id(p) for p in objective.model.parameters()}
    frozen = {id(p) for p in objective.model.parameters() if not p.requires_grad}
    assert shared == frozen
    for different, alike in zip(
        at_work[0].teaching.teacher.parameters(), at_work[0].model.parameters(), strict=True
    ):
        assert different is not alike or not different.requires_grad
