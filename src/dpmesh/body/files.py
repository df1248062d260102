"""Body files in SMPL's format: the free body that the package ships, and a user's own licensed SMPL files.

Body frame (docs/reference/conventions.md): metres, y up, the subject's left is +x, it faces +z, T-pose.
"""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpmesh.assets import shipped
from dpmesh.body.anatomy import FIX, check_anatomy
from dpmesh.body.array_files import load_npy, load_smpl_fields
from dpmesh.errors import InputError
from dpmesh.io import atomic_path
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
_EXTRA_ROWS = 9
_SUM_TOLERANCE = 1e-3
_LARGEST = 1000.0
"""Metres, and of every other array: a thousand times a body's values, and far below float32's overflow."""
_LARGEST_REGRESSOR = 64 * 2**20
_AGAIN = "Download it again."

_OTHER_MODELS = {52: "SMPL-H", 55: "SMPL-X", 16: "MANO", 5: "FLAME"}
"""Number of joints -> model."""
_STAR_FEATURES = 93
GET_SMPL = (
    "The models here use SMPL, with 24 joints: get basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl from"
    " smpl.is.tue.mpg.de (free registration); then: dpmesh assets import FILE."
)


@dataclass(frozen=True)
class BodyArrays:
    """A body in SMPL's format, as numpy arrays; construction checks that they fit together (InputError)."""

    # Shapes are checked below rather than by annotation: the arrays come from the user's files.
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
                _refuse(f"{name} holds {largest:.3g}, out of a body's range")
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
    """The body that ships with the package (CC0, built by tools/assets/build_body.py). Its chest is neutral."""
    return load_body(shipped("body/free_body.npz"))


def population_body() -> BodyArrays:
    """The free body with the chests of men and women as its shapes have them: what synthetic people are drawn with.

    Joints in rest pose, topology and shape space are free_body's; vertices of the torso differ by up to 8 mm
    (tools/assets/body_chest.py).
    """
    body = free_body()
    with np.load(shipped("body/population_chest.npz"), allow_pickle=False) as rows:
        vertices = rows["vertices"]
        template, shapes = body.v_template.copy(), body.shapedirs.copy()
        template[vertices], shapes[vertices] = rows["v_template"], rows["shapedirs"]
    return replace(body, v_template=template, shapedirs=shapes)


def load_body(
    path: str | Path, *, h36m: str | Path | None = None, extra: str | Path | None = None
) -> BodyArrays:
    """Read a body from an `.npz` or SMPL's pickle, recognised by content; raises InputError with the file's name.

    SMPL 1.0.0 (10 shape components) and 1.1.0 (300, of which the first 10 are used) are read; SMPL-H, SMPL-X and
    other models are refused by name, and so are arrays that describe no body (`anatomy.check_anatomy`).
    h36m: `J_regressor_h36m_correct.npy` (17×6890), adds "h36m17" to an SMPL body.
    extra: `J_regressor_extra.npy` (9×6890); its row 3 is the head top of "joints30". The default is vertex 411,
    the highest of the head, a few millimetres away.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError("there is no such body file", where=str(path), fix="Give a .npz, or SMPL's .pkl.")
    try:
        raw = load_smpl_fields(path, [f"regressor_{name}" for name in REGRESSORS])
        rows = {name: raw[f"regressor_{name}"] for name in REGRESSORS if f"regressor_{name}" in raw}
        return _assemble(raw, rows) if rows else smpl_body(raw, h36m=h36m, extra=extra)
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
    raise InputError(what, fix=FIX)


def other_model(raw: Mapping[str, NDArray[np.generic]]) -> str:
    """The name of a body model that is not SMPL, from its fields; empty for SMPL and what is unknown."""
    weights, posedirs = raw.get("weights"), raw.get("posedirs")
    joints = weights.shape[1] if weights is not None and weights.ndim == 2 else 0
    if joints == len(SMPL_PARENTS) and posedirs is not None and posedirs.shape[-1:] == (_STAR_FEATURES,):
        return "STAR"
    return _OTHER_MODELS.get(joints, "")


def _assemble(raw: Mapping[str, NDArray[np.generic]], rows: Mapping[str, NDArray[np.generic]]) -> BodyArrays:
    if name := other_model(raw):
        raise InputError(f"this is {name}, not SMPL", fix=GET_SMPL)
    wanted = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    missing = [name for name in wanted if name not in raw]
    if missing:
        _refuse(f"fields are missing: {', '.join(missing)}")
    tree = raw["kintree_table"]
    if tree.shape != (2, len(SMPL_PARENTS)) or tree.dtype.kind not in "iu":
        _refuse(f"kintree_table is {tree.dtype} of shape {tree.shape}, expected 2×24 integers")
    parents = [int(p) for p in tree[0].astype(np.int64)]
    arrays = BodyArrays(
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
    joints = arrays.J_regressor @ arrays.v_template
    check_anatomy(arrays.v_template, arrays.faces, arrays.weights, joints, arrays.shapedirs, arrays.posedirs)
    return arrays


def _float(raw: Mapping[str, NDArray[np.generic]], name: str, dimensions: int) -> NDArray[np.float32]:
    array = raw[name]
    if array.ndim != dimensions or array.dtype.kind not in "fiu":
        _refuse(f"{name} is {array.dtype} of shape {array.shape}, expected {dimensions}-dimensional numbers")
    with np.errstate(over="ignore"):  # infinity is reported with the field's name
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
        return {}  # another mesh, whose face vertices are unknown
    face = np.zeros((5, _SMPL_VERTICES), np.float32)
    face[np.arange(5), _FACE_VERTICES] = 1
    top = np.zeros((1, _SMPL_VERTICES), np.float32)
    top[0, _HEAD_TOP_VERTEX] = 1
    if extra is not None:
        top = load_regressor(Path(extra), _EXTRA_ROWS)[_HEAD_TOP_ROW : _HEAD_TOP_ROW + 1]
    rows: dict[str, NDArray[np.generic]] = {
        "joints30": np.concatenate([joints.astype(np.float32), face, top])
    }
    if h36m is not None:
        rows["h36m17"] = load_regressor(Path(h36m), len(H36M17))
    return rows


def load_regressor(path: Path, rows: int) -> NDArray[np.float32]:
    """A joint regressor on SMPL's vertices (rows×6890); raises InputError with its own path.

    The rows that are used must sum to 1: the head top's of J_regressor_extra (9 rows), otherwise all.
    """
    array = load_npy(path, _LARGEST_REGRESSOR)
    if array.shape != (rows, _SMPL_VERTICES) or array.dtype.kind != "f":
        fix = f"Expected a {rows}×{_SMPL_VERTICES} array in a .npy file."
        raise InputError("this is not such a regressor", where=str(path), fix=fix)
    if not np.isfinite(array).all():
        raise InputError("a joint regressor that holds NaN or infinity", where=str(path), fix=_AGAIN)
    sums = array.sum(1, dtype=np.float64)
    used = [_HEAD_TOP_ROW] if rows == _EXTRA_ROWS else list(range(rows))
    worst = max(used, key=lambda row: abs(sums[row] - 1))
    if abs(sums[worst] - 1) > _SUM_TOLERANCE:
        what = f"row {worst} of this joint regressor sums to {sums[worst]:.5g}, not 1"
        raise InputError(what, where=str(path), fix=_AGAIN)
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
