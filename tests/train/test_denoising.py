"""The denoising stage: who learns from which term, at which timesteps, and that it learns."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import Part, Tensors, batches
from dpmesh.train.objectives.denoising import DenoisingObjective


@pytest.fixture(scope="module")
def at_work(
    child: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DenoisingObjective, Tensors]:
    out: Path = tmp_path_factory.mktemp("pretrain") / "run"
    start = child.make_weights(out, "reading", 1)  # the ControlNet's outputs do not start at zero there
    settings = child.settings(out, child.stage("pretrain"), model="reading", start=start)
    objective = make_objective(TrainingContext.resolve(settings), 0)
    assert isinstance(objective, DenoisingObjective)
    return objective, next(batches(settings.stages[0], settings, range(1)))[2]


def reached(objective: DenoisingObjective, loss: torch.Tensor) -> set[str]:
    objective.zero_grad()
    loss.backward(retain_graph=True)
    names = {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    return {
        ".".join(name.removeprefix("model.").split(".")[: 2 if ".backbone." in name else 1]) for name in names
    }


def test_the_encoder_learns_from_the_image_and_the_rest_from_the_noise(
    at_work: tuple[DenoisingObjective, Tensors],
):
    objective, batch = at_work
    _, terms = objective(batch, Part(1, 0))
    assert reached(objective, terms["denoise"]) == {"backbone.unet", "backbone.controlnet", "prompt", "head"}
    assert reached(objective, terms["reconstruction"] + terms["latent"]) == {"backbone.vae", "decoder"}
    trained = {id(p) for group in objective.groups() for p in group.parameters}
    idle = [objective.model.regressor, objective.model.backbone.fusion, objective.model.pose_prior]
    assert not any(id(p) in trained for part in idle for p in part.parameters())


def test_the_timestep_and_the_conditions_are_heard(at_work: tuple[DenoisingObjective, Tensors]):
    objective, _batch = at_work
    model = objective.model
    latent, control = torch.randn(2, 4, 32, 32), []
    prompt = torch.randn(2, 30, 12)
    hint = torch.rand(2, 30, 32, 32)
    with torch.no_grad():
        for times in ((1.0, 1.0), (1.0, 900.0)):
            step = torch.tensor(times)
            residuals = model.backbone.control(latent, hint, prompt, step)
            control.append((residuals[-1], model.backbone.unet(latent, prompt, residuals, step)[0][-1]))
        plain = model.backbone.control(latent, hint, prompt)
    torch.testing.assert_close(control[0][0], plain[-1])  # 1 is the constant timestep
    for one, other in zip(*control, strict=True):
        assert torch.equal(one[0], other[0]) and not torch.allclose(one[1], other[1])
    timesteps = {float((Part(1, step).chance(4, salt=2) * 1000).long().max()) for step in range(50)}
    assert min(timesteps) < 700 and max(timesteps) > 900


def test_it_learns(at_work: tuple[DenoisingObjective, Tensors]):
    objective, batch = at_work
    start = objective.figures()
    optimizer = torch.optim.AdamW(objective.groups()[0].parameters, lr=1e-2)
    for step in range(12):
        optimizer.zero_grad()
        two = {name: values[:2] for name, values in batch.items()}
        objective(two, Part(1, step))[0].backward()
        optimizer.step()
    end = objective.figures()
    assert end["denoise"] < 0.95 * start["denoise"]
    assert end["reconstruction"] < 0.8 * start["reconstruction"]
    preview = objective.preview(batch)
    assert preview is not None and preview.shape == (4 * 256, 512, 3)
