"""Recognises a user's file by its content, whatever its name: SMPL, VPoser, joint regressors."""

import os
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.array_files import BROKEN_ARRAYS, load_npz
from dpmesh.body.files import GET_SMPL, load_regressor, other_model, smpl_body
from dpmesh.body.unpickle import FIELDS, load_smpl_pickle
from dpmesh.errors import InputError, WeightsError
from dpmesh.io import HEAD, mistaken, open_regular, reason
from dpmesh.skeletons import SMPL_PARENTS
from dpmesh.tensor_files import read_tensors, refuse_numbers

LARGEST = 512 * 2**20
"""Bytes; the largest of these files, SMPL 1.1.0, has half of it. Larger files are taken for weights, unread."""
SMPL_VERTICES = 6890
_GENDERS = {
    "female": r"female|(^|[_\-. ])f([_\-. ]|$)",
    "male": r"(?<!fe)male|(^|[_\-. ])m([_\-. ]|$)",
    "neutral": r"neutral|(^|[_\-. ])n([_\-. ]|$)",
}
_SUFFIXES = (".pkl", ".npz", ".npy", ".pt")
_FACE = (331, 2802, 6262, 3489, 3990)


class Identity(NamedTuple):
    """asset: a name of assets.USER_ASSETS; empty for a file that is not imported. what: description and next step."""

    asset: str
    what: str


def recognise(path: Path, gender: str = "") -> Identity | None:
    """The kind of a file, or None if it is unknown. Raises InputError or WeightsError for a damaged or unsafe file.

    gender: of an SMPL body whose name does not state it; the content of SMPL's files never does.
    """
    with open_regular(path) as file:
        try:
            head, size = file.read(HEAD), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise InputError(f"cannot be read ({reason(error)})", where=str(path)) from error
    if path.suffix in (".safetensors", ".ckpt") or path.name.endswith(".pth.tar") or size > LARGEST:
        return Identity("", "weights, if anything: dpmesh convert reads them")
    if head.startswith(b"\x93NUMPY"):
        return _regressor(path)
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
            raise InputError(f"the file is damaged ({error})", where=str(path)) from error
        if sum(member.file_size for member in members) > LARGEST:
            return None
        if any(member.filename.endswith(".npy") for member in members):
            return _body(path, load_npz(path, LARGEST, FIELDS), gender)
        if any(member.filename.endswith("data.pkl") for member in members):
            return _vposer(path)
        inside = any(member.filename.lower().endswith(_SUFFIXES) for member in members)
        return Identity("", "a zip archive: unpack it, then import the folder") if inside else None
    if head[:1] == b"\x80" and head[2:4] == b"\x8a\n":  # torch.save before 1.6 begins with a long integer
        return _vposer(path)
    if head[:1] == b"\x80" or head[:2] == b"(d":  # a pickle's first bytes: of a protocol, or of a dictionary
        return _body(path, load_smpl_pickle(path), gender)
    if head and (archive := mistaken(head)):
        return Identity("", f"{archive.what.removeprefix('is ')}: {archive.fix}")
    return None


def _body(path: Path, raw: dict[str, NDArray[np.generic]], gender: str) -> Identity | None:
    if not {"v_template", "shapedirs", "weights"} <= raw.keys():
        return None
    if name := other_model(raw):
        return Identity("", f"{name}. {GET_SMPL}")
    try:
        arrays = smpl_body(raw)
    except InputError as error:
        if raw["weights"].ndim == 2 and raw["weights"].shape[1] == len(SMPL_PARENTS):
            raise InputError(
                f"a damaged body ({error.what})", where=str(path), fix="Download it again."
            ) from error
        return Identity("", f"a body, but not SMPL ({error.what}). {GET_SMPL}")
    if len(arrays.v_template) != SMPL_VERTICES:
        return Identity(
            "", "a body in SMPL's format with another mesh, which is not imported: use --body FILE"
        )
    for place in (path.stem, path.parent.name):
        gender = gender or next(
            (one for one, pattern in _GENDERS.items() if re.search(pattern, place.lower())), ""
        )
    if not gender:
        return Identity(
            "",
            "SMPL of a gender that neither its name nor its folder states: add --gender neutral, male or female",
        )
    return Identity(f"smpl_{gender}", f"SMPL, {gender}, {raw['shapedirs'].shape[-1]} shape components")


def _regressor(path: Path) -> Identity | None:
    try:
        rows: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if rows.ndim != 2 or rows.shape[1] != SMPL_VERTICES or rows.dtype.kind != "f":
            return None
        rows = np.array(rows, np.float64)
    except BROKEN_ARRAYS as error:
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"the file is damaged ({line})", where=str(path)) from error
    if not np.isfinite(rows).all():
        raise InputError(
            "a joint regressor that holds NaN or infinity", where=str(path), fix="Download it again."
        )
    if len(rows) == 9:
        load_regressor(path, 9)
        return Identity("extra_regressor", "J_regressor_extra, 9 joints")
    if len(rows) != 17:
        return Identity("", f"a joint regressor of {len(rows)} rows, not needed")
    if all(rows[i, vertex] > 0.99 for i, vertex in enumerate(_FACE)):
        return Identity("", "J_regressor_coco, not needed")
    right = rows[1:4, SMPL_VERTICES // 2 :].sum() > rows[1:4, : SMPL_VERTICES // 2].sum()
    if not right:  # SMPL lists the vertices of the left half of the body first
        return Identity(
            "",
            "J_regressor_h36m with the left leg first; J_regressor_h36m_correct (right leg first) is needed",
        )
    load_regressor(path, 17)
    return Identity("h36m_regressor", "J_regressor_h36m_correct, 17 joints")


def _vposer(path: Path) -> Identity | None:
    try:
        tensors = read_tensors(path)
    except WeightsError as error:
        if "nothing was run" in error.what or "damaged" in error.what:
            raise
        return None
    names = {name.rpartition("vposer.")[2]: value for name, value in tensors.items()}
    if "bodyprior_dec_fc1.weight" in names:
        own = {name: value for name, value in names.items() if name.startswith("bodyprior_dec_")}
        refuse_numbers(own, str(path))
        return Identity("vposer", "VPoser, version 1")
    if any("decoder_net" in name for name in names):
        return Identity("", "VPoser, version 2; the models here use version 1.0")
    return None
