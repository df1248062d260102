"""Before the first step: whether all that a run's stages need exists, and what they cost.

`dpmesh train CONFIG --check` lists all that is missing; a training raises the first problem, on every process.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from dpmesh.backbone.timm import load_timm
from dpmesh.data.augment import AugmentConfig
from dpmesh.errors import ConfigError, DPMeshError, OutputError
from dpmesh.train.config import Settings, TrainingSource
from dpmesh.train.context import TrainingContext, objective_on_meta
from dpmesh.train.dataloader import (
    held_out_poses,
    mixture_of,
    opened,
    pose_bank,
    prior_poses,
    refuse_uneven,
    steps_of,
    training_people,
)
from dpmesh.train.record import refuse_foreign
from dpmesh.train.requirements import (
    check_body,
    check_tensorboard,
    missing_assets,
    missing_files,
    weight_checks,
    without_fits,
)
from dpmesh.train.stages import AnyStage, PriorStage, UncertaintyStage
from dpmesh.train.validate import prepare_validation

GIB = 2**30
NUMBER = 4
"""Bytes of a stored number: fp32."""


@dataclass(frozen=True)
class Cost:
    """The size of a stage in parameters.

    weights, trained: all parameters and the trained ones. teacher: those of a student's teacher that it does not share.
    copies: of the trained parameters in a checkpoint (weights, optimiser, average). world: processes that share weights
    and optimiser (FSDP), else 1.
    """

    weights: int
    trained: int
    teacher: int
    copies: int
    world: int

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint."""
        return NUMBER * self.copies * self.trained

    @property
    def left(self) -> int:
        """Bytes of the stage's saved weights."""
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

    def summary(self) -> str:
        """One line."""
        own = f", {self.teacher:,} of a teacher" if self.teacher else ""
        return (
            f"{self.trained:,} of {self.weights:,} numbers are trained{own}; {self.states / GIB:.1f} GiB in each "
            f"process before a batch, a checkpoint of {self.checkpoint / GIB:.1f} GiB (two are kept), "
            f"weights of {self.left / GIB:.1f} GiB"
        )


@dataclass
class Findings:
    """problems: what is missing or wrong. lines: a description of the run."""

    problems: list[DPMeshError] = field(default_factory=list[DPMeshError])
    lines: list[str] = field(default_factory=list[str])

    def passes(self, check: Callable[[], object]) -> bool:
        """Whether the check raises nothing. An error that several checks raise is kept once."""
        try:
            check()
        except DPMeshError as error:
            if str(error) not in map(str, self.problems):
                self.problems.append(error)
            return False
        return True

    def add(self, problems: list[DPMeshError]) -> bool:
        """Add problems; returns whether any were passed."""
        for error in problems:
            self.passes(lambda e=error: _raise(e))
        return bool(problems)


def check_settings(settings: Settings, *, world: int, here: int, device: torch.device) -> Findings:
    """`examine` of settings; a model that does not exist is the one problem."""
    try:
        context = TrainingContext.resolve(settings)
    except ConfigError as error:
        return Findings(problems=[error])
    return examine(context, world=world, here=here, device=device)


def refuse(context: TrainingContext, fabric: Fabric, started: int = 0) -> None:
    """Raise the first problem of the stages from `started` on, a DPMeshError. Only the first process of each machine
    reads all stored numbers."""
    here = (
        fabric.world_size
        if fabric.world_size == 1
        else int(os.environ.get("LOCAL_WORLD_SIZE", context.settings.processes))
    )
    findings = examine(
        context,
        started,
        world=fabric.world_size,
        here=here,
        device=fabric.device,
        read_all=fabric.local_rank == 0,
    )
    if findings.problems:
        raise findings.problems[0]


def examine(
    context: TrainingContext,
    started: int = 0,
    *,
    world: int,
    here: int,
    device: torch.device,
    read_all: bool = True,
) -> Findings:
    """Check everything. world, here: processes in all and on this machine; read_all: read all stored weights."""
    settings, findings = context.settings, Findings()
    for check in _run_checks(context):
        findings.passes(check)
    assets = list(missing_assets(settings))
    findings.add(assets)
    costs, counted = list[Cost](), True
    for source in dict.fromkeys(s for stage in settings.stages[started:] for s in _sources(settings, stage)):
        present = source if not assets else without_fits(source)
        counted &= not findings.add(missing_files(source)) and findings.passes(
            lambda s=present: _people(s, findings)
        )
    if settings.data.real and counted:
        counted = findings.passes(lambda: mixture_of(settings.data, 0)) if not assets else False
    for number in range(started, len(settings.stages)):
        stage = settings.stages[number]
        findings.passes(lambda s=stage: refuse_uneven(s, world))
        for check in weight_checks(context, number, started, read_all=read_all):
            findings.passes(check)
        if isinstance(stage, PriorStage):
            findings.passes(lambda s=stage: prior_poses(s, settings.data.motions))
            findings.passes(lambda s=stage: held_out_poses(s))
        if findings.passes(lambda s=stage, n=number: costs.append(cost_of(context, n, world))):
            findings.passes(lambda: costs[-1].refuse_memory(settings, free_memory(device, here), device))
            findings.passes(lambda s=stage: findings.lines.extend(_lines(settings, s, costs[-1], counted)))
    if costs:
        findings.passes(lambda: _room(settings, costs))
    return findings


def _run_checks(context: TrainingContext) -> Iterator[Callable[[], object]]:
    """Checks of the whole run, not of one stage."""
    settings = context.settings
    yield lambda: refuse_foreign(Path(settings.out))
    yield lambda: check_body(context)
    if settings.data.looks or settings.data.backgrounds:
        yield lambda: training_people(settings.data, 0)
    if settings.optimizer == "muon":
        yield lambda: load_timm("the optimiser muon")
    if settings.tensorboard:
        yield check_tensorboard
    validation = settings.data.validation if settings.validate_every else ()
    lacking = [missing_files(source) for source in validation]
    if any(lacking):
        yield from (lambda e=error: _raise(e) for errors in lacking for error in errors)
    elif not any(missing_assets(settings)):
        yield lambda: prepare_validation(settings)
    if not settings.data.real and not settings.data.validation and settings.validate_every:
        yield lambda: pose_bank("validation")


def _raise(error: DPMeshError) -> None:
    raise error


def _sources(settings: Settings, stage: AnyStage) -> Iterator[TrainingSource]:
    """The data sets that a stage reads."""
    if isinstance(stage, PriorStage):
        return
    yield from (*settings.data.group3d, *settings.data.group2d)
    if isinstance(stage, UncertaintyStage):  # calibrated on them; other stages: prepare_validation
        yield from settings.data.validation


def _people(source: TrainingSource, findings: Findings) -> None:
    """Open a data set, make its first and last sample, and report how many people it has."""
    people, rng = opened(source), np.random.default_rng(0)
    for index in {0, len(people) - 1}:
        people.sample(index, rng, AugmentConfig.still())
    findings.lines.append(
        f"{source.dataset} ({source.split}): {len(people):,} people in {source.root or 'memory'}"
    )


def _room(settings: Settings, costs: list[Cost]) -> None:
    """Raise OutputError without space for three checkpoints (one is being written) and each stage's weights."""
    needed = 3 * max(cost.checkpoint for cost in costs) + sum(cost.left for cost in costs)
    place = Path(settings.out).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK):
        raise OutputError("cannot be written to", where=str(place), fix="Choose another `out`.")
    free = shutil.disk_usage(place).free
    old = sum(path.stat().st_size for path in Path(settings.out).glob("*.ckpt"))
    if free + old < needed:
        raise OutputError(
            f"{needed / GIB:.1f} GiB are needed for checkpoints and weights, {free / GIB:.1f} are free",
            where=str(place),
            fix="Make room, or choose another `out`.",
        )


def _lines(settings: Settings, stage: AnyStage, cost: Cost, counted: bool) -> list[str]:
    """Length and cost of a stage. counted: all its data sets exist."""
    named = f"stage {stage.name} ({stage.kind})"
    real = settings.data.real and not isinstance(stage, PriorStage)
    if real and not counted:
        length = f"{stage.steps:,} steps" if stage.steps else f"{stage.epochs} epochs"
        return [
            f"{named}: {length}, batch {stage.batch}; the number of people is known when no set is missing",
            f"  {cost.summary()}",
        ]
    steps, _ = steps_of(stage, settings.data)
    length = f"{steps:,} steps of {stage.batch}"
    if real:
        epoch = mixture_of(settings.data, 0).epoch
        length += f", {epoch:,} people an epoch, {max(epoch // stage.batch, 1):,} steps of it"
    return [f"{named}: {length}", f"  {cost.summary()}"]


# What a stage costs in memory and on disk, counted on the meta device before anything is loaded.


def cost_of(context: TrainingContext, number: int, world: int) -> Cost:
    """The cost of stage `number`. Raises ConfigError as make_objective does."""
    settings, objective = context.settings, objective_on_meta(context, number)
    weights = sum(p.numel() for p in objective.parameters())
    trained = sum(p.numel() for group in objective.groups() for p in group.parameters)
    # Weights and Adam's two averages (Muon has one; counted as two), and the average of the weights.
    copies = 3 + (settings.ema_decay > 0)
    teacher = trained if context.teacher_of(number) is not None else 0
    return Cost(weights, trained, teacher, copies, world if settings.strategy == "fsdp" else 1)


def free_memory(device: torch.device, processes: int) -> int | None:
    """Bytes for each process: of its GPU, or its share of this machine's; None where that is unknown."""
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
