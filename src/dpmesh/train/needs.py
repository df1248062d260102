"""The files that a config needs, looked for one by one: what is missing of them hides nothing else that is missing."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dpmesh.assets import asset_folder, find_asset
from dpmesh.config import DPMeshConfig
from dpmesh.data.datasets.registry import SETS
from dpmesh.data.shards import is_packed
from dpmesh.errors import AssetError, DPMeshError, InputError
from dpmesh.evaluate.readers.threedpw_json import FILES
from dpmesh.train.config import Settings, Source
from dpmesh.train.stages import Prior

_IMPORTED = {
    "smpl_neutral": "SMPL_NEUTRAL.pkl",
    "smpl_male": "SMPL_MALE.pkl",
    "smpl_female": "SMPL_FEMALE.pkl",
    "h36m_regressor": "J_regressor_h36m_correct.npy",
}


def missing_assets(settings: Settings) -> Iterator[DPMeshError]:
    """Of the files that a user imports those that the bodies, the sets' fits and the validation want."""
    for name, use in _wanted(settings).items():
        if find_asset(name) is None:
            body = name == "smpl_neutral"
            yield AssetError(
                "no SMPL body was imported" if body else f"{name} has not been imported, and {use} needs it",
                where="body" if body else str(asset_folder()),
                fix=f"Import {'one' if body else 'it'}: dpmesh assets import {_IMPORTED[name]}.",
            )


def _wanted(settings: Settings) -> dict[str, str]:
    """Names of assets, and what needs each."""
    found: dict[str, str] = {}
    data = settings.data
    if all(isinstance(stage, Prior) for stage in settings.stages):
        return found
    if settings.body == "smpl":
        found |= {"smpl_neutral": "the model's body"}
        found |= {"h36m_regressor": "validation"} if settings.validate_every else {}
    if any(s.fits == "smpl" and _unpacked(s) for s in (*data.group3d, *data.group2d)):
        found |= {"smpl_neutral": "the fits", "h36m_regressor": "the fits' check"}
    if settings.validate_every and any(s.dataset == "3dpw" and _unpacked(s) for s in data.validation):
        found |= dict.fromkeys(("smpl_male", "smpl_female", "h36m_regressor"), "3DPW's validation")
    return found


def missing_files(source: Source) -> list[DPMeshError]:
    """What of a data set is not where it is looked for; nothing of packed sets, whose manifest says what is there."""
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
    found: list[DPMeshError] = []
    if source.dataset == "3dpw" and source.split == "validation":
        folder = next(
            (f for f in here if any(os.path.exists(f / n) for n in (_JSON, "sequenceFiles"))), here[0]
        )
        if not any(os.path.exists(folder / n) for n in (_JSON, "sequenceFiles")):
            found.append(_lacking(f"{_JSON} or sequenceFiles", folder))
        if not os.path.isdir(folder / "imageFiles"):
            found.append(_lacking("imageFiles", folder))
    return found


_JSON = FILES["3dpw-validation"]


def _lacking(name: str, folder: Path) -> DPMeshError:
    return InputError(
        f"3DPW's {name} is not here", where=str(folder), fix="docs/guide/data.md says where it comes from."
    )


def _unpacked(source: Source) -> bool:
    return source.dataset != "synthetic" and not is_packed(Path(source.root))


def without_fits(source: Source) -> Source:
    """The set to look into while SMPL is missing: its own files then are seen all the same."""
    return replace(source, fits="none") if _unpacked(source) else source


def how_to_make(folder: str, wanted: DPMeshConfig) -> str:
    """The next command for weights or a prior that are not there."""
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
