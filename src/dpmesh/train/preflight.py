"""Before the first step: is everything there that the stages of a config need? All that is missing, with what it costs.

Alone by `dpmesh train CONFIG --check`; every training begins with it, on every process.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from dpmesh.ablations import configuration
from dpmesh.assets import weights_folder
from dpmesh.backbone.timm import load_timm
from dpmesh.checkpoint import read_config
from dpmesh.config import DPMeshConfig, stored_config
from dpmesh.data.augment import AugmentConfig
from dpmesh.errors import AssetError, ConfigError, DPMeshError, OutputError
from dpmesh.pose_prior.direct import DirectConfig
from dpmesh.pose_prior.files import load_any_prior
from dpmesh.train import config
from dpmesh.train.benchmarks import prepare_validation
from dpmesh.train.config import Settings, model_name
from dpmesh.train.context import (
    body_of,
    left_by,
    prior_of,
    refuse_no_numbers,
    refuse_other_prior,
    refuse_random_backbone,
    source_of,
    teacher_of,
)
from dpmesh.train.costs import Cost, cost_of, free_memory
from dpmesh.train.dataloader import (
    held_out_poses,
    mixture_of,
    opened,
    pose_bank,
    prior_poses,
    refuse_uneven,
    steps_of,
)
from dpmesh.train.needs import how_to_make, missing_assets, missing_files, without_fits
from dpmesh.train.place import refuse_foreign
from dpmesh.train.stages import AnyStage, Prior, Uncertainty
from dpmesh.train.stored import refuse_bad_numbers

GIB = 2**30


@dataclass
class Findings:
    """problems: what is missing. lines: what the run will be."""

    problems: list[DPMeshError] = field(default_factory=list[DPMeshError])
    lines: list[str] = field(default_factory=list[str])

    def look(self, check: Callable[[], object]) -> bool:
        """Whether the check found nothing wrong; what several checks find alike is told once."""
        try:
            check()
        except DPMeshError as error:
            if str(error) not in map(str, self.problems):
                self.problems.append(error)
            return False
        return True

    def add(self, problems: list[DPMeshError]) -> bool:
        """Whether there are any."""
        for error in problems:
            self.look(lambda e=error: _raise(e))
        return bool(problems)


def refuse(settings: Settings, fabric: Fabric, started: int = 0) -> None:
    """Raise the first thing that stages from `started` on lack. Stored numbers are read by the first process of each
    machine alone."""
    here = (
        fabric.world_size
        if fabric.world_size == 1
        else int(os.environ.get("LOCAL_WORLD_SIZE", settings.processes))
    )
    found = examine(
        settings,
        started,
        world=fabric.world_size,
        here=here,
        device=fabric.device,
        numbers=fabric.local_rank == 0,
    )
    if found.problems:
        raise found.problems[0]


def examine(
    settings: Settings,
    started: int = 0,
    *,
    world: int,
    here: int,
    device: torch.device,
    numbers: bool = True,
) -> Findings:
    """Look at everything. world, here: processes in all and on this machine; numbers: read all stored weights."""
    found = Findings()
    if not found.look(lambda: configuration(settings.model)):
        return found
    for check in _of_the_run(settings):
        found.look(check)
    assets = list(missing_assets(settings))
    found.add(assets)
    costs, counted = list[Cost](), True
    for source in dict.fromkeys(s for stage in settings.stages[started:] for s in _sources(settings, stage)):
        there = source if not assets else without_fits(source)
        counted &= not found.add(missing_files(source)) and found.look(lambda s=there: _people(s, found))
    if settings.data.real and counted:
        counted = found.look(lambda: mixture_of(settings.data, 0)) if not assets else False
    for number in range(started, len(settings.stages)):
        stage = settings.stages[number]
        found.look(lambda s=stage: refuse_uneven(s, world))
        for check in _weights(settings, number, started, numbers):
            found.look(check)
        if isinstance(stage, Prior):
            found.look(lambda s=stage: prior_poses(s, settings.data.motions))
            found.look(lambda s=stage: held_out_poses(s))
        if found.look(lambda s=stage, n=number: costs.append(cost_of(settings, n, world))):
            found.look(lambda: costs[-1].refuse_memory(settings, free_memory(device, here), device))
            found.look(lambda s=stage: found.lines.extend(_lines(settings, s, costs[-1], counted)))
    if costs:
        found.look(lambda: _room(settings, costs))
    return found


def _of_the_run(settings: Settings) -> Iterator[Callable[[], object]]:
    """What no stage has for itself."""
    yield lambda: refuse_foreign(Path(settings.out))
    yield lambda: _body(settings)
    if settings.optimizer == "muon":
        yield lambda: load_timm("the optimiser muon")
    if settings.tensorboard:
        yield _tensorboard
    lacking = (
        [missing_files(source) for source in settings.data.validation] if settings.validate_every else []
    )
    if any(lacking):
        yield from (lambda e=error: _raise(e) for errors in lacking for error in errors)
    elif not any(missing_assets(settings)):
        yield lambda: prepare_validation(settings)
    if not settings.data.real and not settings.data.validation and settings.validate_every:
        yield lambda: pose_bank("validation")


def _body(settings: Settings) -> None:
    """The body is there, and the regressor of the joints that are measured while training."""
    arrays, _ = body_of(settings)
    measured = settings.validate_every and not all(isinstance(stage, Prior) for stage in settings.stages)
    if arrays is not None and measured and "h36m17" not in arrays.regressors:
        raise AssetError(
            "the Human3.6M joint regressor was not imported, and validation measures by it",
            where="body",
            fix="Import it: dpmesh assets import J_regressor_h36m_correct.npy.",
        )


def _raise(error: DPMeshError) -> None:
    raise error


def _tensorboard() -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "TensorBoard is not installed", where="tensorboard", fix="pip install 'dpmesh[train]'"
        )


def _weights(settings: Settings, number: int, started: int, numbers: bool) -> Iterator[Callable[[], object]]:
    """The folders that stage `number` reads and that no stage before it will make."""
    stage = settings.stages[number]
    if isinstance(stage, Prior):
        return
    made = {str(left_by(settings, k)) for k in range(started, number)}
    wanted = configuration(settings.model)
    source, prior = source_of(settings, number), prior_of(settings)
    if source is None and isinstance(stage, Uncertainty):
        yield lambda: _raise_no_answers(stage)
    elif source is None:
        yield lambda: refuse_random_backbone(settings)
    if prior is not None and prior not in made and not isinstance(wanted.pose_prior, DirectConfig):
        yield lambda: _prior(settings, prior)
    for folder in dict.fromkeys(f for f in (source, _teacher(settings, number)) if f and f not in made):
        yield lambda f=folder: _stored(f, wanted, settings, numbers)
    yield lambda: teacher_of(settings, number)


def _teacher(settings: Settings, number: int) -> str | None:
    try:
        return teacher_of(settings, number)
    except ConfigError:  # a check of its own
        return None


def _raise_no_answers(stage: Uncertainty) -> None:
    raise ConfigError(
        "there are no weights whose answers could be judged",
        where=f"stage {stage.name}",
        fix="Name `start`, or put a stage before it.",
    )


def _prior(settings: Settings, folder: str) -> None:
    if not Path(folder).is_dir():
        raise ConfigError(
            "there is no such folder of a pose prior",
            where=folder,
            fix=how_to_make(folder, configuration(settings.model)),
        )
    prior = load_any_prior(Path(folder))
    refuse_no_numbers(prior, folder)
    refuse_other_prior(prior, settings, folder)


def _stored(source: str, wanted: DPMeshConfig, settings: Settings, numbers: bool) -> None:
    """Weights are there, of this model (its uncertainty head apart, which begin looks at), and all are numbers."""
    folder = weights_folder(source)
    if not folder.is_dir():
        raise ConfigError(
            "there are no such start weights",
            where=source,
            fix=how_to_make(source, wanted),
        )
    plain, _ = read_config(folder)
    have = stored_config(plain, str(folder / "config.json"))
    if _headless(have) != _headless(wanted):
        raise ConfigError(
            f"these are not weights of {model_name(settings.model)}, but of {have.name!r}", where=source
        )
    if numbers:
        refuse_bad_numbers(folder)


def _headless(model: DPMeshConfig) -> DPMeshConfig:
    stored = model.as_stored()
    return replace(stored, regressor=replace(stored.regressor, uncertainty=0))


def _sources(settings: Settings, stage: AnyStage) -> Iterator[config.Source]:
    """The data sets that a stage reads."""
    if isinstance(stage, Prior):
        return
    yield from (*settings.data.group3d, *settings.data.group2d)
    if isinstance(stage, Uncertainty):  # calibrated on them; other stages: train/benchmarks.py
        yield from settings.data.validation


def _people(source: config.Source, found: Findings) -> None:
    """A data set can be opened, and people of it made; how many there are is told."""
    people, rng = opened(source), np.random.default_rng(0)
    for index in {0, len(people) - 1}:
        people.sample(index, rng, AugmentConfig.still())
    found.lines.append(
        f"{source.dataset} ({source.split}): {len(people):,} people in {source.root or 'memory'}"
    )


def _room(settings: Settings, costs: list[Cost]) -> None:
    """Two checkpoints and the one that is being written, and what each stage leaves."""
    needed = 3 * max(cost.checkpoint for cost in costs) + sum(cost.left for cost in costs)
    place = Path(settings.out).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK):
        raise OutputError("cannot be written to", where=str(place), fix="Choose another `out`.")
    free = shutil.disk_usage(place).free
    there = sum(path.stat().st_size for path in Path(settings.out).glob("*.ckpt"))
    if free + there < needed:
        raise OutputError(
            f"{needed / GIB:.1f} GiB are needed for checkpoints and weights, {free / GIB:.1f} are free",
            where=str(place),
            fix="Make room, or choose another `out`.",
        )


def _lines(settings: Settings, stage: AnyStage, cost: Cost, counted: bool) -> list[str]:
    """What one stage will be. counted: all its data sets are there."""
    named = f"stage {stage.name} ({stage.kind})"
    real = settings.data.real and not isinstance(stage, Prior)
    if real and not counted:
        length = f"{stage.steps:,} steps" if stage.steps else f"{stage.epochs} epochs"
        return [
            f"{named}: {length}, batch {stage.batch}; people can be counted when all sets are there",
            f"  {cost.told()}",
        ]
    steps, _ = steps_of(stage, settings.data)
    length = f"{steps:,} steps of {stage.batch}"
    if real:
        epoch = mixture_of(settings.data, 0).epoch
        length += f", {epoch:,} people an epoch, {max(epoch // stage.batch, 1):,} steps of it"
    return [f"{named}: {length}", f"  {cost.told()}"]
