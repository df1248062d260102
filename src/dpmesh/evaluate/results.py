"""The errors of evaluated people: computed (`score`), and stored as plain arrays, a row for each person."""

import io
import json
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from dpmesh.errors import InputError
from dpmesh.evaluate.checks import ANY, COUNT, Each, require
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.protocol import OWN_JOINTS, Measure
from dpmesh.geometry.camera import rotation_by_roll
from dpmesh.inference.predictor import MeshModel
from dpmesh.io import atomic_write, parse_json, read_bytes
from dpmesh.metrics import across_and_along, aligned_distances, distances, mpve
from dpmesh.skeletons import H36M17, JOINTS30
from dpmesh.types import Inputs, Prediction

LARGEST = 2 * 2**30
"""Bytes of a file of rows, compressed and uncompressed; all of 3DPW takes a fiftieth of that."""

FRAME_COLUMNS = (
    "mpjpe", "pa_mpjpe", "acceleration", "slide_L_Ankle", "slide_L_Toe", "slide_R_Ankle", "slide_R_Toe", "shown",
)  # fmt: skip
"""Of `Rows.frames`: errors of a frame in mm and m/s²; mm that a standing foot moves until the next frame; the share of
the main joints in sight."""


@dataclass(frozen=True, eq=False)
class Rows:
    """One row for each person.

    index: number in the source. mpjpe, pa_mpjpe, mpve: millimetres; NaN for a failure, and where the protocol does not
    have the measure. joint, joint_pa: errors of the measured joints, NaN where the truth was not measured.
    joint_visible: as in Persons. failed: missed, or the prediction is not finite. fallbacks: counts over all people.
    lateral, depth: millimetres (protocol.MeasureFromHips); NaN elsewhere. The others are of people over time
    (clip_scores); NaN elsewhere. frames: of people over time each frame's FRAME_COLUMNS, NaN where there are none.
    """

    index: Int64[np.ndarray, " n"]
    ids: Shaped[np.ndarray, " n"]
    sequences: Shaped[np.ndarray, " n"]
    mpjpe: Float[np.ndarray, " n"]
    pa_mpjpe: Float[np.ndarray, " n"]
    mpve: Float[np.ndarray, " n"]
    joint: Float[np.ndarray, "n j"]
    joint_pa: Float[np.ndarray, "n j"]
    joint_visible: Float[np.ndarray, "n j"]
    failed: Shaped[np.ndarray, " n"]
    fallbacks: Counter[str] = field(default_factory=Counter[str])
    lateral: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    depth: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    acceleration: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    slide: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    missed: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    recovery: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    idtp: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    idfn: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    idfp: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    switches: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    frames: Float[np.ndarray, "n t c"] = field(default_factory=lambda: np.zeros((0, 0, len(FRAME_COLUMNS))))

    def __post_init__(self) -> None:
        for name in _LATER:
            if not len(getattr(self, name)):
                shape = (0, len(FRAME_COLUMNS)) if name == "frames" else ()
                object.__setattr__(self, name, np.full((len(self.index), *shape), np.nan))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def unusable(self) -> Bool[NDArray[np.bool_], " n"]:
        """People whose record has a number that is not finite: no failure of the model, and in no figure."""
        return np.logical_not(self.failed) & np.isnan(self.mpjpe)


ARRAYS = tuple(f.name for f in fields(Rows) if f.name != "fallbacks")
_LATER = (
    "lateral", "depth", "acceleration", "slide", "missed", "recovery", "idtp", "idfn", "idfp", "switches",
    "frames",
)  # fmt: skip
"""Arrays that files of earlier versions lack."""
_TEXTS, _TABLES = ("ids", "sequences"), ("joint", "joint_pa", "joint_visible")
_FIELDS = {"seen": "joint_visible"}
"""Name in the file -> field, where they differ."""


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All parts' rows, ordered by `index`. Raises InputError if they measure different joints."""
    if len({part.joint.shape[1] for part in parts}) != 1:
        raise InputError("the parts do not measure the same joints", fix="Run the evaluation again.")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    order = np.argsort(joined["index"], kind="stable")
    total = sum((part.fallbacks for part in parts), Counter[str]())
    return Rows(**{name: array[order] for name, array in joined.items()}, fallbacks=total)


def save(path: Path, rows: Rows, header: Mapping[str, Any]) -> None:
    """Write an .npz without pickles, atomically. header: identifies the run. Raises OutputError."""
    buffer = io.BytesIO()
    about = json.dumps({"header": dict(header), "fallbacks": dict(rows.fallbacks)})
    stored = {field: name for name, field in _FIELDS.items()}
    arrays = {stored.get(name, name): getattr(rows, name) for name in ARRAYS}
    np.savez(buffer, about=np.array(about), **arrays)
    atomic_write(path, buffer.getvalue())


def load(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows and their header. Raises InputError for a file that `save` did not write."""
    arrays = {_FIELDS.get(name, name): array for name, array in read_arrays(path).items()}
    if problem := _misfit(arrays):
        raise InputError(f"these are no rows of an evaluation ({problem})", where=str(path), fix=_FIX)
    about = parse_json(str(arrays["about"]), str(path))
    require(about, {"header": Each(ANY), "fallbacks": Each(COUNT)}, str(path), _FIX)
    rows = Rows(
        **{name: arrays[name] for name in ARRAYS if name in arrays},  # pyright: ignore[reportArgumentType]
        fallbacks=Counter(about["fallbacks"]),
    )
    return rows, about["header"]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz of bounded size. Raises InputError."""
    data = read_bytes(path, LARGEST)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise InputError(f"unpacks to more than {LARGEST:,} bytes", where=str(path), fix=_FIX)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except _UNREADABLE as error:
        cause = " ".join(str(error).split())[:80] or type(error).__name__
        raise InputError(f"this is not a readable .npz ({cause})", where=str(path), fix=_FIX) from error
    # numpy returns members that are no .npy as bytes.
    if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise InputError(f"its member {others[0][:80]} is no array", where=str(path), fix=_FIX)
    return arrays


_FIX = "Delete the file and run the evaluation again."
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, AttributeError, RuntimeError, MemoryError,
    OverflowError, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
)  # fmt: skip
"""What zipfile and numpy raise for a damaged archive (RuntimeError: encrypted, or packed in an unknown way)."""


def _misfit(arrays: Mapping[str, NDArray[Any]]) -> str:
    """What is wrong with arrays that should be rows; empty if nothing is."""
    if missing := [name for name in ("about", *ARRAYS) if name not in arrays and name not in _LATER]:
        return f"{missing[0]} is missing"
    if arrays["about"].dtype.kind != "U" or arrays["about"].ndim:
        return "about is not a text"
    count = arrays["index"].shape[:1]
    joints = arrays["joint"].shape[1:2]
    for name in ARRAYS:
        array = arrays.get(name)
        if array is None:
            continue
        kind = "i" if name == "index" else "U" if name in _TEXTS else "b" if name == "failed" else "f"
        shape = count + joints if name in _TABLES else count
        if name == "frames":
            shape += (*array.shape[1:2], len(FRAME_COLUMNS))
        if array.dtype.kind != kind or array.shape != shape:
            return f"{name} is {array.dtype} of shape {array.shape}"
    index = arrays["index"]
    if not len(index) or index.min() < 0 or len(np.unique(index)) < len(index):
        return "the indices are not those of different persons"
    if len(np.unique(arrays["ids"])) < len(index):
        return "a person appears twice"
    if (np.nan_to_num(np.concatenate([arrays[n].ravel() for n in ("mpjpe", "pa_mpjpe", "mpve")])) < 0).any():
        return "an error is below zero"
    if np.isfinite(arrays["mpjpe"][arrays["failed"]]).any():
        return "a failed person has an error"
    return ""


_NO_ROLL = 1e-9
_H36M_IN_30 = list(H36M17.indices_in(JOINTS30))
NO_MPVE = "body: the model's is not the truth's mesh, so no MPVE, and its joints come from its own regressor"


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions for some people: metres, camera frame, at any place (roots are subtracted before comparing).

    joints: skeletons.H36M17. vertices, pelvis: None for a method that predicts joints only.
    """

    joints: Float[np.ndarray, "b 17 3"]
    vertices: Float32[np.ndarray, "b v 3"] | None = None
    pelvis: Float[np.ndarray, "b 3"] | None = None


def inputs_of(persons: Persons, camera: str, device: torch.device) -> Inputs:
    """The model's inputs. camera: DPMeshConfig.camera, which decides the focal length."""
    rgb = torch.from_numpy(persons.crops).to(device).permute(0, 3, 1, 2).float() / 255
    focal = persons.focal_image if camera == "image" else persons.focal_crop
    rest = (torch.from_numpy(array).to(device) for array in (persons.joints, persons.visible, focal))
    known = persons.confidence
    return Inputs(rgb, *rest, confidence=None if known is None else torch.from_numpy(known).to(device))


def require_joints(model: MeshModel) -> None:
    """Raise InputError, before any image is read, if the model's body cannot regress Human3.6M's joints."""
    if "h36m17" not in model.body.regressor_names:
        raise InputError(
            "the model's body has no regressor of the Human3.6M joints, on which MPJPE is measured",
            fix="Import it: dpmesh assets import J_regressor_h36m_correct.npy; or give --regressors FOLDER.",
        )


@torch.inference_mode()
def predicted(measure: Measure, model: MeshModel, prediction: Prediction, persons: Persons) -> Predicted:
    """The prediction in the camera frame, without its translation. Meshes in the crop camera's frame are rotated."""
    # At the origin an error of the regressor's row sums does not matter.
    mesh = prediction.vertices - prediction.transl[:, None]
    turns = persons.turn if model.camera == "crop" else np.stack([rotation_by_roll(t) for t in persons.turn])
    if model.camera == "crop" or np.abs(turns - np.eye(3)).max() > _NO_ROLL:
        turn = torch.from_numpy(turns).to(mesh.device, mesh.dtype)
        mesh = torch.einsum("bij,bvj->bvi", turn, mesh)
    own = model.body.regress(mesh, "joints30")
    joints = own[:, _H36M_IN_30] if measure.regressor == OWN_JOINTS else model.body.regress(mesh, "h36m17")
    return Predicted(_double(joints), mesh.float().cpu().numpy(), _double(own[:, 0]))


def score(measure: Measure, indices: Sequence[int], persons: Persons, prediction: Predicted) -> Rows:
    """Compare predictions with the truth, in the camera frame, each relative to its own root.

    A prediction with a number that is not finite fails in every measure. A record with one, in its truth or its inputs,
    is no failure of the model: its errors are NaN and it is unusable.
    """
    rows = list(measure.rows)
    true_root = measure.root(persons.truth_joints)
    got = (prediction.joints - measure.root(prediction.joints))[:, rows]
    true = (persons.truth_joints - true_root)[:, rows]
    total = prediction.joints.reshape(len(indices), -1).sum(1)  # finite only if every number is
    if prediction.vertices is not None:
        total = total + prediction.vertices.reshape(len(indices), -1).sum(1, dtype=np.float64)
    unusable = _unusable(measure, persons)
    failed: NDArray[np.bool_] = np.logical_not(np.isfinite(total)) & np.logical_not(unusable)
    if persons.missed is not None:
        failed |= persons.missed & np.logical_not(unusable)
    without = failed | unusable
    got[without] = np.nan
    true[~np.isfinite(true)] = 0.0  # of an unusable record, or of joints that are not measured
    measured = persons.measured[:, rows]
    joint = distances(got, true)
    # An unmeasured joint adds nothing and still counts (Measure.unmeasured_joints).
    errors = (
        np.where(measured > 0, joint, 0.0).mean(1)
        if measure.unmeasured_joints == "as zero"
        else joint.mean(1)
    )
    errors[without] = np.nan
    failed |= np.isnan(errors) & np.logical_not(unusable)  # finite, but too far away for a distance
    unknown = np.full(joint.shape, np.nan)
    joint_pa = aligned_distances(got, true) if "PA-MPJPE" in measure.metrics else unknown
    lateral = depth = np.full(len(without), np.nan)
    if "depth" in measure.metrics:
        lateral, depth = across_and_along(got, true, true_root[:, 0])
    fallbacks = Counter(persons.fallbacks)
    return Rows(
        index=np.asarray(indices, np.int64),
        ids=np.asarray(persons.ids),
        sequences=np.asarray(persons.sequences),
        mpjpe=errors,
        pa_mpjpe=joint_pa.mean(1),
        mpve=_vertex_errors(measure, persons, prediction, without, fallbacks),
        joint=np.where((measured > 0) & np.logical_not(without)[:, None], joint, np.nan),
        joint_pa=joint_pa,
        joint_visible=persons.joint_visible[:, rows].astype(np.float64),
        failed=failed,
        fallbacks=fallbacks,
        lateral=lateral,
        depth=depth,
    )


def _unusable(measure: Measure, persons: Persons) -> NDArray[np.bool_]:
    """(b,) people with a number that is not finite in their inputs or in the measured part of their truth."""
    count, rows = len(persons.ids), list(dict.fromkeys([measure.joint_root, *measure.rows]))
    known = persons.measured[:, rows] > 0
    known[:, 0] = True  # the root is subtracted from all
    parts: list[NDArray[Any]] = [
        np.where(known[..., None], persons.truth_joints[:, rows], 0.0), persons.joints, persons.visible,
        persons.focal_crop, persons.focal_image, persons.turn,
    ]  # fmt: skip
    parts += [part for part in (persons.truth_vertices, persons.truth_pelvis) if part is not None]
    return np.logical_not(np.all([np.isfinite(p.reshape(count, -1)).all(1) for p in parts], axis=0))


def _vertex_errors(
    measure: Measure,
    persons: Persons,
    prediction: Predicted,
    without: NDArray[np.bool_],
    fallbacks: Counter[str],
) -> NDArray[np.float64]:
    """(b,) millimetres; NaN for the people in `without`, and for all where meshes cannot be compared."""
    none = np.full(len(without), np.nan)
    if "MPVE" not in measure.metrics or persons.truth_vertices is None or persons.truth_pelvis is None:
        return none
    if prediction.vertices is None or prediction.pelvis is None:
        return none
    if prediction.vertices.shape != persons.truth_vertices.shape:
        fallbacks[NO_MPVE] += len(without)
        return none
    errors = mpve(prediction.vertices, persons.truth_vertices, prediction.pelvis - persons.truth_pelvis)
    errors[without] = np.nan
    return errors


def _double(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().cpu().numpy()
