"""The training loop: stages one after the other on Lightning Fabric, resumable to the step."""

import csv
import logging
import math
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import AdamW

from dpmesh.configurations import configuration
from dpmesh.errors import ConfigError, DPMeshError
from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_prior
from dpmesh.train.feed import feed
from dpmesh.train.objective import Objective
from dpmesh.train.settings import Settings, Stage
from dpmesh.train.validate import figures, held_out, predict

log = logging.getLogger("dpmesh.train")


class DivergedError(DPMeshError):
    """The loss is not a number."""


def train(settings: Settings) -> Path:
    """Run all stages (or what is left of them) and write the weights; returns their folder.

    `settings.out` holds last.ckpt (resume), log_STAGE.csv, validation.csv and, at the end, weights/.
    """
    torch.set_num_threads(settings.threads)
    several = settings.processes > 1 or "TORCHELASTIC_RUN_ID" in os.environ
    # The keypoint stage leaves the decoder without gradients, and DDP wants to be told.
    strategy = "ddp_find_unused_parameters_true" if several else "auto"
    fabric = Fabric(accelerator="auto", strategy=strategy, devices=settings.processes)
    fabric.launch()
    fabric.seed_everything(settings.seed, verbose=False)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    model = _begin(settings)
    state = _resume(out / "last.ckpt", settings)
    if state:
        inner = {
            name.removeprefix("model."): value
            for name, value in state["objective"].items()
            if name.startswith("model.")
        }
        model.load_state_dict(inner)  # a finished stage leaves only the model to the next
        log.info("resumed at stage %s, step %s", state["stage"], state["step"])
    image_side = [p for p in model.backbone.parameters() if p.requires_grad]
    for number, stage in enumerate(settings.stages):
        if state and number < state["stage"]:
            continue
        for parameter in image_side:  # without pictures it gets no gradient: processes need not exchange any
            parameter.requires_grad_(stage.source == "images")
        plain = Objective(model, settings.losses, stage, bf16=settings.precision == "bf16-mixed")
        objective = fabric.setup_module(plain)
        optimizer: Any = fabric.setup_optimizers(_optimizer(plain, stage, settings))
        first = 0
        if state and number == state["stage"]:
            plain.load_state_dict(state["objective"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["step"]
        _run_stage(fabric, objective, plain, optimizer, settings, stage, number, first, out)
    if fabric.global_rank:
        return out / "weights"
    provenance = {
        "config": settings.model,
        "stages": [s.name for s in settings.stages],
        "seed": settings.seed,
    }
    model.save_pretrained(out / "weights", provenance)
    return out / "weights"


def _begin(settings: Settings) -> DPMesh:
    """Random weights with the shipped pose prior, or stored ones."""
    if settings.start:
        model = DPMesh.from_pretrained(settings.start)
        if model.config != configuration(settings.model):
            raise ConfigError(f"these are not weights of {settings.model!r}", where=settings.start)
        return model
    prior = load_prior()
    if configuration(settings.model).pose_prior != prior.config:
        raise ConfigError(
            f"no pose prior for {settings.model!r} is shipped",
            where="start",
            fix="Give a folder with weights to start from (`dpmesh convert`).",
        )
    model = DPMesh.from_config(settings.model)
    model.pose_prior.load_state_dict(prior.as_decoder().state_dict())
    return model


def _run_stage(
    fabric: Fabric,
    objective: Any,
    plain: Objective,
    optimizer: Any,
    settings: Settings,
    stage: Stage,
    number: int,
    first: int,
    out: Path,
) -> None:
    model = plain.model
    model.train()
    saved = began = time.monotonic()
    log.info("stage %s: steps %d to %d of batch %d", stage.name, first, stage.steps, stage.batch)
    batches: Iterator[Any] = feed(
        stage, settings.seed, first, settings.workers, fabric.global_rank, fabric.world_size
    )
    for step, batch in enumerate(batches, start=first):
        batch = {name: fabric.to_device(value) for name, value in batch.items()}
        _set_rate(optimizer, stage, step)
        loss, terms = objective(
            batch, (settings.seed * 1_000_003 + step) * fabric.world_size + fabric.global_rank
        )
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} at step {step} of stage {stage.name}",
                where=str(out),
                fix="Lower learning_rate; last.ckpt is from before.",
            )
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        norm = fabric.clip_gradients(objective, optimizer, max_norm=settings.clip)
        optimizer.step()
        done = step + 1
        if fabric.global_rank:
            continue  # one process writes
        if done % settings.log_every == 0 or done == stage.steps:
            speed = (done - first) * stage.batch / (time.monotonic() - began)
            row = {
                "stage": stage.name,
                "step": done,
                "loss": loss.item(),
                **{k: v.item() for k, v in terms.items()},
            }
            _append(
                out / f"log_{stage.name}.csv",
                {**row, "grad_norm": 0.0 if norm is None else norm.item(), "samples_per_s": round(speed, 1)},
            )
            log.info("%s %d/%d loss %.4f  %.1f samples/s", stage.name, done, stage.steps, loss.item(), speed)
        if time.monotonic() - saved > settings.checkpoint_every or done == stage.steps:
            _save(out / "last.ckpt", plain, optimizer, number, done)
            saved = time.monotonic()
        if done % settings.validate_every == 0 or done == stage.steps:
            _validate(model, settings, stage, done, out)


def _validate(model: DPMesh, settings: Settings, stage: Stage, done: int, out: Path) -> None:
    model.eval()
    batch = held_out(settings.validation_people)
    images = stage.source == "images"
    errors = figures(model.body, predict(model, batch, images=images), batch)
    means = {name: round(float(values.mean()), 2) for name, values in errors.items()}
    _append(
        out / "validation.csv",
        {"stage": stage.name, "step": done, "people": settings.validation_people, **means},
    )
    log.info("validation after %s %d: %s", stage.name, done, means)
    model.train()


def _optimizer(plain: Objective, stage: Stage, settings: Settings) -> AdamW:
    """Two groups whose rates really differ: the image backbone, and the rest."""
    backbone = [p for p in plain.model.backbone.parameters() if p.requires_grad]
    inside = {id(p) for p in backbone}
    rest = [p for p in plain.parameters() if p.requires_grad and id(p) not in inside]
    groups: list[dict[str, Any]] = [{"params": rest, "factor": 1.0}]
    if stage.source == "images":
        groups.append({"params": backbone, "factor": stage.backbone_rate})
    return AdamW(
        groups, lr=stage.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98), fused=True
    )


def _set_rate(optimizer: Any, stage: Stage, step: int) -> None:
    """Linear warm-up, then a cosine from the stage's rate to a hundredth of it."""
    along = max(step - stage.warmup, 0) / max(stage.steps - stage.warmup, 1)
    factor = min(1.0, (step + 1) / max(stage.warmup, 1)) * (
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along))
    )
    for group in optimizer.param_groups:
        group["lr"] = stage.learning_rate * factor * group["factor"]


def _save(path: Path, plain: Objective, optimizer: Any, stage: int, step: int) -> None:
    state = {
        "objective": plain.state_dict(),
        "optimizer": optimizer.state_dict(),
        "stage": stage,
        "step": step,
    }
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def _resume(path: Path, settings: Settings) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        if not zipfile.is_zipfile(path):
            raise ConfigError("the checkpoint is torn", where=str(path), fix="Delete it to begin anew.")
        state = torch.load(path, weights_only=True)
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"the checkpoint cannot be read ({error})", where=str(path), fix="Delete it to begin anew."
        ) from error
    if state["stage"] >= len(settings.stages):
        raise ConfigError(
            "the checkpoint is of a config with more stages", where=str(path), fix="Choose another `out`."
        )
    return state


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
