"""One stage while it trains: module, optimiser, average and step, and their checkpoint; on one process or many."""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
)

from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import steps_of
from dpmesh.train.distributed import average_scalars, is_sharded, on_first, recompute_activations, whole
from dpmesh.train.divergence import refuse_nonfinite
from dpmesh.train.ema import Average
from dpmesh.train.objectives.base import Objective
from dpmesh.train.optimizers import make_optimizer
from dpmesh.train.record import provenance

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


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

    def refuse_nonfinite(self) -> None:
        """Raise DivergedError where weights, their average or the optimiser hold NaN or infinity; all processes must
        call it."""
        held = {name: p.detach() for name, p in self.objective.named_parameters() if p.requires_grad}
        held |= {f"average of {n}": v for n, v in (self.average.values if self.average else {}).items()}
        for i, values in enumerate(self.optimizer.optimizer.state.values()):
            held |= {f"optimiser's {n} of tensor {i}": v for n, v in values.items() if isinstance(v, Tensor)}
        refuse_nonfinite(self.fabric, held, Path(self.context.settings.out))

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
