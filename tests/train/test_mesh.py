"""Targets keep their precision, each stage has its inputs and trains its parts, masks reach the losses."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from dpmesh.ablations import configuration, with_conditions
from dpmesh.errors import ConfigError
from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_prior
from dpmesh.train.config import Settings
from dpmesh.train.config_file import read_settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import BLIND, Part, Tensors, batches
from dpmesh.train.distributed import make_fabric
from dpmesh.train.objectives.mesh import MeshObjective, latent_term, targets_of, true_joints
from dpmesh.train.stage_run import StageRun
from dpmesh.train.stages import ImageStage, KeypointStage, StudentStage, TeacherStage

SETTINGS: Settings = replace(
    read_settings(Path(__file__).parents[2] / "configs/embedded.toml"), workers=0, precision="32-true"
)
COMMON: dict[str, Any] = {"name": "s", "steps": 1, "batch": 3, "learning_rate": 1e-3}
FIRST = Part(1, 0)


def batch_of(stage: Any) -> Tensors:
    return next(batches(stage, SETTINGS, range(1)))[2]


def model() -> DPMesh:
    torch.manual_seed(0)
    made = DPMesh.from_config("embedded")
    made.pose_prior.load_state_dict(load_prior().as_decoder().state_dict())
    return made


def test_targets_reach_the_losses_unrounded(monkeypatch: pytest.MonkeyPatch):
    """bf16 knows a depth of four metres to 16 mm only."""
    targets: list[torch.Tensor] = []
    stage = KeypointStage(**COMMON)
    batch = batch_of(stage)
    names = ("joints3d", "joints2d", "pose")
    monkeypatch.setattr(
        "dpmesh.train.objectives.mesh.targets_of",
        lambda given: targets.extend(given[name] for name in names) or targets_of(given),
    )
    objective = Fabric(accelerator="cpu", devices=1).setup_module(
        MeshObjective(model(), stage, replace(SETTINGS, precision="bf16-mixed"))
    )
    loss, _ = objective(batch, FIRST)
    assert torch.isfinite(loss)
    for got, name in zip(targets, names, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, batch[name])
    with torch.autocast("cpu", torch.bfloat16):
        assert targets_of(batch)[0].rotations.dtype == torch.float32


def test_the_pose_target_is_the_true_poses_place_in_code_space():
    stage = KeypointStage(**COMMON)
    prior = model().pose_prior
    truth, known = targets_of(batch_of(stage))
    place = prior.encode(truth.rotations[:, 1:22])
    assert latent_term(prior, place, truth, known) == 0
    assert latent_term(prior, place + 0.5, truth, known) == pytest.approx(0.25, abs=1e-4)
    pose = known.pose.clone()
    pose[0, 5] = 0  # of one person of three a joint is unknown, so its place is
    assert latent_term(prior, place + 0.5, truth, replace(known, pose=pose)) == pytest.approx(1 / 6, abs=1e-4)


def test_images_train_everything_and_keypoints_the_lifter():
    for stage, idle in ((KeypointStage(**COMMON), ("backbone", "prompt")), (ImageStage(**COMMON), ())):
        objective = MeshObjective(model(), stage, SETTINGS)
        objective(batch_of(stage), FIRST)[0].backward()
        moved = {
            name.split(".")[1]
            for name, p in objective.named_parameters()
            if p.grad is not None and p.grad.any()
        }
        assert moved == {"backbone", "prompt", "regressor", "pose_tokens"} - set(idle)


def test_rehearsed_people_add_their_own_loss():
    stage = ImageStage(**{**COMMON, "batch": 2}, keypoint_batch=4)
    batch = batch_of(stage)
    image_batch = {name: v for name, v in batch.items() if not name.startswith(BLIND)}
    blind = {name.removeprefix(BLIND): v for name, v in batch.items() if name.startswith(BLIND)}
    assert len(blind["joints"]) == 4
    assert "crop" not in blind
    objective = MeshObjective(model(), stage, SETTINGS).eval()
    torch.testing.assert_close(
        objective(batch, FIRST)[0],
        objective(image_batch, FIRST)[0] + objective(blind, FIRST)[0],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.fixture(scope="module")
def image_batch() -> Tensors:
    return batch_of(TeacherStage(**COMMON))


def test_a_teacher_gets_ground_truth_joints_and_a_student_fewer_than_were_detected(image_batch: Tensors):
    batch = {name: values.clone() for name, values in image_batch.items()}
    batch["joints2d_valid"][:, 4] = 0
    batch["joints2d"][0, 5] = torch.tensor([256.0, 10.0])
    joints, visible = true_joints(batch)
    inside = ((batch["joints2d"] >= 0) & (batch["joints2d"] < 256)).all(-1)
    assert not visible[:, 4].any() and visible[0, 5] == 0
    assert torch.equal(visible, inside * batch["joints2d_valid"])
    assert torch.equal(joints[visible > 0], batch["joints2d"][visible > 0])

    student = MeshObjective(model(), StudentStage(**COMMON, p_drop_joint=0.5), SETTINGS)
    drops = []
    for step in range(40):
        joints, kept = student.input_joints(batch, Part(1, step))
        assert (kept <= batch["visible"]).all()
        assert torch.equal(joints, batch["joints"])
        drops.append(1 - kept.sum() / batch["visible"].sum())
    assert torch.stack(drops).mean() == pytest.approx(0.5, abs=0.06)
    assert torch.equal(student.input_joints(batch)[1], batch["visible"])  # nothing is dropped in validation


def test_what_is_not_known_has_no_gradient(image_batch: Tensors):
    """A person without any known target moves nothing, wherever the target is."""
    unknown = {name: values.clone() for name, values in image_batch.items()}
    for name in (
        "joints2d_valid",
        "joints3d_valid",
        "pose_valid",
        "betas_valid",
        "fit_valid",
        "surface_valid",
    ):
        unknown[name].zero_()
    objective = MeshObjective(model(), ImageStage(**COMMON), SETTINGS)
    loss, terms = objective(unknown, FIRST)
    loss.backward()
    assert all(value == 0 for value in terms.values()), terms
    assert not any(p.grad.any() for p in objective.parameters() if p.grad is not None)


def trained(
    child: ModuleType, out: Path, stage: dict[str, Any], **more: Any
) -> tuple[StageRun, dict[str, torch.Tensor]]:
    """A run of a few steps, and its weights before."""
    settings = child.settings(out, stage, **more)
    run = StageRun(
        make_fabric(settings),
        make_objective(TrainingContext.resolve(settings), 0),
        TrainingContext.resolve(settings),
        0,
    )
    before = {name: p.detach().clone() for name, p in run.objective.named_parameters()}
    for part, _ids, batch in batches(run.stage, settings, range(stage["steps"])):
        run.set_rates()
        run.optimizer.zero_grad()
        run.module(batch, part)[0].backward()
        run.clip_gradients()
        run.optimizer_step()
    return run, before


def test_under_paper_only_what_the_paper_trains_moves(child: ModuleType, tmp_path: Path):
    """LoRA, ControlNet, prompt, fusion and regressor; three steps, since LoRA and ControlNet start behind zeros."""
    run, before = trained(child, tmp_path / "run", child.stage("teacher"))
    moved, still = set(), set()
    for name, p in run.objective.named_parameters():
        kind = "lora" if ".lora_" in name else ".".join(name.split(".")[1 : 3 if ".backbone." in name else 2])
        (still if torch.equal(before[name], p.detach()) else moved).add(kind)
    assert moved == {"lora", "backbone.controlnet", "backbone.fusion", "prompt", "regressor", "pose_tokens"}
    assert {"backbone.vae", "backbone.unet", "pose_prior"} <= still
    frozen = [name for name, p in run.objective.named_parameters() if not p.requires_grad]
    assert all(torch.equal(before[name], run.objective.get_parameter(name)) for name in frozen)
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in run.objective.parameters() if p.requires_grad}


def test_a_stage_leaves_a_part_of_the_backbone_as_it_is():
    stage = ImageStage(**COMMON, frozen=("vae",))
    objective = MeshObjective(model(), stage, SETTINGS)
    trained = {id(p) for group in objective.groups() for p in group.parameters}
    backbone = objective.model.backbone
    assert not trained & {id(p) for p in backbone.get_submodule("vae").parameters()}
    assert {id(p) for p in backbone.get_submodule("controlnet").parameters()} <= trained
    assert objective.model.config.frozen == ()  # the weights are as any others
    objective(batch_of(stage), FIRST)[0].backward()
    assert all(p.grad is None for p in backbone.get_submodule("vae").parameters())


def test_a_stage_cannot_leave_a_part_that_the_backbone_lacks():
    bare = DPMesh(with_conditions(configuration("embedded"), "z0"))
    with pytest.raises(ConfigError, match="frozen has controlnet, which the backbone lacks"):
        MeshObjective(bare, ImageStage(**COMMON, frozen=("controlnet",)), SETTINGS)


def test_the_two_rates_really_differ(child: ModuleType, tmp_path: Path):
    """Adam's first step is the rate itself, whatever the gradient."""
    stage = child.stage("teacher", steps=1, warmup_steps=0, backbone_lr_factor=0.1)
    run, before = trained(child, tmp_path / "run", stage, weight_decay=0.0, losses={"automatic": True})
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([1e-3, 1e-4, 1e-3])
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.0, 0.0, 0.0]

    def farthest(names: str) -> float:
        return max(
            float((before[name] - p.detach()).abs().max())
            for name, p in run.objective.named_parameters()
            if name.startswith(names) and p.requires_grad
        )

    assert farthest("model.regressor") == pytest.approx(1e-3, rel=1e-2)
    assert farthest("model.backbone") == pytest.approx(1e-4, rel=1e-2)


def test_loss_weights_are_neither_decayed_nor_clipped(child: ModuleType, tmp_path: Path):
    settings = child.settings(
        tmp_path / "run", child.stage("teacher"), losses={"automatic": True}, weight_decay=0.5
    )
    run = StageRun(
        make_fabric(settings),
        make_objective(TrainingContext.resolve(settings), 0),
        TrainingContext.resolve(settings),
        0,
    )
    assert run.optimizer.param_groups[-1]["weight_decay"] == 0
    assert {group["weight_decay"] for group in run.optimizer.param_groups[:-1]} == {0.5}
    for p in run.objective.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    norm = run.clip_gradients()
    counted = sum(p.numel() for p in run.objective.model.parameters() if p.requires_grad)
    assert norm == pytest.approx(counted**0.5, rel=1e-4)
    assert torch.equal(run.objective.balance.grad, torch.ones_like(run.objective.balance))
    assert next(run.objective.model.regressor.parameters()).grad.max() == pytest.approx(
        1 / counted**0.5, rel=1e-3
    )


def test_checkpointing_changes_memory_and_nothing_else(child: ModuleType, tmp_path: Path):
    """The same gradients, with fewer numbers kept for them."""
    kept, grads = [], []
    for checkpointing in (False, True):
        settings = child.settings(
            tmp_path / "run", child.stage("teacher"), activation_checkpointing=checkpointing
        )
        torch.manual_seed(0)
        run = StageRun(
            make_fabric(settings),
            make_objective(TrainingContext.resolve(settings), 0),
            TrainingContext.resolve(settings),
            0,
        )
        (part, _ids, batch) = next(batches(run.stage, settings, range(1)))
        sizes = list[int]()

        def keep(x: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss, _ = run.module(batch, part)
        loss.backward()
        kept.append(sum(sizes))
        grads.append({name: p.grad for name, p in run.objective.named_parameters() if p.grad is not None})
    assert kept[1] < 0.6 * kept[0]
    assert set(grads[0]) == set(grads[1])
    for name, value in grads[0].items():
        torch.testing.assert_close(grads[1][name], value, msg=name)
