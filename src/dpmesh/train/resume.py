"""Resuming a run: whether it may go on from its checkpoint, what a checkpoint holds, and how it is restored.

A run resumes only where nothing that determines its weights has changed (record.py). trainer.py calls these in order.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.train.checkpoints import BEFORE, LAST, State
from dpmesh.train.config import Settings
from dpmesh.train.context import TrainingContext
from dpmesh.train.distributed import is_sharded
from dpmesh.train.objectives.base import Objective
from dpmesh.train.record import LENGTH, Record, commit, settings_of, weights_sum
from dpmesh.train.stage_run import FULL, StageRun, full_tensor

TRAINED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)

log = logging.getLogger("dpmesh.train")


def refuse_to_resume(state: State, settings: Settings, now: Record | None) -> None:
    """Raise ConfigError where the config differs from the checkpoint's; log the differences that are allowed."""
    try:
        allowed = _refuse_another(state.get("record"), settings, (state["stage"], state["step"]), now)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the checkpoint's record is damaged ({type(error).__name__})",
            where=settings.out,
            fix=f"Delete {LAST} and {BEFORE} to start again, or choose another `out`.",
        ) from error
    for difference in allowed:
        log.warning("resuming, although %s", difference)


def refuse_missing(record: dict[str, Any], context: TrainingContext) -> None:
    """Raise WeightsError where the finished run's weights are gone or are others."""
    folder = str(context.output_folder(len(context.settings.stages) - 1))
    fix = f"Delete {LAST} and {BEFORE} to train again, or choose another `out`."
    if not (Path(folder) / WEIGHTS).is_file():
        raise WeightsError("the run is finished, and its weights are gone", where=folder, fix=fix)
    if weights_sum(folder) != record["stages"][-1]["left"]:
        raise WeightsError("these are not the weights that the finished run left", where=folder, fix=fix)


def _refuse_another(stored: Any, settings: Settings, state: tuple[int, int], now: Record | None) -> list[str]:
    """Raise ConfigError with the first differences between a checkpoint's records and this config; returns what
    differs and is allowed. state: the checkpoint's stage and step. now: the record of that stage, None after the last.
    """
    fix = "Take the old values, or choose another `out`."
    if not isinstance(stored, dict) or not isinstance(stored.get("stages"), list):  # pyright: ignore
        raise ConfigError(
            "the checkpoint has no record of the settings it was trained with", where=settings.out, fix=fix
        )
    refused, allowed = list[str](), list[str]()
    stages: list[Record] = stored["stages"]
    if len(stages) > len(settings.stages):
        refused.append(f"it had {len(stages)} stages or more, the config has {len(settings.stages)}")
    for number, old in enumerate(stages[: len(settings.stages)]):
        stage = settings.stages[number]
        finished = number < state[0]
        new = settings_of(settings, number)
        for name in sorted(set(old["settings"]) | set(new)):
            one = old["settings"][name] if name in old["settings"] else _default(stage, name)
            other = new.get(name)
            if one == other:
                continue
            change = f"{name.replace('stage.', f'{stage.name}.')} was {one!r}, is {other!r}"
            if name in LENGTH and not finished and now is not None:
                longer = _may_be_longer(old, now, new, state[1])
                (allowed if longer else refused).append(
                    change + ("" if longer else " in the middle of its schedule")
                )
            else:
                refused.append(
                    change + (f" after the stage was finished ({old['steps']} steps)" if finished else "")
                )
        if not finished and now is not None:
            names = sorted(set(old["inputs"]) | set(now["inputs"]))
            refused += [_other_input(n, old["inputs"], now["inputs"]) for n in names if _differ(n, old, now)]
            if old["bf16"] != now["bf16"]:
                names = {True: "bf16-mixed", False: "32-true"}
                refused.append(f"precision was {names[old['bf16']]}, is {names[now['bf16']]}")
    if refused:
        more = f"; {len(refused) - 3} more" if len(refused) > 3 else ""
        raise ConfigError(
            f"this run was started with other settings: {'; '.join(refused[:3])}{more}",
            where=settings.out,
            fix=fix,
        )
    if stored.get("commit") != commit():
        allowed.append(f"the code was {stored.get('commit')}, is {commit()}")
    return allowed


def _differ(name: str, old: Record, now: Record) -> bool:
    return old["inputs"].get(name) != now["inputs"].get(name)


def _other_input(name: str, old: dict[str, str], now: dict[str, str]) -> str:
    if name not in old:
        return f"{name} was not set"
    return f"{name} is no longer set" if name not in now else f"the content of {name} has changed"


def _may_be_longer(old: Record, now: Record, new: dict[str, Any], step: int) -> bool:
    """While the rate is constant, the weights do not depend on the length of the schedule."""
    return new.get("stage.schedule") == "step" and step <= min(
        r["steps"] - r["decay_steps"] for r in (old, now)
    )


def _default(stage: Any, name: str) -> Any:
    """Default of a setting that an older version did not have."""
    table: Any = stage if name.startswith("stage.") else Settings
    for part in name.removeprefix("stage.").split("."):
        field = {f.name: f for f in fields(table)}.get(part) if is_dataclass(table) else None
        if field is None:
            return None
        table = field.default if field.default_factory is MISSING else field.default_factory()
        if table is MISSING:
            return None
    return json.loads(json.dumps(table, default=str))


def state_of(run: StageRun) -> State:
    """The checkpoint: trained weights, buffers and optimiser, without frozen weights. Under FSDP every process must
    call it."""
    if is_sharded(run.fabric):
        module, inner = run.objective, run.optimizer.optimizer
        weights = get_model_state_dict(module, options=TRAINED)
        optimizer = get_optimizer_state_dict(module, inner, options=FULL)
    else:
        weights, optimizer = _trained_state(run.objective), run.optimizer.state_dict()
    average = {} if run.average is None else run.average.values
    return {
        "stage": run.number,
        "step": run.step,
        "record": run.record,
        "frozen": run.frozen,
        "objective": weights,
        "optimizer": optimizer,
        "average": {name: full_tensor(value) for name, value in average.items()},
        "random": _random_state(),
    }


def restore(run: StageRun, state: State) -> None:
    """Restore a checkpoint; raises ConfigError for one of another config. Tensors are copied one by one, so that a
    checkpoint mapped into memory is never held twice."""
    fix = "Choose another `out`."
    if state.get("frozen") != run.frozen and run.fabric.global_rank == 0:
        raise ConfigError(
            "the frozen weights of this stage are not those of the checkpoint: start weights or prior have changed",
            where=run.context.settings.out,
            fix=fix,
        )
    try:
        if is_sharded(run.fabric):
            module, inner = run.objective, run.optimizer.optimizer
            set_model_state_dict(module, state["objective"], options=TRAINED)
            set_optimizer_state_dict(module, inner, state["optimizer"], options=FULL)
        else:
            if set(state["objective"]) != set(_trained_state(run.objective)):
                raise KeyError("it holds other tensors")
            run.objective.load_state_dict(state["objective"], strict=False)
            run.optimizer.load_state_dict(state["optimizer"])
            _copy_state(run.optimizer.optimizer)
        if run.average is not None:
            _copy_into(run.average.values, state["average"])
        _set_random_state(state["random"])
    except (RuntimeError, ValueError, KeyError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"the checkpoint does not fit this config ({line})", where=run.context.settings.out, fix=fix
        ) from error
    run.step = int(state["step"])


def _trained_state(objective: Objective) -> dict[str, Tensor]:
    """Buffers too: codebooks and calibrations change in training."""
    frozen = {name for name, p in objective.named_parameters() if not p.requires_grad}
    return {name: v for name, v in objective.state_dict().items() if name not in frozen}


def _copy_state(optimizer: torch.optim.Optimizer) -> None:
    """Copy the tensors that load_state_dict took from the mapped file, as it does on a CPU."""
    for values in optimizer.state.values():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.device.type == "cpu":
                values[name] = value.clone()


@torch.no_grad()
def _copy_into(own: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    for name, value in own.items():
        restored = stored[name].to(value.device)
        if isinstance(value, DTensor):
            restored = distribute_tensor(restored, value.device_mesh, value.placements)
        value.copy_(restored)


def _random_state() -> dict[str, Tensor]:
    """torch's generators. Nothing in a step draws from them; a layer to come (dropout) might."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{i}": state for i, state in enumerate(cuda)}}


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    cuda: Iterable[Tensor] = [state for name, state in states.items() if name != "cpu"]
    if torch.cuda.is_available() and len(list(cuda)) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
