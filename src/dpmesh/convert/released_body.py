"""The SMPL body inside a released checkpoint: compared with the user's, and written only on request."""

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
    """The arrays of a release's `th_*` tensors under SMPL's field names, where present."""
    present = {ours: tensors[theirs] for ours, theirs in _THEIRS.items() if theirs in tensors}
    arrays: dict[str, NDArray[Any]] = {
        name: (value.double() if value.is_floating_point() else value).numpy()
        for name, value in present.items()
        if not value.is_complex()
    }
    if "v_template" in arrays and arrays["v_template"].ndim == 3 and len(arrays["v_template"]):
        arrays["v_template"] = arrays["v_template"][0]
    return arrays


def differences(body: BodyArrays, theirs: Mapping[str, NDArray[Any]]) -> list[str]:
    """The fields of a body that differ from the checkpoint's; empty if none does."""
    differing: list[str] = []
    for name, array in theirs.items():
        own: NDArray[Any] = body.faces if name == "f" else getattr(body, name)
        array = array[..., :BETAS] if name == "shapedirs" and array.ndim else array
        if own.shape != array.shape:
            differing.append(f"{name} has shape {own.shape}, the checkpoint's {array.shape}")
        elif not (off := float(np.abs(own.astype(np.float64) - array).max())) <= _SAME:  # NaN differs
            differing.append(
                f"{name} differs by up to {off * 1000:.3g} mm" if name == "v_template" else f"{name} differs"
            )
    return differing


def keep_smpl(
    folder: Path,
    theirs: Mapping[str, NDArray[Any]],
    regressors: Mapping[str, Path],
    overwrite: bool = False,
) -> Path:
    """Write the checkpoint's own body, with its regressors, to `folder`/SMPL_NEUTRAL.npz; returns that path.

    An existing file is left if it is equal, and otherwise OutputError is raised unless `overwrite`: it may be the
    user's own SMPL, which has the same name.
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
