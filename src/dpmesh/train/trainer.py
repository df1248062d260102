"""The training loop: the stages one after the other on Lightning Fabric, resumable to the step."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from dpmesh.checkpoint import read_config
from dpmesh.errors import WeightsError
from dpmesh.io import folder_lock
from dpmesh.train import preflight
from dpmesh.train.checkpoints import (
    read_checkpoint,
    replace_weights,
    save_checkpoint,
    whole_checkpoint,
)
from dpmesh.train.config import Settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import batches
from dpmesh.train.distributed import (
    ending_together,
    in_bf16,
    is_sharded,
    make_fabric,
    on_all,
    on_first,
    whole,
)
from dpmesh.train.divergence import DivergedError, FiniteCheck
from dpmesh.train.logging import TrainingLog
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.record import (
    frozen_sum,
    made_by,
    record_of,
    refuse_foreign,
    weights_sum,
    write_config,
)
from dpmesh.train.resume import refuse_missing, refuse_to_resume, restore, state_of
from dpmesh.train.stage_run import StageRun
from dpmesh.train.validate import prepare_validation

__all__ = ["DivergedError", "run_stage", "train"]

log = logging.getLogger("dpmesh.train")


def train(settings: Settings) -> Path:
    """Run all stages, or what is left of them; returns the folder of the last one's weights.

    `settings.out` holds config.json (what determines the run), last.ckpt and before.ckpt (to resume), log_STAGE.csv,
    validation.csv, previews/, and each stage's weights (TrainingContext.output_folder). One training at a time writes
    there, and none into a folder that holds anything else. Before the first step all that the stages need is checked
    (preflight.py). Raises DPMeshError.
    """
    torch.set_num_threads(settings.threads)
    fabric, out = make_fabric(settings), Path(settings.out)
    with ending_together(fabric), ExitStack() as held:
        on_first(fabric, lambda: refuse_foreign(out))  # before a lock is written there
        on_first(fabric, lambda: held.enter_context(folder_lock(out, "training")))
        return _train(fabric, on_all(fabric, lambda: TrainingContext.resolve(settings)), out)


def _train(fabric: Fabric, context: TrainingContext, out: Path) -> Path:
    settings = context.settings
    path = on_first(fabric, lambda: whole_checkpoint(out))
    state: dict[str, Any] = (
        {"stage": 0, "step": 0} if path is None else on_all(fabric, lambda: read_checkpoint(path))
    )
    started, last = state["stage"], len(settings.stages) - 1
    record: dict[str, Any] = state.get("record", {"stages": []})
    if path is not None and not started <= last:
        on_first(fabric, lambda: refuse_to_resume(state, settings, None))
        on_first(fabric, lambda: refuse_missing(record, context))
        log.info("%s: every stage is finished already, nothing was trained", out)
        return context.output_folder(last)
    on_all(fabric, lambda: preflight.refuse(context, fabric, started))
    on_all(fabric, lambda: prepare_validation(settings))
    for number in range(started, last + 1):
        now = on_first(fabric, lambda n=number: record_of(context, n, fabric.device.type))
        if path is not None and number == started:
            on_first(fabric, lambda: refuse_to_resume(state, settings, now))  # noqa: B023
        record = {**made_by(), "stages": [*record["stages"][:number], now]}
        on_first(fabric, lambda: write_config(out, settings, record["stages"]))  # noqa: B023
        fabric.seed_everything(settings.seed, verbose=False)
        objective = on_all(fabric, lambda n=number: make_objective(context, n))
        frozen = on_first(fabric, lambda: frozen_sum(objective))  # noqa: B023
        run = StageRun(fabric, objective, context, number, frozen=frozen, record=record)
        if number == started and "objective" in state:
            on_all(fabric, lambda: restore(run, state))  # noqa: B023
        state = {"stage": number}  # frees what was resumed from
        run_stage(run, out)
        run.refuse_nonfinite()
        run.save(context.output_folder(number))
        on_first(fabric, lambda n=number: _finish(out, context, record, n))  # noqa: B023
    return context.output_folder(last)


def _finish(out: Path, context: TrainingContext, record: dict[str, Any], number: int) -> None:
    record["stages"][number]["left"] = weights_sum(str(context.output_folder(number)))
    write_config(out, context.settings, record["stages"])
    save_checkpoint(out, {"stage": number + 1, "step": 0, "record": record})


def run_stage(run: StageRun, out: Path) -> None:
    """Run the remaining steps of a stage. Raises DivergedError."""
    fabric, stage, settings = run.fabric, run.stage, run.context.settings
    parts = batches(stage, settings, range(run.step, run.steps), fabric.global_rank, fabric.world_size)
    run.objective.train()
    saved = time.monotonic()
    check = FiniteCheck(fabric, stage.name, out)
    writes = fabric.global_rank == 0
    with TrainingLog(
        out, stage.name, run.step, run.steps, writes=writes, tensorboard=settings.tensorboard
    ) as logs:
        mixed = run.objective.mixed and in_bf16(settings.precision, fabric.device.type)
        span = f"steps {run.step} to {run.steps} of batch {stage.batch}, {'bf16' if mixed else 'fp32'}"
        logs.say(f"stage {stage.name}: {span}")
        while run.step < run.steps:
            rate = run.set_rates()
            run.optimizer.zero_grad(set_to_none=True)
            ids, terms_of, batch = list[str](), list[dict[str, Tensor]](), dict[str, Tensor]()
            for round_ in range(stage.accumulate):
                part, names, batch = next(parts)
                batch, ids = {name: fabric.to_device(value) for name, value in batch.items()}, ids + names
                with _accumulating(run, last=round_ + 1 == stage.accumulate):
                    loss, terms = run.module(batch, part)
                    fabric.backward(loss / stage.accumulate)
                terms_of.append({"loss": loss.detach(), **{k: v.detach() for k, v in terms.items()}})
            norm = run.clip_gradients()
            due = time.monotonic() - saved > settings.checkpoint_every
            check.add(run.step, ids, [terms["loss"] for terms in terms_of], norm, due=due)
            due = check.read()
            run.optimizer_step()
            logs.step(run.step)
            if _due(run, settings.log_every):
                check.read(all_steps=True)
                values = _means(fabric, terms_of)
                logs.row(run.step, stage.batch, {**values, "grad_norm": norm.item(), "rate": rate})
            if due:
                check.read(all_steps=True)
                _save(run, out)
                saved = time.monotonic()
            if _due(run, settings.preview_every, at_end=False):
                check.read(all_steps=True)
                _preview(run, logs, batch)
            if _due(run, settings.validate_every):
                check.read(all_steps=True)
                _validate(run, logs)
        check.read(all_steps=True)


MEASURE = "MPJPE"
"""The figure of the first validation set by which the best weights are chosen; lower is better."""


def keep_best(run: StageRun, rows: list[dict[str, Any]]) -> None:
    """Save a mesh stage's weights to weights_best/ (Settings.keep_best) if they are better than those already saved.

    rows: of StageRun.validations. The saved weights' figures are in their provenance, so that a resumed run compares
    with them; figures of another protocol do not count. Under FSDP all processes must call it, else the first one.
    """
    if not isinstance(run.objective, MeshObjective):
        return
    last = run.context.output_folder(run.number)
    folder = last.with_name(f"{last.name}_best")
    figures = rows[0] if rows else {}
    value = figures.get(MEASURE)
    better = value is not None and math.isfinite(value) and value < _best_value(folder, figures)
    if is_sharded(run.fabric):
        better = bool(run.fabric.broadcast(better))
    if not better:
        return
    aside = folder.with_name(f".{folder.name}.part")
    run.save_here(aside, {"best": {"by": MEASURE, **figures}})
    run.objective.train()
    if run.fabric.global_rank == 0:
        replace_weights(aside, folder)


def _best_value(folder: Path, figures: dict[str, Any]) -> float:
    """The figure of the best weights so far; infinite where there are none, or under another protocol."""
    try:
        best = read_config(folder)[1]["best"]
        comparable = all(best.get(key) == figures.get(key) for key in ("people", "protocol", "hash"))
        return float(best[MEASURE]) if comparable else math.inf
    except (WeightsError, KeyError, TypeError, ValueError, AttributeError):
        return math.inf


def _preview(run: StageRun, logs: TrainingLog, batch: dict[str, Tensor]) -> None:
    def draw() -> None:
        with run.final_weights(), whole(run.objective):
            logs.preview(run.step, run.objective.preview(batch))

    _shared(run, draw)


def _validate(run: StageRun, logs: TrainingLog) -> None:
    def validate() -> None:
        rows = run.validations()
        for row in rows:
            logs.validation(run.step, run.context.settings.validation_people, row)
        if run.context.settings.keep_best:
            keep_best(run, rows)

    _shared(run, validate)


def _due(run: StageRun, every: int, *, at_end: bool = True) -> bool:
    return bool(every) and (run.step % every == 0 or (at_end and run.step == run.steps))


def _shared(run: StageRun, action: Callable[[], None]) -> None:
    """Run the action in the first process; in all of them where each holds a part of the model."""
    (on_all if is_sharded(run.fabric) else on_first)(run.fabric, action)


def _accumulating(run: StageRun, *, last: bool) -> AbstractContextManager[Any]:
    """No exchange of gradients between processes before the last part of a batch."""
    alone = last or run.fabric.world_size == 1
    return nullcontext() if alone else run.fabric.no_backward_sync(run.module)


def _save(run: StageRun, out: Path) -> None:
    """Write a checkpoint; all processes must call it. A state that holds NaN is not written."""
    run.refuse_nonfinite()
    state = state_of(run) if run.fabric.global_rank == 0 or is_sharded(run.fabric) else {}
    on_first(run.fabric, lambda: save_checkpoint(out, state))


def _means(fabric: Fabric, parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """The mean of each term over accumulated parts and processes."""
    values = {name: torch.stack([terms[name] for terms in parts]).mean() for name in parts[0]}
    return {name: _over_processes(fabric, value, "mean").item() for name, value in values.items()}


def _over_processes(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    reduced = value if fabric.world_size == 1 else fabric.all_reduce(value, reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced
