"""The body for a model's weights: the free one, or the user's licensed one, compared with the checkpoint's record."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from dpmesh.assets import find_asset, sha256
from dpmesh.body.files import BodyArrays, load_body
from dpmesh.body.identify import recognise
from dpmesh.checkpoint import CONFIG, read_config
from dpmesh.errors import AssetError, InputError, WeightsError


def find_regressors(folder: Path | None) -> dict[str, Path]:
    """The regressor files in a folder, recognised by content ("h36m_regressor", "extra_regressor"); without a folder
    the imported ones. Raises InputError if the folder has neither."""
    names = ("h36m_regressor", "extra_regressor")
    if folder is None:
        return {name: path for name in names if (path := find_asset(name))}
    if not os.path.isdir(folder):
        raise InputError("there is no such folder", where=str(folder))
    regressors: dict[str, Path] = {}
    for path in sorted(folder.glob("*.npy")):
        identity = recognise(path)
        if identity is not None and identity.asset in names:
            regressors.setdefault(identity.asset, path)
    if not regressors:
        raise InputError(
            "no joint regressor in the folder",
            where=str(folder),
            fix="dpmesh assets doctor says where to get them.",
        )
    return regressors


def user_body(body: Path | None, regressors: Path | None) -> tuple[BodyArrays, dict[str, Any]] | None:
    """The body in a file (.npz, SMPL's .pkl) with its regressors, and a record of both for a model's provenance.

    Without a file the imported neutral SMPL, or None if there is none; regressors: as find_regressors. Raises
    InputError.
    """
    path = body or find_asset("smpl_neutral")
    rows = find_regressors(regressors)
    if path is None:
        return None
    arrays = load_body(path, h36m=rows.get("h36m_regressor"), extra=rows.get("extra_regressor"))
    record: dict[str, Any] = {"file": path.name, "sha256": sha256(path), "vertices": len(arrays.v_template)}
    record |= {name: {"file": used.name, "sha256": sha256(used)} for name, used in rows.items()}
    return arrays, record


@dataclass(frozen=True, eq=False)
class ChosenBody:
    """arrays: None for the free body. record: the files and their checksums. notes: differences from the weights."""

    arrays: BodyArrays | None = None
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()


def choose_body(
    weights: str | Path, body: str | Path | None = None, regressors: str | Path | None = None
) -> ChosenBody:
    """The body for `weights`: the one in a file, with regressors as of `find_regressors`.

    Without a file the imported neutral SMPL for weights that were trained with it, the free body for all others. Raises
    AssetError if the former is missing (SMPL's shape coefficients mean other shapes on the free body), InputError for
    files that cannot be used.
    """
    provenance = _provenance(weights)
    recorded = _recorded(provenance, weights)
    released = _trained_with_one(provenance)
    if body is None and not released:
        if regressors is not None:
            raise InputError("regressors without a body", where=str(regressors), fix="Give --body as well.")
        return ChosenBody()
    chosen = user_body(_path(body), _path(regressors))
    if chosen is None:
        raise AssetError(
            "these weights need the SMPL body that they were trained with",
            where=str(weights),
            fix="Give --body SMPL_NEUTRAL.pkl, or import it once: dpmesh assets import FILE.",
        )
    arrays, record = chosen
    if "joints30" not in arrays.regressors:
        raise InputError(
            f"this body has no regressor of the 30 joints ({record['vertices']} vertices, SMPL has 6890)",
            where=record["file"],
            fix="Give SMPL's own mesh, or a .npz that save_body wrote with one.",
        )
    notes = _differences(record, recorded) if released else (_FREE,)
    return ChosenBody(arrays, record, notes)


def needs_body(weights: str | Path) -> bool:
    """Whether weights were trained with a body that the user must provide. Raises WeightsError."""
    return _trained_with_one(_provenance(weights))


def _provenance(weights: str | Path) -> dict[str, Any]:
    folder = Path(weights)
    return read_config(folder)[1] if os.path.isdir(folder) else {}


def _recorded(provenance: Mapping[str, Any], weights: str | Path) -> dict[str, Any]:
    recorded: object = provenance.get("body") or {}
    if not isinstance(recorded, dict):
        raise WeightsError("its provenance records something other than a body", where=f"{weights}/{CONFIG}")
    return cast("dict[str, Any]", recorded)


def _trained_with_one(provenance: Mapping[str, Any]) -> bool:
    return provenance.get("source") == SOURCE or bool(provenance.get("body"))


_FREE = "the weights were trained with the free body: their shape coefficients mean other shapes on this one"


def _differences(used: Mapping[str, Any], recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """The differences of the body in use from the one that the conversion recorded."""
    if "sha256" not in recorded:
        return ("the body was never compared with the checkpoint's (none was named at the conversion)",)
    if used["sha256"] != recorded["sha256"]:
        return (f"the body {used['file']} is not {recorded.get('file')}, which the conversion recorded",)
    recorded_differences = recorded.get("differs_from_checkpoint")
    if not isinstance(recorded_differences, list) or not recorded_differences:
        return ()
    differences = cast("list[object]", recorded_differences)
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    return (f"the body is not the checkpoint's: {differences[0]}{more}",)


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)


SOURCE = "a released DPMesh checkpoint"
"""The `source` in the provenance of converted weights."""
