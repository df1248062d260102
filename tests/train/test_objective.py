"""Targets keep their precision, the image side trains where there are images, the pose has a target in code space."""

from pathlib import Path

import torch
from lightning_fabric import Fabric

from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_prior
from dpmesh.train.feed import BLIND, Tensors, feed
from dpmesh.train.objective import Objective, _latent_term, truth_of
from dpmesh.train.settings import Settings, Stage, read_settings

SETTINGS: Settings = read_settings(Path(__file__).parents[2] / "configs/embedded.toml")


def batch_of(source: str) -> tuple[Stage, Tensors]:
    stage = Stage(name="s", source=source, steps=1, batch=3, learning_rate=1e-3)  # type: ignore[arg-type]
    return stage, next(feed(stage, 1, 0, 0, 0, 1))


def model() -> DPMesh:
    torch.manual_seed(0)
    made = DPMesh.from_config("embedded")
    made.pose_prior.load_state_dict(load_prior().as_decoder().state_dict())
    return made


def test_targets_reach_the_losses_unrounded(monkeypatch):
    """bf16 knows a depth of four metres to 16 mm only."""
    seen: list[torch.Tensor] = []
    stage, batch = batch_of("keypoints")
    monkeypatch.setattr(
        "dpmesh.train.objective.truth_of",
        lambda given: (
            seen.extend(given[name] for name in ("joints3d", "joints2d", "pose")) or truth_of(given)
        ),
    )
    objective = Fabric(accelerator="cpu", devices=1).setup_module(
        Objective(model(), SETTINGS.losses, stage, bf16=True)
    )
    loss, _ = objective(batch, 0)
    assert torch.isfinite(loss)
    for got, name in zip(seen, ("joints3d", "joints2d", "pose"), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, batch[name])
    with torch.autocast("cpu", torch.bfloat16):
        assert truth_of(batch).rotations.dtype == torch.float32


def test_the_pose_target_is_the_true_poses_place_in_code_space():
    stage, batch = batch_of("keypoints")
    objective = Objective(model(), SETTINGS.losses, stage)
    truth = truth_of(batch)
    place = objective.model.pose_prior.encode(truth.rotations[:, 1:22])
    assert _latent_term(objective.model.pose_prior, place, truth) == 0
    assert torch.isclose(
        _latent_term(objective.model.pose_prior, place + 0.5, truth), torch.tensor(0.25), atol=1e-4
    )


def test_pictures_train_everything_and_keypoints_the_lifter():
    for source, idle in (("keypoints", ("backbone", "prompt")), ("images", ())):
        stage, batch = batch_of(source)
        objective = Objective(model(), SETTINGS.losses, stage)
        objective(batch, 0)[0].backward()
        moved = {
            name.split(".")[1]
            for name, p in objective.named_parameters()
            if p.grad is not None and p.grad.any()
        }
        assert moved == {"backbone", "prompt", "regressor", "pose_tokens"} - set(idle)


def test_rehearsed_people_add_their_own_loss():
    stage = Stage(name="s", source="images", steps=1, batch=2, learning_rate=1e-3, rehearsal=4)
    batch = next(feed(stage, 1, 0, 0, 0, 1))
    pictures = {name: v for name, v in batch.items() if not name.startswith(BLIND)}
    blind = {name.removeprefix(BLIND): v for name, v in batch.items() if name.startswith(BLIND)}
    assert len(blind["joints"]) == 4
    assert "crop" not in blind
    objective = Objective(model(), SETTINGS.losses, stage).eval()
    torch.testing.assert_close(
        objective(batch, 3)[0], objective(pictures, 3)[0] + objective(blind, 3)[0], rtol=1e-5, atol=1e-5
    )
