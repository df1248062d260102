"""What a stage costs in memory and on disk, counted on the meta device before anything is loaded."""

import os
from dataclasses import dataclass

import torch

from dpmesh.ablations import configuration
from dpmesh.errors import ConfigError
from dpmesh.pose_prior.vposer import VPoserConfig
from dpmesh.pose_prior.vqvae import PoseVQVAEConfig
from dpmesh.profiling import build_on_meta
from dpmesh.train.config import Settings, model_name
from dpmesh.train.context import teacher_of
from dpmesh.train.objectives.base import Objective
from dpmesh.train.objectives.denoising import DenoisingObjective
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.objectives.uncertainty import UncertaintyObjective
from dpmesh.train.objectives.vposer import VAEObjective
from dpmesh.train.objectives.vqvae import PriorObjective
from dpmesh.train.stages import Pretrain, Prior, Uncertainty

GIB = 2**30
NUMBER = 4
"""Bytes: everything that is kept is in fp32."""


@dataclass(frozen=True)
class Cost:
    """weights, trained: how many numbers. teacher: numbers of a student's teacher that are its own. copies: of what
    is trained in a checkpoint: weights, the optimiser's, and an average's. world: processes that share the optimiser
    and weights (FSDP), else 1."""

    weights: int
    trained: int
    teacher: int
    copies: int
    world: int

    @property
    def checkpoint(self) -> int:
        """Bytes of one: only what is trained, and its optimiser."""
        return NUMBER * self.copies * self.trained

    @property
    def left(self) -> int:
        """Bytes of the weights that the stage leaves."""
        return NUMBER * self.weights

    @property
    def states(self) -> int:
        """Bytes in each process, before a batch: weights, teacher, gradients, optimiser, average."""
        more = (
            self.copies * self.trained
        )  # the trained weights are among the weights; gradients take their place
        return NUMBER * ((self.weights + more) // self.world + self.teacher)

    def refuse_memory(self, settings: Settings, free: int | None, device: torch.device) -> None:
        """Raise ConfigError where the states alone do not fit."""
        if free is not None and self.states > free:
            raise ConfigError(
                f"weights, gradients and optimiser need {self.states / GIB:.1f} GiB in each process, "
                f"{free / GIB:.1f} are free on {device.type}",
                where="memory",
                fix='Fewer processes, a larger device, or strategy = "fsdp" over several.',
            )

    def told(self) -> str:
        """One line."""
        own = f", {self.teacher:,} of a teacher" if self.teacher else ""
        return (
            f"{self.trained:,} of {self.weights:,} numbers are trained{own}; {self.states / GIB:.1f} GiB in each "
            f"process before a batch, a checkpoint of {self.checkpoint / GIB:.1f} GiB (two are kept), "
            f"weights of {self.left / GIB:.1f} GiB"
        )


def cost_of(settings: Settings, number: int, world: int) -> Cost:
    """Of stage `number`. Raises ConfigError as begin does, where the model cannot be trained so."""
    objective = _without_numbers(settings, number)
    weights = sum(p.numel() for p in objective.parameters())
    trained = sum(p.numel() for group in objective.groups() for p in group.parameters)
    # Weights and Adam's two averages (Muon has one; counted as two), and the average of the weights.
    copies = 3 + (settings.ema > 0)
    teacher = trained if teacher_of(settings, number) is not None else 0
    return Cost(weights, trained, teacher, copies, world if settings.strategy == "fsdp" else 1)


def _without_numbers(settings: Settings, number: int) -> Objective:
    stage, wanted = settings.stages[number], configuration(settings.model)
    if isinstance(stage, Prior):
        if isinstance(wanted.pose_prior, VPoserConfig):
            return VAEObjective(wanted.pose_prior, stage)
        if not isinstance(wanted.pose_prior, PoseVQVAEConfig):
            raise ConfigError(
                f"{model_name(settings.model)} regresses the pose itself and has no prior to train",
                where=f"stage {stage.name}",
            )
        return PriorObjective(wanted.pose_prior, stage)
    model = build_on_meta(wanted)
    if isinstance(stage, Pretrain):
        return DenoisingObjective(model, stage, settings)
    if isinstance(stage, Uncertainty):
        return UncertaintyObjective(model, stage, settings)
    return MeshObjective(model, stage, settings)


def free_memory(device: torch.device, processes: int) -> int | None:
    """Bytes for each process: of its GPU, or its share of this machine's; None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo") as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
        return kib * 1024 // processes
    except (OSError, StopIteration, ValueError):
        pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return pages * size // processes
