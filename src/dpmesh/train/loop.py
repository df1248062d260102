"""The training loop: stages one after the other on Lightning Fabric, resumable to the step."""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from dpmesh.errors import ConfigError, DPMeshError
from dpmesh.train.begin import begin, left_by
from dpmesh.train.benchmarks import prepare_validation
from dpmesh.train.best import keep_best
from dpmesh.train.checkpoints import latest_checkpoint, save_checkpoint
from dpmesh.train.feed import feed
from dpmesh.train.machines import in_bf16, is_sharded, make_fabric, whole
from dpmesh.train.report import Report
from dpmesh.train.run import Run
from dpmesh.train.settings import Settings


class DivergedError(DPMeshError):
    """The loss or its gradient is not a number."""


def train(settings: Settings) -> Path:
    """Run all stages (or what is left of them); returns the folder that the last one leaves.

    Opens the validation sets first, so that what they lack is said before the first step.

    `settings.out` holds last.ckpt and before.ckpt (resume), log_STAGE.csv, validation.csv, sheets/, and what each
    stage leaves (begin.left_by).
    """
    torch.set_num_threads(settings.threads)
    fabric = make_fabric(settings)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    prepare_validation(settings)
    state = latest_checkpoint(out) or {"stage": 0, "step": 0}
    if state["stage"] > len(settings.stages):
        raise ConfigError(
            "the checkpoint is of a config with more stages", where=settings.out, fix="Choose another `out`."
        )
    for number in range(state["stage"], len(settings.stages)):
        fabric.seed_everything(settings.seed, verbose=False)
        run = Run(fabric, begin(settings, number), settings, number)
        if number == state["stage"] and "objective" in state:
            run.resume(state)
        run_stage(run, out)
        run.save(left_by(settings, number))
        if fabric.global_rank == 0:
            save_checkpoint(out, {"stage": number + 1, "step": 0})
        fabric.barrier()
    return left_by(settings, len(settings.stages) - 1)


def run_stage(run: Run, out: Path) -> None:
    """All steps that are left."""
    fabric, stage, settings = run.fabric, run.stage, run.settings
    batches = feed(stage, settings, range(run.step, run.steps), fabric.global_rank, fabric.world_size)
    run.objective.train()
    saved = time.monotonic()
    with Report(
        out, stage.name, run.step, run.steps, tells=fabric.global_rank == 0, tensorboard=settings.tensorboard
    ) as report:
        mixed = run.objective.mixed and in_bf16(settings.precision, fabric.device.type)
        told = f"steps {run.step} to {run.steps} of batch {stage.batch}, {'bf16' if mixed else 'fp32'}"
        report.say(f"stage {stage.name}: {told}")
        while run.step < run.steps:
            rate = run.set_rates()
            run.optimizer.zero_grad(set_to_none=True)
            ids, found, batch = list[str](), list[dict[str, Tensor]](), dict[str, Tensor]()
            for round_ in range(stage.accumulate):
                part, names, batch = next(batches)
                batch, ids = {name: fabric.to_device(value) for name, value in batch.items()}, ids + names
                with _silent(run, until=round_ + 1 == stage.accumulate):
                    loss, terms = run.module(batch, part)
                    _refuse_nan(run, out, "loss", loss, ids)
                    fabric.backward(loss / stage.accumulate)
                found.append({"loss": loss.detach(), **{k: v.detach() for k, v in terms.items()}})
            norm = run.clip()
            _refuse_nan(run, out, "gradient", norm, ids)
            run.advance()
            report.step(run.step)
            if _due(run, settings.log_every):
                values = _means(fabric, found)
                report.row(run.step, stage.batch, {**values, "grad_norm": norm.item(), "rate": rate})
            if _first_says(fabric, time.monotonic() - saved > settings.checkpoint_every):
                _save(run, out)
                saved = time.monotonic()
            if _due(run, settings.sheet_every, at_end=False) and _shared(fabric):
                with run.looked_at(), whole(run.objective):
                    report.sheet(run.step, run.objective.sheet(batch))
            if _due(run, settings.validate_every) and _shared(fabric):
                judged = run.validations()
                for row in judged:
                    report.validation(run.step, settings.validation_people, row)
                if settings.keep_best:
                    keep_best(run, judged)


def _due(run: Run, every: int, *, at_end: bool = True) -> bool:
    return bool(every) and (run.step % every == 0 or (at_end and run.step == run.steps))


def _shared(fabric: Fabric) -> bool:
    """Whether this process takes part in what one process can do alone: all must where each has a part of the model."""
    return fabric.global_rank == 0 or is_sharded(fabric)


def _silent(run: Run, *, until: bool) -> AbstractContextManager[Any]:
    """While gradients are accumulated the processes need not exchange them."""
    alone = until or run.fabric.world_size == 1
    return nullcontext() if alone else run.fabric.no_backward_sync(run.module)


def _first_says(fabric: Fabric, due: bool) -> bool:
    """Clocks differ: where all must act, the first process decides for all."""
    return bool(fabric.broadcast(due)) if is_sharded(fabric) else due


def _save(run: Run, out: Path) -> None:
    if not _shared(run.fabric):
        return
    state = run.state()
    if run.fabric.global_rank == 0:
        save_checkpoint(out, state)


def _means(fabric: Fabric, found: list[dict[str, Tensor]]) -> dict[str, float]:
    """Of the rounds and processes."""
    values = {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}
    return {name: _over_processes(fabric, value, "mean").item() for name, value in values.items()}


def _over_processes(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    reduced = value if fabric.world_size == 1 else fabric.all_reduce(value, reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced


def _refuse_nan(run: Run, out: Path, what: str, value: Tensor, ids: list[str]) -> None:
    """Raise DivergedError, on all processes at once, if `value` is not a number anywhere; the batch's record ids go to
    diverged.json."""
    fabric = run.fabric
    if _over_processes(fabric, (~torch.isfinite(value)).float(), "sum") == 0:
        return
    everyone: list[list[str]] = [ids]
    if fabric.world_size > 1:
        everyone = [[] for _ in range(fabric.world_size)]
        dist.all_gather_object(everyone, ids)
    named, path = [name for some in everyone for name in some], out / "diverged.json"
    if fabric.global_rank == 0:
        told = {"stage": run.stage.name, "step": run.step, "what": what, "record_ids": named}
        path.write_text(json.dumps(told, indent=1) + "\n")
    raise DivergedError(
        f"the {what} is not a number at step {run.step} of stage {run.stage.name}, "
        f"people {', '.join(named[:3])}{' ...' if len(named) > 3 else ''}",
        where=str(path),
        fix="Look at these people or lower learning_rate; last.ckpt is from before.",
    )
