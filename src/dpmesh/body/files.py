"""Body files in SMPL's format: the free body that the package ships, and a user's own licensed SMPL files.

Body frame (docs/conventions.md): metres, y up, the subject's left is +x, it looks along +z, T-pose.
"""

import io
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh.assets import shipped
from dpmesh.body.unpickle import load_smpl_pickle
from dpmesh.errors import InputError
from dpmesh.io import atomic_path, open_regular, read_bytes
from dpmesh.skeletons import COCO17, H36M17, JOINTS30, SMPL_PARENTS, Skeleton

BETAS = 10
POSE_FEATURES = 207
"""23 joints × 9 entries of R - I."""

REGRESSORS: dict[str, Skeleton] = {"joints30": JOINTS30, "h36m17": H36M17, "coco17": COCO17}

# 30-joint rows on SMPL's 6,890 vertices (3DCrowdNet, JOTR, DPMesh): nose, left, right eye, left, right ear.
_SMPL_VERTICES = 6890
_FACE_VERTICES = (331, 2802, 6262, 3489, 3990)
_HEAD_TOP_VERTEX = 411
_HEAD_TOP_ROW = 3
_SUM_TOLERANCE = 1e-3
_LARGEST = 1000.0
"""Metres, and of every other array: a thousand times what a body holds, and far from where float32 overflows."""
LARGEST_BODY = 2 * 2**30
"""Bytes of an .npz, unpacked; SMPL 1.1.0 has a quarter of a gibibyte."""
_LARGEST_REGRESSOR = 64 * 2**20


@dataclass(frozen=True)
class BodyArrays:
    """A body in SMPL's format, as numpy arrays; construction checks that they fit together (InputError)."""

    # Shapes are checked below and not by annotation: the arrays come from the user's files.
    v_template: NDArray[np.float32]  # V×3 metres, T-pose
    shapedirs: NDArray[np.float32]  # V×3×10 metres per standard deviation
    posedirs: NDArray[np.float32]  # V×3×207 metres per entry of R - I, joints 1..23, row-major
    J_regressor: NDArray[np.float32]  # 24×V
    weights: NDArray[np.float32]  # V×24
    parents: tuple[int, ...]  # -1 for the root
    faces: NDArray[np.int64]  # F×3, counter-clockwise seen from outside
    regressors: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # K×V, see REGRESSORS

    def __post_init__(self) -> None:
        v, joints = self.v_template.shape[0], len(SMPL_PARENTS)
        if not v:
            _refuse("there are no vertices")
        expected = {
            "v_template": (v, 3), "shapedirs": (v, 3, BETAS), "posedirs": (v, 3, POSE_FEATURES),
            "J_regressor": (joints, v), "weights": (v, joints),
        }  # fmt: skip
        arrays: dict[str, NDArray[np.float32]] = {name: getattr(self, name) for name in expected}
        for name, rows in self.regressors.items():
            if name not in REGRESSORS:
                _refuse(f"regressor {name!r} is unknown; known: {', '.join(REGRESSORS)}")
            expected[name], arrays[name] = (len(REGRESSORS[name]), v), rows
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                _refuse(f"{name} has shape {arrays[name].shape}, expected {shape}")
            if not np.isfinite(arrays[name]).all():
                _refuse(f"{name} holds NaN or infinity")
            if (largest := float(np.abs(arrays[name]).max())) > _LARGEST:
                _refuse(f"{name} holds {largest:.3g}, which is no body's")
        for name in ("weights", "J_regressor", *self.regressors):
            error = float(np.abs(arrays[name].sum(1, dtype=np.float64) - 1).max())
            if error > _SUM_TOLERANCE:
                _refuse(f"rows of {name} do not sum to 1 (off by {error:.2g})")
        if tuple(self.parents) != SMPL_PARENTS:
            _refuse("the kinematic tree is not SMPL's 24 joints")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3 or not len(self.faces):
            _refuse(f"faces have shape {self.faces.shape}, expected (F, 3)")
        if self.faces.min() < 0 or self.faces.max() >= v:
            _refuse("faces name vertices that do not exist")


def free_body() -> BodyArrays:
    """The body that ships with the package (CC0, built by tools/assets/build_body.py)."""
    return load_body(shipped("body/free_body.npz"))


def load_body(
    path: str | Path, *, h36m: str | Path | None = None, extra: str | Path | None = None
) -> BodyArrays:
    """Read a body from `.npz` (ours) or SMPL's `.pkl`; raises InputError, naming the file, when it cannot.

    h36m: `J_regressor_h36m_correct.npy` (17×6890), adds "h36m17" to an SMPL body.
    extra: `J_regressor_extra.npy` (9×6890); its row 3 is the head top of "joints30". Without it vertex 411,
    the highest of the head, stands in (a few millimetres away).
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError("there is no such body file", where=str(path), fix="Give a .npz or an SMPL .pkl.")
    try:
        if path.suffix.lower() == ".pkl":
            return smpl_body(load_smpl_pickle(path), h36m=h36m, extra=extra)
        if path.suffix.lower() == ".npz":
            raw = load_npz(path)
            rows = {name: raw[f"regressor_{name}"] for name in REGRESSORS if f"regressor_{name}" in raw}
            return _assemble(raw, rows) if rows else smpl_body(raw, h36m=h36m, extra=extra)
        raise InputError(f"a body file does not end in {path.suffix!r}", fix="Give a .npz or an SMPL .pkl.")
    except InputError as error:
        raise error if error.where else InputError(error.what, where=str(path), fix=error.fix) from None


def smpl_body(
    raw: Mapping[str, NDArray[np.generic]], *, h36m: str | Path | None = None, extra: str | Path | None = None
) -> BodyArrays:
    """A body from arrays under SMPL's field names; h36m, extra and errors as in load_body."""
    return _assemble(raw, _smpl_regressors(raw, h36m, extra))


def save_body(path: str | Path, arrays: BodyArrays, *, compact: bool = False) -> None:
    """Write `.npz` with SMPL's field names; the same arrays always give the same bytes.

    compact: shapedirs and posedirs as float16 (error below 0.02 mm for 5 cm). Raises OutputError.
    """
    path, small = Path(path), np.float16 if compact else np.float32
    out: dict[str, NDArray[np.generic]] = {
        item.name: getattr(arrays, item.name)
        for item in fields(arrays)
        if item.name not in ("parents", "faces", "regressors")
    }
    out |= {"shapedirs": arrays.shapedirs.astype(small), "posedirs": arrays.posedirs.astype(small)}
    out["kintree_table"] = np.array([arrays.parents, range(len(arrays.parents))], np.int64)
    out["f"] = arrays.faces.astype(np.int32)
    out |= {f"regressor_{name}": rows for name, rows in arrays.regressors.items()}
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in out.items():
            # A ZipInfo without a date keeps the file reproducible.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _refuse(what: str) -> None:
    raise InputError(what, fix="The file is damaged or is not a body in SMPL's format.")


def load_npz(path: Path, limit: int = LARGEST_BODY) -> dict[str, NDArray[np.generic]]:
    """All arrays of an .npz by name, of at most `limit` bytes when unpacked. Raises InputError."""
    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as archive:
                if (size := sum(member.file_size for member in archive.infolist())) > limit:
                    raise InputError(f"unpacked it would have {size:,} bytes", where=str(path))
            with np.load(file, allow_pickle=False) as arrays:
                return {name: _truths(arrays[name]) for name in arrays.files}
    except BROKEN_ARRAYS as error:
        told = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"this is not a readable .npz ({told})", where=str(path)) from error


BROKEN_ARRAYS = (
    OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RuntimeError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What numpy and zipfile raise on a damaged file; RuntimeError for an unknown or encrypted way to pack."""


def _truths(array: object) -> NDArray[np.generic]:
    """An array as it is; truth values other than 0 and 1 mislead numpy's own code, which counts by adding bytes."""
    if not isinstance(array, np.ndarray):
        raise ValueError("a member is no array")
    found = cast("NDArray[Any]", array)
    return np.not_equal(found.view(np.uint8), 0) if found.dtype.kind == "b" else found  # pyright: ignore[reportUnknownMemberType]


def _assemble(raw: Mapping[str, NDArray[np.generic]], rows: Mapping[str, NDArray[np.generic]]) -> BodyArrays:
    wanted = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    missing = [name for name in wanted if name not in raw]
    if missing:
        _refuse(f"fields are missing: {', '.join(missing)}")
    tree = raw["kintree_table"]
    if tree.shape != (2, len(SMPL_PARENTS)) or tree.dtype.kind not in "iu":
        _refuse(f"kintree_table is {tree.dtype} of shape {tree.shape}, expected 2×24 integers")
    parents = [int(p) for p in tree[0].astype(np.int64)]
    return BodyArrays(
        v_template=_float(raw, "v_template", 2),
        # SMPL files carry 10 or 300 components, in order of variance.
        shapedirs=np.ascontiguousarray(_float(raw, "shapedirs", 3)[..., :BETAS]),
        posedirs=_float(raw, "posedirs", 3),
        J_regressor=_float(raw, "J_regressor", 2),
        weights=_float(raw, "weights", 2),
        parents=(-1, *parents[1:]),  # the root's parent is stored as 2**32 - 1
        faces=_faces(raw["f"]),
        regressors={name: _float(rows, name, 2) for name in rows},
    )


def _float(raw: Mapping[str, NDArray[np.generic]], name: str, dimensions: int) -> NDArray[np.float32]:
    array = raw[name]
    if array.ndim != dimensions or array.dtype.kind not in "fiu":
        _refuse(f"{name} is {array.dtype} of shape {array.shape}, expected {dimensions}-dimensional numbers")
    with np.errstate(over="ignore"):  # infinity is told of by its name
        return array.astype(np.float32)


def _faces(array: NDArray[np.generic]) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 3:
        _refuse(f"f is {array.dtype} of shape {array.shape}, expected F×3 integers")
    return array.astype(np.int64)


def _smpl_regressors(
    raw: Mapping[str, NDArray[np.generic]], h36m: str | Path | None, extra: str | Path | None
) -> dict[str, NDArray[np.generic]]:
    joints = raw.get("J_regressor")
    if joints is None or joints.shape != (24, _SMPL_VERTICES) or joints.dtype.kind not in "fiu":
        return {}  # another mesh: nobody knows where its nose is
    face = np.zeros((5, _SMPL_VERTICES), np.float32)
    face[np.arange(5), _FACE_VERTICES] = 1
    top = np.zeros((1, _SMPL_VERTICES), np.float32)
    top[0, _HEAD_TOP_VERTEX] = 1
    if extra is not None:
        top = _npy(Path(extra), 9)[_HEAD_TOP_ROW : _HEAD_TOP_ROW + 1]
    rows: dict[str, NDArray[np.generic]] = {
        "joints30": np.concatenate([joints.astype(np.float32), face, top])
    }
    if h36m is not None:
        rows["h36m17"] = _npy(Path(h36m), len(H36M17))
    return rows


def _npy(path: Path, rows: int) -> NDArray[np.float32]:
    fix = f"Expected a {rows}×{_SMPL_VERTICES} array in a .npy file."
    array = load_npy(path, _LARGEST_REGRESSOR)
    if array.shape != (rows, _SMPL_VERTICES) or array.dtype.kind != "f":
        raise InputError("this is not such a regressor", where=str(path), fix=fix)
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def load_npy(path: Path, limit: int) -> NDArray[np.generic]:
    """The array of an .npy of at most `limit` bytes. Raises InputError."""
    data = read_bytes(path, limit)
    try:
        return _truths(np.load(io.BytesIO(data), allow_pickle=False))
    except BROKEN_ARRAYS as error:
        told = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"the file is damaged or no .npy ({told})", where=str(path)) from error
