"""One stage while it trains: module, optimiser, average and step, and their checkpoint; on one process or many."""

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
from dpmesh.train.checkpoints import State
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import steps_of
from dpmesh.train.distributed import average_scalars, is_sharded, on_first, recompute_activations, whole
from dpmesh.train.divergence import refuse_nonfinite
from dpmesh.train.ema import Average
from dpmesh.train.objectives.base import Objective
from dpmesh.train.optimizers import make_optimizer
from dpmesh.train.record import provenance

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
TRAINED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)


class StageRun:
    """objective: the stage's own module. module: the same as Fabric wraps it. step: steps done. steps: of the stage.

    frozen: hash of what the objective does not train (record.frozen_sum), which is in no checkpoint.
    record: of the run's stages so far (record.py), stored in checkpoints.
    """

    def __init__(
        self,
        fabric: Fabric,
        objective: Objective,
        context: TrainingContext,
        number: int,
        *,
        frozen: str = "",
        record: dict[str, Any] | None = None,
    ) -> None:
        settings = context.settings
        self.fabric, self.objective, self.context = fabric, objective, context
        self.frozen, self.record = frozen, record or {}
        self.number, self.stage, self.step = number, settings.stages[number], 0
        self.steps, self.decay_steps = steps_of(self.stage, settings.data)
        if settings.activation_checkpointing:
            recompute_activations(objective)
        self.module: Any = fabric.setup_module(objective)
        self.groups = objective.groups()
        optimizer = make_optimizer(
            self.groups, self.stage.learning_rate, settings, sharded=is_sharded(fabric)
        )
        self.optimizer: Any = fabric.setup_optimizers(optimizer)
        self.average = Average(objective, settings.ema_decay) if settings.ema_decay else None

    def set_rates(self) -> float:
        """Set the learning rate of the next step in every group; returns the one of factor 1."""
        stage = self.stage
        if stage.schedule == "step":
            fall = 0.1 if self.step >= self.steps - self.decay_steps else 1.0
        else:
            along = max(self.step - stage.warmup_steps, 0) / max(self.steps - stage.warmup_steps, 1)
            fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along))
        rate = min(1.0, (self.step + 1) / max(stage.warmup_steps, 1)) * fall
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * rate * group["factor"]
        return stage.learning_rate * rate

    def clip_gradients(self) -> Tensor:
        """Clip the gradient's norm to `max_grad_norm`; returns the norm before. Frozen parameters and learned loss
        weights are not counted."""
        average_scalars(self.fabric, self.objective)
        clipped = [p for group in self.groups if not group.loss_weights for p in group.parameters]
        norm = torch.nn.utils.clip_grad_norm_(clipped, self.context.settings.max_grad_norm)
        return full_tensor(norm)

    def optimizer_step(self) -> None:
        """Step the optimiser and the average of the weights."""
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.follow(self.objective, self.step)

    def final_weights(self) -> AbstractContextManager[None]:
        """Within it the objective has the weights that are validated and saved: the average, where there is one."""
        return nullcontext() if self.average is None else self.average.in_place(self.objective)

    def validations(self) -> list[dict[str, Any]]:
        """The objective's rows for validation.csv, computed in evaluation mode."""
        self.objective.eval()
        with self.final_weights(), whole(self.objective):
            rows = self.objective.validations()
        self.objective.train()
        return rows

    def state(self) -> State:
        """The checkpoint: trained weights, buffers and optimiser, without frozen weights. Under FSDP every process must
        call it."""
        if is_sharded(self.fabric):
            module, inner = self.objective, self.optimizer.optimizer
            weights = get_model_state_dict(module, options=TRAINED)
            optimizer = get_optimizer_state_dict(module, inner, options=FULL)
        else:
            weights, optimizer = self._trained_state(), self.optimizer.state_dict()
        average = {} if self.average is None else self.average.values
        return {
            "stage": self.number,
            "step": self.step,
            "record": self.record,
            "frozen": self.frozen,
            "objective": weights,
            "optimizer": optimizer,
            "average": {name: full_tensor(value) for name, value in average.items()},
            "random": _random_state(),
        }

    def _trained_state(self) -> dict[str, Tensor]:
        """Buffers too: codebooks and calibrations change in training."""
        frozen = {name for name, p in self.objective.named_parameters() if not p.requires_grad}
        return {name: v for name, v in self.objective.state_dict().items() if name not in frozen}

    def refuse_nonfinite(self) -> None:
        """Raise DivergedError where weights, their average or the optimiser hold NaN or infinity; all processes must
        call it."""
        held = {name: p.detach() for name, p in self.objective.named_parameters() if p.requires_grad}
        held |= {f"average of {n}": v for n, v in (self.average.values if self.average else {}).items()}
        for i, values in enumerate(self.optimizer.optimizer.state.values()):
            held |= {f"optimiser's {n} of tensor {i}": v for n, v in values.items() if isinstance(v, Tensor)}
        refuse_nonfinite(self.fabric, held, Path(self.context.settings.out))

    def resume(self, state: State) -> None:
        """Restore a checkpoint; raises ConfigError for one of another config. Tensors are copied one by one, so that a
        checkpoint mapped into memory is never held twice."""
        fix = "Choose another `out`."
        if state.get("frozen") != self.frozen and self.fabric.global_rank == 0:
            raise ConfigError(
                "the frozen weights of this stage are not those of the checkpoint: start weights or prior have changed",
                where=self.context.settings.out,
                fix=fix,
            )
        try:
            if is_sharded(self.fabric):
                module, inner = self.objective, self.optimizer.optimizer
                set_model_state_dict(module, state["objective"], options=TRAINED)
                set_optimizer_state_dict(module, inner, state["optimizer"], options=FULL)
            else:
                if set(state["objective"]) != set(self._trained_state()):
                    raise KeyError("it holds other tensors")
                self.objective.load_state_dict(state["objective"], strict=False)
                self.optimizer.load_state_dict(state["optimizer"])
                _copy_state(self.optimizer.optimizer)
            if self.average is not None:
                _copy_into(self.average.values, state["average"])
            _set_random_state(state["random"])
        except (RuntimeError, ValueError, KeyError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"the checkpoint does not fit this config ({line})", where=self.context.settings.out, fix=fix
            ) from error
        self.step = int(state["step"])

    def save(self, folder: Path) -> None:
        """Save the stage's weights: the average, where there is one."""
        if is_sharded(self.fabric):
            self.save_here(folder)
        else:
            on_first(self.fabric, lambda: self.save_here(folder))

    def save_here(self, folder: Path, more: dict[str, Any] | None = None) -> None:
        """`save` of the calling process: the first one alone, but under FSDP all. more: added to the provenance."""
        origin = {**provenance(self.context, self.number), "steps": self.step}
        origin["ema"] = self.context.settings.ema_decay
        if self.record:
            origin["inputs"] = self.record["stages"][-1]["inputs"]
        origin |= more or {}
        self.objective.eval()
        with self.final_weights():
            if is_sharded(self.fabric):
                self._save_whole(folder, origin)
            else:
                self.objective.save(folder, origin)

    def _save_whole(self, folder: Path, origin: dict[str, Any]) -> None:
        """Under FSDP: the gathered weights, put into an objective of one process."""
        weights = get_model_state_dict(self.objective, options=FULL)

        def save() -> None:
            single = make_objective(self.context, self.number)
            single.load_state_dict(weights)
            single.eval().save(folder, origin)

        on_first(self.fabric, save)


def full_tensor(value: Any) -> Tensor:
    """The whole of a tensor that is sharded over processes; others as they are."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


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
