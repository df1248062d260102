"""What a training config needs on disk: imported bodies, data sets, weights; each check finds its own problem."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import safetensors
import torch

from dpmesh.assets import asset_folder, find_asset, weights_folder
from dpmesh.checkpoint import WEIGHTS, read_config
from dpmesh.config import DPMeshConfig, stored_config
from dpmesh.data.datasets.threedpw import json_file
from dpmesh.data.shards import is_packed
from dpmesh.data.sources import SETS
from dpmesh.errors import AssetError, ConfigError, DPMeshError, InputError, WeightsError
from dpmesh.pose_prior.files import load_any_prior
from dpmesh.pose_prior.prior import DirectConfig
from dpmesh.train.config import Settings, TrainingSource
from dpmesh.train.context import (
    TrainingContext,
    refuse_no_start,
    refuse_nonfinite_weights,
    refuse_other_prior,
    refuse_random_backbone,
)
from dpmesh.train.stages import PriorStage, UncertaintyStage

_IMPORTED = {
    "smpl_neutral": "SMPL_NEUTRAL.pkl",
    "smpl_male": "SMPL_MALE.pkl",
    "smpl_female": "SMPL_FEMALE.pkl",
    "h36m_regressor": "J_regressor_h36m_correct.npy",
}


def missing_assets(settings: Settings) -> Iterator[DPMeshError]:
    """An error for each missing file that must be imported (`dpmesh assets import`) for body, fits or validation."""
    for name, use in _wanted(settings).items():
        if find_asset(name) is None:
            body = name == "smpl_neutral"
            yield AssetError(
                "no SMPL body was imported" if body else f"{name} has not been imported, and {use} needs it",
                where="body" if body else str(asset_folder()),
                fix=f"Import {'one' if body else 'it'}: dpmesh assets import {_IMPORTED[name]}.",
            )


def _wanted(settings: Settings) -> dict[str, str]:
    """Names of the assets that the run needs, and what for."""
    needed: dict[str, str] = {}
    data = settings.data
    if all(isinstance(stage, PriorStage) for stage in settings.stages):
        return needed
    if settings.body == "smpl":
        needed |= {"smpl_neutral": "the model's body"}
        needed |= {"h36m_regressor": "validation"} if settings.validate_every else {}
    if any(s.fits == "smpl" and _unpacked(s) for s in (*data.group3d, *data.group2d)):
        needed |= {"smpl_neutral": "the fits", "h36m_regressor": "the fits' check"}
    if settings.validate_every and any(s.dataset == "3dpw" and _unpacked(s) for s in data.validation):
        needed |= dict.fromkeys(("smpl_male", "smpl_female", "h36m_regressor"), "3DPW's validation")
    return needed


def missing_files(source: TrainingSource) -> list[DPMeshError]:
    """An error for each part of a data set that is missing; none for packed sets, whose manifest lists their files."""
    if not _unpacked(source) or source.dataset not in SETS:
        return []
    chosen, root = SETS[source.dataset], Path(source.root)
    folders = [root / name for name in chosen.folders]
    if source.dataset == "3dpw" and source.split == "validation":
        folders.append(root)
        here = [
            f for f in folders if any(os.path.exists(f / n) for n in (_JSON, "sequenceFiles", "imageFiles"))
        ]
    else:
        here = [folder for folder in folders if os.path.isdir(folder)]
    if not here:
        fix = "Put it there (docs/guide/data.md)"
        packed = "" if source.split == "validation" else f", or pack it: dpmesh data pack sets {source.root}"
        return [
            InputError(
                f"{chosen.title} ({source.split}) is not here",
                where=" or ".join(map(str, folders)),
                fix=f"{fix}{packed}.",
            )
        ]
    missing: list[DPMeshError] = []
    if source.dataset == "3dpw" and source.split == "validation":
        folder = next(
            (f for f in here if any(os.path.exists(f / n) for n in (_JSON, "sequenceFiles"))), here[0]
        )
        if not any(os.path.exists(folder / n) for n in (_JSON, "sequenceFiles")):
            missing.append(_lacking(f"{_JSON} or sequenceFiles", folder))
        if not os.path.isdir(folder / "imageFiles"):
            missing.append(_lacking("imageFiles", folder))
    return missing


_JSON = json_file("validation")


def _lacking(name: str, folder: Path) -> DPMeshError:
    return InputError(
        f"3DPW's {name} is not here", where=str(folder), fix="docs/guide/data.md says where it comes from."
    )


def _unpacked(source: TrainingSource) -> bool:
    return source.dataset != "synthetic" and not is_packed(Path(source.root))


def without_fits(source: TrainingSource) -> TrainingSource:
    """The set without its fits, so that its own files can be checked while SMPL is missing."""
    return replace(source, fits="none") if _unpacked(source) else source


def how_to_make(folder: str, wanted: DPMeshConfig) -> str:
    """The next command for weights or a prior that are missing."""
    path = Path(folder)
    config = Path("configs") / f"{path.parent.name}.toml"
    if path.parent.parent.name == "runs":
        named = config if config.is_file() else f"the config whose `out` is {path.parent}"
        return f"Train it first: dpmesh train {named}." if config.is_file() else f"Train it first ({named})."
    if wanted.name.startswith("release"):
        return f"Make them: dpmesh convert released CHECKPOINT {folder}."
    if wanted.lora_rank:
        return f"Make them: dpmesh convert sd15 FOLDER {folder}."
    return "Make them first (dpmesh convert, or the config of the stage before), or name others."


def check_body(context: TrainingContext) -> None:
    """Raise AssetError where the body, or the joint regressor that validation needs, is not imported."""
    settings, arrays = context.settings, context.body
    validated = settings.validate_every and not all(
        isinstance(stage, PriorStage) for stage in settings.stages
    )
    if arrays is not None and validated and "h36m17" not in arrays.regressors:
        raise AssetError(
            "the Human3.6M joint regressor was not imported, and validation measures by it",
            where="body",
            fix="Import it: dpmesh assets import J_regressor_h36m_correct.npy.",
        )


def check_tensorboard() -> None:
    """Raise ConfigError where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "TensorBoard is not installed", where="tensorboard", fix="pip install 'dpmesh[train]'"
        )


def weight_checks(
    context: TrainingContext, number: int, started: int, *, read_all: bool
) -> Iterator[Callable[[], object]]:
    """Checks of the weights that stage `number` reads and no stage from `started` on makes; they raise DPMeshError.

    read_all: read all stored numbers too.
    """
    stage = context.settings.stages[number]
    if isinstance(stage, PriorStage):
        return
    made = {str(context.output_folder(k)) for k in range(started, number)}
    source, prior = context.start_of(number), context.prior
    if source is None and isinstance(stage, UncertaintyStage):
        yield lambda: refuse_no_start(source, stage)
    elif source is None:
        yield lambda: refuse_random_backbone(context)
    if prior is not None and prior not in made and not isinstance(context.model.pose_prior, DirectConfig):
        yield lambda: _check_prior(context, prior)
    for folder in dict.fromkeys(f for f in (source, _teacher_of(context, number)) if f and f not in made):
        yield lambda f=folder: _check_model(f, context, read_all)
    yield lambda: context.teacher_of(number)


def _teacher_of(context: TrainingContext, number: int) -> str | None:
    try:
        return context.teacher_of(number)
    except ConfigError:  # has a check of its own
        return None


def _check_prior(context: TrainingContext, folder: str) -> None:
    if not Path(folder).is_dir():
        raise ConfigError(
            "this folder of a pose prior does not exist",
            where=folder,
            fix=how_to_make(folder, context.model),
        )
    prior = load_any_prior(Path(folder))
    refuse_nonfinite_weights(prior, folder)
    refuse_other_prior(prior, context, folder)


def _check_model(source: str, context: TrainingContext, read_all: bool) -> None:
    """Raise DPMeshError for weights that are missing, of another model (apart from the head) or not finite."""
    folder = weights_folder(source)
    if not folder.is_dir():
        raise ConfigError(
            "these start weights do not exist",
            where=source,
            fix=how_to_make(source, context.model),
        )
    plain, _ = read_config(folder)
    have = stored_config(plain, str(folder / "config.json"))
    if _headless(have) != _headless(context.model):
        raise ConfigError(
            f"these are not weights of {context.model_name}, but of {have.name!r}", where=source
        )
    if read_all:
        refuse_nonfinite_file(folder)


def _headless(model: DPMeshConfig) -> DPMeshConfig:
    stored = model.as_stored()
    return replace(stored, regressor=replace(stored.regressor, uncertainty=0))


def refuse_nonfinite_file(folder: Path) -> None:
    """Raise WeightsError where a stored number is not finite or the file cannot be read. Reads one tensor at a time."""
    path = folder / WEIGHTS
    try:
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not torch.isfinite(file.get_tensor(name)).all():
                    raise WeightsError(
                        f"{name} holds NaN or infinity",
                        where=str(folder),
                        fix="Take other weights; these come from a training that diverged, or are damaged.",
                    )
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{WEIGHTS} cannot be read ({error})", where=str(folder)) from None
