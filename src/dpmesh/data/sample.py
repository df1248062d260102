"""One training sample: the network's inputs and targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from dpmesh.errors import InputError


@dataclass(frozen=True)
class Sample:
    """A person in a 256×256 crop; crop pixels, and metres in the crop camera's frame (docs/reference/conventions.md).

    record_id: "DATASET/PLACE", enough to find the person again.
    Inputs: crop (RGB); joints and visible (the 30-joint set as a detector would report it: noisy, an unseen
    joint is (0, 0) with visible 0); focal (crop pixels).
    Targets: joints2d, joints3d (metres, translation included); pose (axis-angle, the first row is
    global_orient in the camera frame); betas; transl (metres); joint_visible (1 where the true joint is
    inside the image and nothing hides it).
    fit_joints2d, fit_joints3d: joints of the mesh that was fitted to the person, which a data set's own joints
    differ from; zeros where there is no fit. Synthetic people are their own fit.
    Masks, 1 where the target is known: joints2d_valid (annotated; perhaps outside the crop), joints3d_valid
    (measured), pose_valid (rows of pose), betas_valid, fit_valid, surface_valid (parts and surface).
    A target that is not known is zero.
    parts, surface: the person's surface at every eighth pixel, also where an object covers it: 0 for none, else
    1 + the SMPL joint that moves it; and metres behind the pelvis. Synthetic people only.
    has_image is 0 for a sample without an image, whose crop is black.
    The camera of the whole image, for models that predict in its frame (DPMeshConfig.camera): diagonal, the image's in
    its own pixels (NaN: not known), and to_image, the rotation from the crop camera's frame to its.
    """

    record_id: str
    crop: UInt8[NDArray[np.uint8], "256 256 3"]
    joints: Float32[NDArray[np.float32], "30 2"]
    visible: Float32[NDArray[np.float32], "30"]
    focal: float
    joints2d: Float32[NDArray[np.float32], "30 2"]
    joints2d_valid: Float32[NDArray[np.float32], "30"]
    joints3d: Float32[NDArray[np.float32], "30 3"]
    joints3d_valid: Float32[NDArray[np.float32], "30"]
    pose: Float32[NDArray[np.float32], "24 3"]
    pose_valid: Float32[NDArray[np.float32], "24"]
    betas: Float32[NDArray[np.float32], "10"]
    betas_valid: float
    transl: Float32[NDArray[np.float32], "3"]
    joint_visible: Float32[NDArray[np.float32], "30"]
    fit_joints2d: Float32[NDArray[np.float32], "30 2"]
    fit_joints3d: Float32[NDArray[np.float32], "30 3"]
    fit_valid: float
    parts: UInt8[NDArray[np.uint8], "32 32"]
    surface: Float32[NDArray[np.float32], "32 32"]
    surface_valid: float
    has_image: bool = True
    diagonal: float = float("nan")
    to_image: Float32[NDArray[np.float32], "3 3"] = field(default_factory=lambda: np.eye(3, dtype=np.float32))


Batch = dict[str, Any]
"""Arrays by the names of Sample's fields, samples along the first axis; single numbers are float32 (b,).

"record_id" is a list of strings. A batch without images (keypoints only) has no "crop", "parts" and "surface".
"""

SCALARS = ("focal", "betas_valid", "fit_valid", "surface_valid", "has_image", "diagonal")


def stack(samples: Sequence[Sample]) -> Batch:
    """Samples one after the other in arrays; raises InputError for none."""
    if not samples:
        raise InputError("no sample to stack")
    batch: Batch = {}
    for name in (item.name for item in fields(Sample)):
        values = [getattr(sample, name) for sample in samples]
        if name == "record_id":
            batch[name] = values
        else:
            batch[name] = np.array(values, np.float32) if name in SCALARS else np.stack(values)
    return batch
