"""A model of the paper's parts at the narrowest widths, and a process that trains it: tests start this file."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dpmesh.cli import train as cli
from dpmesh.config import PAPER, PRESETS
from dpmesh.config_io import from_dict
from dpmesh.errors import DPMeshError
from dpmesh.pose_prior.files import save_prior
from dpmesh.pose_prior.vqvae import PoseVQVAE
from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import batches
from dpmesh.train.distributed import average_scalars, make_fabric
from dpmesh.train.stage_run import StageRun, full_tensor

TINY = replace(
    PAPER,
    name="tiny",
    backbone=replace(
        PAPER.backbone,
        vae=replace(PAPER.backbone.vae, channels=(8, 8, 16, 16), layers=1, groups=4),
        unet=replace(
            PAPER.backbone.unet, channels=(16, 16, 32, 32), layers=1, groups=8, heads=2, context_width=12
        ),
        fused_channels=32,
    ),
    prompt=replace(PAPER.prompt, width=12),
    regressor=replace(
        PAPER.regressor, fused_channels=32, width=16, heads=2, inner=24, volume_inner=24, pose_code=8
    ),
    pose_prior=replace(
        PAPER.pose_prior, tokens=6, codes=10, code_width=5, encoder_width=8, encoder_layers=1, decoder_width=8
    ),
    token_width=4,
    lora_rank=3,
)
# The embedded model's own parts: a reading, a lifter, points in code space, everything trained.
READING = replace(
    TINY,
    name="reading",
    backbone=replace(TINY.backbone, reading=True),
    regressor=replace(TINY.regressor, lifter=16),
    token_mode="points",
    lora_rank=0,
    frozen=(),
)
PRESETS.update(tiny=TINY, reading=READING)


def make_prior(folder: Path) -> Path:
    """A pose prior that was never trained but has codes."""
    torch.manual_seed(0)
    prior = PoseVQVAE(TINY.pose_prior)
    prior.codebook.codes.normal_()
    save_prior(prior, folder, {})
    return folder


def stage(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "name": kind,
        "kind": kind,
        "batch": 4,
        "steps": 3,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        **more,
    }


def settings(out: Path, *stages: dict[str, Any], **more: Any) -> Settings:
    """Settings of the tiny model, its prior next to `out`; fp32, batches made in this process, no previews."""
    prior = out.parent / "prior"
    if not prior.is_dir():
        make_prior(prior)
    plain = {
        "model": "tiny", "allow_random_backbone": True,
        "prior": str(prior), "out": str(out), "precision": "32-true", "workers": 0, "log_every": 1,
        "validate_every": 0, "preview_every": 0, "validation_people": 2, "checkpoint_every": 1e9,
        "stages": list(stages), "data": {"overfit_people": 4}, **more,
    }  # fmt: skip
    return from_dict(Settings, plain)


def make_weights(out: Path, model: str, seed: int) -> str:
    """A folder of random weights next to `out`; made once."""
    folder = out.parent / f"{model}_{seed}"
    if not folder.is_dir():
        run_settings = settings(out, stage("teacher"), model=model)
        torch.manual_seed(seed)
        objective = make_objective(TrainingContext.resolve(run_settings), 0)
        with torch.no_grad():  # nothing stays at its zero start
            for parameter in objective.parameters():
                if parameter.requires_grad and not parameter.any():
                    parameter.normal_(std=0.1)
        objective.save(folder, {})
    return str(folder)


def gradients(run_settings: Settings) -> tuple[bool, dict[str, torch.Tensor]]:
    """Whether this is the first process; of the first step, the mean over all processes."""
    fabric = make_fabric(run_settings)
    objective = make_objective(TrainingContext.resolve(run_settings), 0)
    with in_float64():
        objective.double()
        if getattr(objective, "teaching", None) is not None:
            objective.teaching.teacher.double()
        run = StageRun(fabric, objective, TrainingContext.resolve(run_settings), 0)
        for part, _ids, batch in batches(
            run.stage, run_settings, range(1), fabric.global_rank, fabric.world_size
        ):
            batch = {name: v.double() if v.is_floating_point() else v for name, v in batch.items()}
            loss, _terms = run.module(batch, part)
            fabric.backward(loss / run.stage.accumulate)
        average_scalars(fabric, run.objective)
        grads = {
            name: full_tensor(p.grad) for name, p in run.objective.named_parameters() if p.grad is not None
        }
        fabric.barrier()
        return fabric.global_rank == 0, grads


@contextmanager
def in_float64() -> Iterator[None]:
    """fp32 becomes float64: in fp32 two orders of summation differ by some 1e-6 of the gradient."""
    plain = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = plain


def killed_after(stage: int, step: int) -> None:
    """SIGKILL as soon as the checkpoint of this step is written."""
    save = loop.save_checkpoint

    def and_die(out: Path, state: dict[str, Any]) -> None:
        save(out, state)
        if (state["stage"], state["step"]) == (stage, step):
            os.kill(os.getpid(), signal.SIGKILL)

    loop.save_checkpoint = and_die


def as_a_command(run_settings: Settings) -> int:
    """As `dpmesh train` has it."""
    try:
        return cli.run_training(run_settings)
    except DPMeshError as error:
        sys.stderr.write(f"dpmesh: {' '.join(str(error).split())}\n")
        return 1


def main(verb: str, out: str, words: str) -> None:
    torch.set_num_threads(1)
    plain = json.loads(words)
    dies = plain.pop("dies", None)
    run_settings = settings(Path(out), *plain.pop("stages"), **plain)
    if verb == "train":
        if dies:
            killed_after(*dies)
        sys.exit(as_a_command(run_settings))
    first, values = gradients(run_settings)
    if first:
        torch.save(values, f"{out}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
