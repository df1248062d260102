"""The training loop: stages one after the other on Lightning Fabric, resumable to the step."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.io import folder_lock
from dpmesh.train import preflight
from dpmesh.train.benchmarks import prepare_validation
from dpmesh.train.best import keep_best
from dpmesh.train.checkpoints import BEFORE, LAST, State, read_checkpoint, save_checkpoint, whole_checkpoint
from dpmesh.train.config import Settings
from dpmesh.train.context import begin, left_by, reads
from dpmesh.train.dataloader import feed
from dpmesh.train.distributed import in_bf16, is_sharded, make_fabric, whole
from dpmesh.train.finite import DivergedError, Watch
from dpmesh.train.logging import Report
from dpmesh.train.place import refuse_foreign
from dpmesh.train.recipe import (
    Record,
    frozen_sum,
    made_by,
    record_of,
    refuse_another,
    weights_sum,
    write_config,
)
from dpmesh.train.stage_run import Run
from dpmesh.train.together import ending_together, everyone, first

__all__ = ["DivergedError", "run_stage", "train"]

log = logging.getLogger("dpmesh.train")


def train(settings: Settings) -> Path:
    """Run all stages (or what is left of them); returns the folder that the last one leaves.

    `settings.out` holds config.json (what the run is made of), last.ckpt and before.ckpt (resume), log_STAGE.csv,
    validation.csv, previews/, and what each stage leaves (begin.left_by). One training at a time writes there, and none
    where something else lies (place.py). Before the first step everything that the stages need is looked at
    (preflight.py).
    """
    torch.set_num_threads(settings.threads)
    fabric, out = make_fabric(settings), Path(settings.out)
    with ending_together(fabric), ExitStack() as held:
        first(fabric, lambda: refuse_foreign(out))  # no lock is left in what is not ours
        first(fabric, lambda: held.enter_context(folder_lock(out, "training")))
        return _train(fabric, settings, out)


def _train(fabric: Fabric, settings: Settings, out: Path) -> Path:
    path = first(fabric, lambda: whole_checkpoint(out))
    state: dict[str, Any] = (
        {"stage": 0, "step": 0} if path is None else everyone(fabric, lambda: read_checkpoint(path))
    )
    started, last = state["stage"], len(settings.stages) - 1
    record: dict[str, Any] = state.get("record", {"stages": []})
    if path is not None and not started <= last:
        first(fabric, lambda: _refuse_to_resume(state, settings, None))
        first(fabric, lambda: _refuse_missing(record, settings))
        log.info("%s: every stage was finished before, so nothing was trained", out)
        return left_by(settings, last)
    everyone(fabric, lambda: preflight.refuse(settings, fabric, started))
    everyone(fabric, lambda: prepare_validation(settings))
    for number in range(started, last + 1):
        now = first(fabric, lambda n=number: record_of(settings, n, reads(settings, n), fabric.device.type))
        if path is not None and number == started:
            first(fabric, lambda: _refuse_to_resume(state, settings, now))  # noqa: B023
        record = {**made_by(), "stages": [*record["stages"][:number], now]}
        first(fabric, lambda: write_config(out, settings, record["stages"]))  # noqa: B023
        fabric.seed_everything(settings.seed, verbose=False)
        objective = everyone(fabric, lambda n=number: begin(settings, n))
        frozen = first(fabric, lambda: frozen_sum(objective))  # noqa: B023
        run = Run(fabric, objective, settings, number, frozen=frozen, record=record)
        if number == started and "objective" in state:
            everyone(fabric, lambda: run.resume(state))  # noqa: B023
        state = {"stage": number}  # what was resumed from is not kept
        run_stage(run, out)
        run.refuse_nonfinite()
        run.save(left_by(settings, number))
        first(fabric, lambda n=number: _finish(out, settings, record, n))  # noqa: B023
    return left_by(settings, last)


def _refuse_to_resume(state: State, settings: Settings, now: Record | None) -> None:
    """Raise ConfigError where the config is another than the checkpoint's; tell what differs and may."""
    try:
        allowed = refuse_another(state.get("record"), settings, (state["stage"], state["step"]), now)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the checkpoint's record is damaged ({type(error).__name__})",
            where=settings.out,
            fix=f"Delete {LAST} and {BEFORE} to begin anew, or choose another `out`.",
        ) from error
    for told in allowed:
        log.warning("going on, although %s", told)


def _refuse_missing(record: dict[str, Any], settings: Settings) -> None:
    """Raise WeightsError where the finished run's weights are gone or are others."""
    folder = str(left_by(settings, len(settings.stages) - 1))
    fix = f"Delete {LAST} and {BEFORE} to train again, or choose another `out`."
    if not (Path(folder) / WEIGHTS).is_file():
        raise WeightsError("the run is finished, and its weights are gone", where=folder, fix=fix)
    if weights_sum(folder) != record["stages"][-1]["left"]:
        raise WeightsError("these are not the weights that the finished run left", where=folder, fix=fix)


def _finish(out: Path, settings: Settings, record: dict[str, Any], number: int) -> None:
    record["stages"][number]["left"] = weights_sum(str(left_by(settings, number)))
    write_config(out, settings, record["stages"])
    save_checkpoint(out, {"stage": number + 1, "step": 0, "record": record})


def run_stage(run: Run, out: Path) -> None:
    """All steps that are left."""
    fabric, stage, settings = run.fabric, run.stage, run.settings
    batches = feed(stage, settings, range(run.step, run.steps), fabric.global_rank, fabric.world_size)
    run.objective.train()
    saved = time.monotonic()
    watch = Watch(fabric, stage.name, out)
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
                    fabric.backward(loss / stage.accumulate)
                found.append({"loss": loss.detach(), **{k: v.detach() for k, v in terms.items()}})
            norm = run.clip()
            due = time.monotonic() - saved > settings.checkpoint_every
            watch.note(run.step, ids, [terms["loss"] for terms in found], norm, due=due)
            due = watch.look()
            run.advance()
            report.step(run.step)
            if _due(run, settings.log_every):
                watch.look(all_steps=True)
                values = _means(fabric, found)
                report.row(run.step, stage.batch, {**values, "grad_norm": norm.item(), "rate": rate})
            if due:
                watch.look(all_steps=True)
                _save(run, out)
                saved = time.monotonic()
            if _due(run, settings.preview_every, at_end=False):
                watch.look(all_steps=True)
                _shown(run, report, batch)
            if _due(run, settings.validate_every):
                watch.look(all_steps=True)
                _validated(run, report)
        watch.look(all_steps=True)


def _shown(run: Run, report: Report, batch: dict[str, Tensor]) -> None:
    def show() -> None:
        with run.looked_at(), whole(run.objective):
            report.preview(run.step, run.objective.preview(batch))

    _shared(run, show)


def _validated(run: Run, report: Report) -> None:
    def validate() -> None:
        judged = run.validations()
        for row in judged:
            report.validation(run.step, run.settings.validation_people, row)
        if run.settings.keep_best:
            keep_best(run, judged)

    _shared(run, validate)


def _due(run: Run, every: int, *, at_end: bool = True) -> bool:
    return bool(every) and (run.step % every == 0 or (at_end and run.step == run.steps))


def _shared(run: Run, action: Callable[[], None]) -> None:
    """What one process can do alone; all must where each has a part of the model."""
    (everyone if is_sharded(run.fabric) else first)(run.fabric, action)


def _silent(run: Run, *, until: bool) -> AbstractContextManager[Any]:
    """While gradients are accumulated the processes need not exchange them."""
    alone = until or run.fabric.world_size == 1
    return nullcontext() if alone else run.fabric.no_backward_sync(run.module)


def _save(run: Run, out: Path) -> None:
    """All processes at once. Nothing is written of a state that holds NaN."""
    run.refuse_nonfinite()
    state = run.state() if run.fabric.global_rank == 0 or is_sharded(run.fabric) else {}
    first(run.fabric, lambda: save_checkpoint(out, state))


def _means(fabric: Fabric, found: list[dict[str, Tensor]]) -> dict[str, float]:
    """Of the rounds and processes."""
    values = {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}
    return {name: _over_processes(fabric, value, "mean").item() for name, value in values.items()}


def _over_processes(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    reduced = value if fabric.world_size == 1 else fabric.all_reduce(value, reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced
