"""What passes between a set's files, the run and the figures: records, persons ready for the model, sources."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Integer, UInt8

Gender = Literal["male", "female", "neutral"]


@dataclass(frozen=True, eq=False)
class BodyTruth:
    """SMPL parameters, root orientation in the camera frame. transl: metres, camera frame. turned_about_pelvis: a
    rotation R (world to camera) that was applied to `transl` alone; the mesh then stands at transl + (R - 1) J0, with
    J0 the neutral body's pelvis at rest (how the 3DPW JSON files were derived)."""

    gender: Gender
    pose: Float[np.ndarray, "24 3"]
    betas: Float[np.ndarray, "10"]
    transl: Float[np.ndarray, "3"]
    turned_about_pelvis: Float[np.ndarray, "3 3"] | None = None


@dataclass(frozen=True, eq=False)
class JointTruth:
    """Measured joints in the order of skeletons.H36M17: x y z metres, camera frame, and 1 where measured, else 0."""

    joints: Float[np.ndarray, "17 4"]


@dataclass(frozen=True, eq=False)
class Record:
    """One person in one picture of a set on disk.

    id: unique in the set and the same whatever files it was read from. size: (h, w) of the picture that box and
    keypoints were annotated in; None where the set does not say. K: as annotated, image px, or None.
    keypoints: skeletons.JOINTS30, x y confidence, image px; None where the detector is to be asked.
    box: annotated, x1 y1 x2 y2 px.
    """

    id: str
    sequence: str
    picture: Path
    size: tuple[int, int] | None
    box: Float[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "30 3"] | None
    truth: BodyTruth | JointTruth
    K: Float[np.ndarray, "3 3"] | None = None


@dataclass(frozen=True)
class Census:
    """How many persons a source holds and why. published: by the paper. left_out: reason -> person-frames of the
    files that the selection leaves out or that cannot be used. files: name -> sha256. notes: what the reader of the
    figures must know."""

    found: int
    published: int | None = None
    layout: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Persons:
    """Some persons of a set, ready for the model, and what is true of them. Rows are persons.

    crops, joints, visible: as `model.Inputs`, crops still bytes (b, h, w, 3). focal_crop, focal_image: the focal
    length that a model of the crop's, or of the picture's, camera is told (DPMeshConfig.camera). turn: from the crop
    camera's frame to the camera frame. truth_joints: skeletons.H36M17, metres, camera frame; measured: 1 where they
    are known. truth_vertices, truth_pelvis: where the truth is a body. seen: 1 in sight, 0 hidden, NaN unknown.
    fallbacks: how often each makeshift was taken.
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
    seen: Float[np.ndarray, "b 17"]
    fallbacks: Counter[str] = field(default_factory=Counter[str])


@runtime_checkable
class Source(Protocol):
    """The persons of one protocol, in a fixed order. Asking for the same persons always gives the same answer."""

    census: Census
    faces: Integer[np.ndarray, "f 3"] | None
    """Of the true meshes."""

    def __len__(self) -> int: ...

    def persons(self, indices: Sequence[int]) -> Persons: ...
