"""Predictions against truths: `Persons` in, `Rows` out. The frame is the camera's, both sides less their own root."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from dpmesh.errors import InputError
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.protocol import OWN_JOINTS, Measure
from dpmesh.evaluate.results import Rows
from dpmesh.inference.predictor import MeshModel
from dpmesh.metrics import aligned_distances, distances, mpve
from dpmesh.skeletons import H36M17, JOINTS30
from dpmesh.types import Inputs, Prediction

_H36M_IN_30 = list(H36M17.indices_in(JOINTS30))
NO_MPVE = "body: the model's is not the truth's mesh, so no MPVE, and its joints come from its own regressor"


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a method says about some persons: metres, camera frame, anywhere (roots are subtracted). vertices, pelvis:
    None for a method that gives joints alone. joints: skeletons.H36M17."""

    joints: Float[np.ndarray, "b 17 3"]
    vertices: Float32[np.ndarray, "b v 3"] | None = None
    pelvis: Float[np.ndarray, "b 3"] | None = None


def inputs_of(persons: Persons, camera: str, device: torch.device) -> Inputs:
    """camera: DPMeshConfig.camera."""
    rgb = torch.from_numpy(persons.crops).to(device).permute(0, 3, 1, 2).float() / 255
    focal = persons.focal_image if camera == "image" else persons.focal_crop
    rest = (torch.from_numpy(array).to(device) for array in (persons.joints, persons.visible, focal))
    return Inputs(rgb, *rest)


def require_joints(model: MeshModel) -> None:
    """Raise InputError before the first picture where the model's body has no rows for Human3.6M's joints."""
    if "h36m17" not in model.body.regressor_names:
        raise InputError(
            "the model's body has no regressor of the Human3.6M joints, on which MPJPE is measured",
            fix="Import it: dpmesh assets import J_regressor_h36m_correct.npy; or give --regressors FOLDER.",
        )


@torch.inference_mode()
def predicted(measure: Measure, model: MeshModel, answer: Prediction, persons: Persons) -> Predicted:
    """The answer in the camera frame: that of a model of the crop's camera is turned, its place is taken off."""
    mesh = (
        answer.vertices - answer.transl[:, None]
    )  # near the origin, where the regressor's rows need not sum to 1
    if model.camera == "crop":
        turn = torch.from_numpy(persons.turn).to(mesh.device, mesh.dtype)
        mesh = torch.einsum("bij,bvj->bvi", turn, mesh)
    own = model.body.regress(mesh, "joints30")
    joints = own[:, _H36M_IN_30] if measure.regressor == OWN_JOINTS else model.body.regress(mesh, "h36m17")
    return Predicted(_double(joints), mesh.float().cpu().numpy(), _double(own[:, 0]))


def score(measure: Measure, indices: Sequence[int], persons: Persons, answer: Predicted) -> Rows:
    """One row a person. A prediction with a number that is not finite is a failure in every measure; a record with one
    (in its truth, or in what the model is given) is none of the model's: its errors are NaN and it did not fail."""
    rows = list(measure.rows)
    got = (answer.joints - answer.joints[:, measure.joint_root, None])[:, rows]
    true = (persons.truth_joints - persons.truth_joints[:, measure.joint_root, None])[:, rows]
    total = answer.joints.reshape(len(indices), -1).sum(1)  # finite only if every number is
    if answer.vertices is not None:
        total = total + answer.vertices.reshape(len(indices), -1).sum(1, dtype=np.float64)
    unusable = _unusable(measure, persons)
    failed: NDArray[np.bool_] = np.logical_not(np.isfinite(total)) & np.logical_not(unusable)
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
    fallbacks = Counter(persons.fallbacks)
    return Rows(
        index=np.asarray(indices, np.int64),
        ids=np.asarray(persons.ids),
        sequences=np.asarray(persons.sequences),
        mpjpe=errors,
        pa_mpjpe=joint_pa.mean(1),
        mpve=_vertex_errors(measure, persons, answer, without, fallbacks),
        joint=np.where((measured > 0) & np.logical_not(without)[:, None], joint, np.nan),
        joint_pa=joint_pa,
        seen=persons.seen[:, rows].astype(np.float64),
        failed=failed,
        fallbacks=fallbacks,
    )


def _unusable(measure: Measure, persons: Persons) -> NDArray[np.bool_]:
    """Whose truth, as far as it is measured, or whose input has a number that is not finite."""
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
    measure: Measure, persons: Persons, answer: Predicted, without: NDArray[np.bool_], fallbacks: Counter[str]
) -> NDArray[np.float64]:
    none = np.full(len(without), np.nan)
    if "MPVE" not in measure.metrics or persons.truth_vertices is None or persons.truth_pelvis is None:
        return none
    if answer.vertices is None or answer.pelvis is None:
        return none
    if answer.vertices.shape != persons.truth_vertices.shape:
        fallbacks[NO_MPVE] += len(without)
        return none
    found = mpve(answer.vertices, persons.truth_vertices, answer.pelvis - persons.truth_pelvis)
    found[without] = np.nan
    return found


def _double(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().cpu().numpy()
