"""Data types shared by readers, runner and metrics: records of people, their ground truth, and sources of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt8

Gender = Literal["male", "female", "neutral"]


@dataclass(frozen=True, eq=False)
class BodyTruth:
    """SMPL parameters, with the root orientation in the camera frame.

    pose: axis-angle, radians. transl: metres, camera frame. turned_about_pelvis: a rotation R (world to camera) that
    was applied to `transl` only; the mesh then stands at transl + (R - 1) J0, with J0 the neutral body's pelvis at rest
    (how the 3DPW JSON files were derived).
    """

    gender: Gender
    pose: Float[np.ndarray, "24 3"]
    betas: Float[np.ndarray, "10"]
    transl: Float[np.ndarray, "3"]
    turned_about_pelvis: Float[np.ndarray, "3 3"] | None = None


@dataclass(frozen=True, eq=False)
class JointTruth:
    """Measured joints in the order of skeletons.H36M17: x y z in metres, camera frame; then 1 if measured, else 0."""

    joints: Float[np.ndarray, "17 4"]


@dataclass(frozen=True, eq=False)
class PersonRecord:
    """One person in one image of a data set on disk.

    id: unique in the set, and the same for every file layout. size: (h, w) of the image that was annotated; None if the
    set does not store it. box: annotated, x1 y1 x2 y2, image px. keypoints: skeletons.JOINTS30, x y confidence, image
    px; None if the detector is to be run. K: annotated intrinsics, image px, or None.
    """

    id: str
    sequence: str
    image: Path
    size: tuple[int, int] | None
    box: Float[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "30 3"] | None
    truth: BodyTruth | JointTruth
    K: Float[np.ndarray, "3 3"] | None = None


@dataclass(frozen=True)
class Census:
    """How many people a source has.

    persons: in the files. published: in the paper. left_out: reason -> person-frames of the files that the protocol
    excludes or that cannot be used. files: name -> sha256. notes: remarks for readers of the figures.
    """

    persons: int
    published: int | None = None
    layout: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Persons:
    """A batch of people: the model's inputs, and the ground truth.

    crops, joints, visible: as `types.Inputs`, but crops are bytes (b, h, w, 3). focal_crop, focal_image: input focal
    length for a model with the crop's, or the image's, camera (DPMeshConfig.camera), px. turn: rotation from the crop
    camera's frame to the camera frame. truth_joints: skeletons.H36M17, metres, camera frame; measured: 1 where known.
    truth_vertices, truth_pelvis: metres, camera frame; None unless the truth is a body. joint_visible: of H36M17: 1
    visible, 0 hidden, NaN unknown. fallbacks: how often each fallback was used. confidence: as `types.Inputs`. missed:
    people who were not detected, where people are (protocol.WholeImage); a miss is a failure, whatever is predicted.
    """

    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    crops: UInt8[np.ndarray, "b 256 256 3"]
    joints: Float32[np.ndarray, "b 30 2"]
    visible: Float32[np.ndarray, "b 30"]
    focal_crop: Float32[np.ndarray, " b"]
    focal_image: Float32[np.ndarray, " b"]
    turn: Float[np.ndarray, "b 3 3"]
    truth_joints: Float[np.ndarray, "b 17 3"]
    measured: Float[np.ndarray, "b 17"]
    truth_vertices: Float32[np.ndarray, "b v 3"] | None
    truth_pelvis: Float[np.ndarray, "b 3"] | None
    joint_visible: Float[np.ndarray, "b 17"]
    fallbacks: Counter[str] = field(default_factory=Counter[str])
    confidence: Float[np.ndarray, "b 30"] | None = None
    missed: Bool[np.ndarray, " b"] | None = None


@runtime_checkable
class EvaluationSource(Protocol):
    """The people of one protocol, in a fixed order. The same indices always return the same data."""

    census: Census
    faces: Integer[np.ndarray, "f 3"] | None
    """Of the ground-truth meshes; None without meshes."""

    def __len__(self) -> int: ...

    def persons(self, indices: Sequence[int]) -> Persons: ...
