"""A stage in motion: everything that a checkpoint holds, on one process or many."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from dpmesh.errors import ConfigError
from dpmesh.train.average import Average
from dpmesh.train.begin import begin, provenance
from dpmesh.train.checkpoints import State
from dpmesh.train.feed import steps_of
from dpmesh.train.machines import average_scalars, is_sharded, recompute_activations, whole
from dpmesh.train.objective import Objective
from dpmesh.train.optimizers import make_optimizer
from dpmesh.train.settings import Settings

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Run:
    """objective: the stage's own module. module: the same as Fabric wraps it. step: how many are done."""

    def __init__(self, fabric: Fabric, objective: Objective, settings: Settings, number: int) -> None:
        self.fabric, self.objective, self.settings = fabric, objective, settings
        self.number, self.stage, self.step = number, settings.stages[number], 0
        self.steps, self.low = steps_of(self.stage, settings.data)
        if settings.checkpointing:
            recompute_activations(objective)
        self.module: Any = fabric.setup_module(objective)
        self.groups = objective.groups()
        optimizer = make_optimizer(
            self.groups, self.stage.learning_rate, settings, sharded=is_sharded(fabric)
        )
        self.optimizer: Any = fabric.setup_optimizers(optimizer)
        self.average = Average(objective, settings.ema) if settings.ema else None

    def set_rates(self) -> float:
        """The rate of the step that comes, in every group; returns the one of factor 1."""
        stage = self.stage
        if stage.schedule == "step":
            fall = 0.1 if self.step >= self.steps - self.low else 1.0
        else:
            along = max(self.step - stage.warmup, 0) / max(self.steps - stage.warmup, 1)
            fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along))
        rate = min(1.0, (self.step + 1) / max(stage.warmup, 1)) * fall
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * rate * group["factor"]
        return stage.learning_rate * rate

    def clip(self) -> Tensor:
        """Bring the gradient's norm to `clip` at most; returns what it was. Only what is trained counts, and of that
        no loss weights."""
        average_scalars(self.fabric, self.objective)
        clipped = [p for group in self.groups if not group.loss_weights for p in group.parameters]
        norm = torch.nn.utils.clip_grad_norm_(clipped, self.settings.clip)
        return _full(norm)

    def advance(self) -> None:
        """One step of the optimiser."""
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.follow(self.objective, self.step)

    def looked_at(self) -> AbstractContextManager[None]:
        """The objective as it is to be judged and kept."""
        return nullcontext() if self.average is None else self.average.in_place(self.objective)

    def validations(self) -> list[dict[str, Any]]:
        """The objective's, in evaluation mode."""
        self.objective.eval()
        with self.looked_at(), whole(self.objective):
            found = self.objective.validations()
        self.objective.train()
        return found

    def state(self) -> State:
        """Where the run stands. Under FSDP every process must ask."""
        if is_sharded(self.fabric):
            module, inner = self.objective, self.optimizer.optimizer
            weights = get_model_state_dict(module, options=FULL)
            optimizer = get_optimizer_state_dict(module, inner, options=FULL)
        else:
            weights, optimizer = self.objective.state_dict(), self.optimizer.state_dict()
        average = {} if self.average is None else self.average.values
        return {
            "stage": self.number,
            "step": self.step,
            "objective": weights,
            "optimizer": optimizer,
            "average": {name: _full(value) for name, value in average.items()},
            "random": _random_state(),
        }

    def resume(self, state: State) -> None:
        """Go on where a checkpoint stands; raises ConfigError for one of another config."""
        try:
            if is_sharded(self.fabric):
                module, inner = self.objective, self.optimizer.optimizer
                set_model_state_dict(module, state["objective"], options=FULL)
                set_optimizer_state_dict(module, inner, state["optimizer"], options=FULL)
            else:
                self.objective.load_state_dict(state["objective"])
                self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                _copy_into(self.average.values, state["average"])
            _set_random_state(state["random"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"the checkpoint does not fit this config ({str(error).splitlines()[0]})",
                where=self.settings.out,
                fix="Choose another `out`.",
            ) from error
        self.step = int(state["step"])

    def save(self, folder: Path) -> None:
        """What the stage leaves, the average where there is one."""
        self.leave(folder)
        self.fabric.barrier()

    def leave(self, folder: Path, more: dict[str, Any] | None = None) -> None:
        """`save` without waiting: the first process alone may do it, but under FSDP all must. more: of provenance."""
        told = {**provenance(self.settings, self.number), "steps": self.step, "ema": self.settings.ema}
        told |= more or {}
        self.objective.eval()
        with self.looked_at():
            if is_sharded(self.fabric):
                self._save_whole(folder, told)
            elif self.fabric.global_rank == 0:
                self.objective.save(folder, told)

    def _save_whole(self, folder: Path, told: dict[str, Any]) -> None:
        """Under FSDP: the gathered weights, put into an objective of one process."""
        weights = get_model_state_dict(self.objective, options=FULL)
        if self.fabric.global_rank == 0:
            single = begin(self.settings, self.number)
            single.load_state_dict(weights)
            single.eval().save(folder, told)


def _full(value: Any) -> Tensor:
    """A tensor of which each process has a part, as a whole."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


@torch.no_grad()
def _copy_into(own: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    for name, value in own.items():
        found = stored[name].to(value.device)
        if isinstance(value, DTensor):
            found = distribute_tensor(found, value.device_mesh, value.placements)
        value.copy_(found)


def _random_state() -> dict[str, Tensor]:
    """torch's generators. Nothing in a step draws from them; a layer to come (dropout) might."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{i}": state for i, state in enumerate(cuda)}}


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    cuda: Iterable[Tensor] = [state for name, state in states.items() if name != "cpu"]
    if torch.cuda.is_available() and len(list(cuda)) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
