"""The body that a released checkpoint carries: compared with the user's, never copied unasked."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpmesh.body.files import BETAS, BodyArrays, save_body, smpl_body
from dpmesh.errors import InputError, OutputError
from dpmesh.io import atomic_write, read_bytes
from dpmesh.skeletons import SMPL_PARENTS

KEPT = "SMPL_NEUTRAL.npz"


_THEIRS = {
    "v_template": "th_v_template",
    "shapedirs": "th_shapedirs",
    "posedirs": "th_posedirs",
    "J_regressor": "th_J_regressor",
    "weights": "th_weights",
    "f": "th_faces",
}


_SAME = 1e-5
"""Metres, and the other arrays' own units: float32 against the float64 of SMPL's files."""


def licensed_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """SMPL's field names from a release's `th_*` tensors, as far as they are there."""
    there = {ours: tensors[theirs] for ours, theirs in _THEIRS.items() if theirs in tensors}
    found: dict[str, NDArray[Any]] = {
        name: (value.double() if value.is_floating_point() else value).numpy()
        for name, value in there.items()
        if not value.is_complex()
    }
    if "v_template" in found and found["v_template"].ndim == 3 and len(found["v_template"]):
        found["v_template"] = found["v_template"][0]
    return found


def differences(body: BodyArrays, theirs: Mapping[str, NDArray[Any]]) -> list[str]:
    """What of a body is not what the checkpoint was trained with; empty where nothing differs."""
    told: list[str] = []
    for name, array in theirs.items():
        own: NDArray[Any] = body.faces if name == "f" else getattr(body, name)
        array = array[..., :BETAS] if name == "shapedirs" and array.ndim else array
        if own.shape != array.shape:
            told.append(f"{name} has shape {own.shape}, the checkpoint's {array.shape}")
        elif not (off := float(np.abs(own.astype(np.float64) - array).max())) <= _SAME:  # NaN differs
            told.append(
                f"{name} differs by up to {off * 1000:.3g} mm" if name == "v_template" else f"{name} differs"
            )
    return told


def keep_smpl(
    folder: Path,
    theirs: Mapping[str, NDArray[Any]],
    regressors: Mapping[str, Path],
    overwrite: bool = False,
) -> Path:
    """Write the checkpoint's own body, with its regressors, into a place that the user named for it.

    A file that is there already stays if it is the same, else OutputError unless `overwrite`: it may be the user's
    own SMPL, which is called just so.
    """
    parents = np.array([SMPL_PARENTS, range(len(SMPL_PARENTS))], np.int64)
    arrays = smpl_body(
        {**theirs, "kintree_table": parents},
        h36m=regressors.get("h36m_regressor"),
        extra=regressors.get("extra_regressor"),
    )
    target = folder / KEPT
    with tempfile.TemporaryDirectory(prefix="dpmesh-") as aside:
        save_body(Path(aside) / KEPT, arrays)
        data = read_bytes(Path(aside) / KEPT)
    if not overwrite and os.path.lexists(target) and not _holds(target, data):
        raise OutputError(
            "there is another body already", where=str(target), fix="Use --overwrite or another folder."
        )
    atomic_write(target, data)
    return target


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_bytes(path, len(data)) == data
    except InputError:
        return False
