"""The best weights of a stage by its validation figures: weights_best/ beside weights/ (Settings.keep_best)."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from dpmesh.checkpoint import CONFIG, WEIGHTS, read_config
from dpmesh.errors import OutputError, WeightsError
from dpmesh.io import is_part, reason
from dpmesh.train.config import Settings
from dpmesh.train.context import left_by
from dpmesh.train.distributed import is_sharded
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.stage_run import Run

MEASURE = "MPJPE"
"""What is compared: the first set's, the lowest is the best."""


def best_of(settings: Settings, number: int) -> Path:
    """The folder of the best weights of stage `number`."""
    last = left_by(settings, number)
    return last.with_name(f"{last.name}_best")


def keep_best(run: Run, judged: list[dict[str, Any]]) -> None:
    """Leave the weights of a stage that regresses bodies if they are better than those that are kept.

    The kept ones know their figures, so a run that goes on from a checkpoint compares with them; figures of another
    protocol do not count. Under FSDP all processes must call it, else the first."""
    if not isinstance(run.objective, MeshObjective):
        return
    folder = best_of(run.settings, run.number)
    figures = judged[0] if judged else {}
    value = figures.get(MEASURE)
    better = value is not None and math.isfinite(value) and value < _kept(folder, figures)
    if is_sharded(run.fabric):
        better = bool(run.fabric.broadcast(better))
    if not better:
        return
    aside = folder.with_name(f".{folder.name}.part")
    run.leave(aside, {"best": {"by": MEASURE, **figures}})
    run.objective.train()
    if run.fabric.global_rank == 0:
        _exchange(aside, folder)


def _kept(folder: Path, figures: dict[str, Any]) -> float:
    """The figure of the weights that are kept; infinite where none are, or others' figures."""
    try:
        best = read_config(folder)[1]["best"]
        comparable = all(best.get(key) == figures.get(key) for key in ("people", "protocol", "hash"))
        return float(best[MEASURE]) if comparable else math.inf
    except (WeightsError, KeyError, TypeError, ValueError, AttributeError):
        return math.inf


def _exchange(new: Path, folder: Path) -> None:
    """Killed in between, one of both is whole: nothing is removed before its successor is there."""
    before = folder.with_name(f".{folder.name}.before")
    try:
        _remove(before)
        with suppress(FileNotFoundError):
            folder.rename(before)
        new.rename(folder)
        _remove(before)
    except OSError as failure:
        raise OutputError(f"cannot be written ({reason(failure)})", where=str(folder)) from failure


def _remove(folder: Path) -> None:
    """The two files of weights, what a killed run left of them, and the folder, which must hold nothing else."""
    if folder.is_dir():
        for path in list(folder.iterdir()):
            if any(path.name == name or is_part(path.name, name) for name in (CONFIG, WEIGHTS)):
                path.unlink()
        folder.rmdir()
