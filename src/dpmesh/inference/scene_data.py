"""What a prediction is made of: people in one camera frame, the image, and where everything comes from.

Frames and units as in docs/conventions.md: metres, x right, y down, z forward; pixels of the full image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer, UInt8

FocalSource = Literal["given", "exif", "diagonal"]


@dataclass(frozen=True, eq=False)
class Person:
    """One body. Its parameters give `vertices` through `BodyModel`, `transl` added after skinning."""

    box: Float[np.ndarray, "4"]
    """x1 y1 x2 y2, image pixels, right and bottom exclusive."""
    keypoints2d: Float[np.ndarray, "17 3"]
    """What the model was told: COCO-17, x y confidence, image pixels."""
    global_orient: Float[np.ndarray, "3"]
    """Axis-angle, body frame to camera frame."""
    body_pose: Float[np.ndarray, "69"]
    """Axis-angle of joints 1..23."""
    betas: Float[np.ndarray, "10"]
    transl: Float[np.ndarray, "3"]
    """Metres, camera frame."""
    vertices: Float[np.ndarray, "v 3"]
    """Metres, camera frame."""
    joints3d: Float[np.ndarray, "30 3"]
    """Metres, camera frame, `skeletons.JOINTS30`."""
    joints2d: Float[np.ndarray, "30 2"]
    """`joints3d` projected by the scene's K, image pixels."""
    score: float
    """Confidence of the detection in [0, 1]."""
    joint_sigma: Float[np.ndarray, "30"] = field(default_factory=lambda: np.full(30, np.nan, np.float32))
    """Metres: how far `joints3d` less the pelvis may be off, the standard deviation along each axis; 0 for the pelvis
    (model.Prediction). NaN where the model does not tell, and of an answer that was refined."""


@dataclass(frozen=True, eq=False)
class SceneData:
    """Everybody in one picture, seen by one camera."""

    K: Float[np.ndarray, "3 3"]
    """Image pixels."""
    image_size: tuple[int, int]
    """(height, width)."""
    joint_names: tuple[str, ...]
    faces: Integer[np.ndarray, "f 3"]
    people: tuple[Person, ...]
    image: UInt8[np.ndarray, "h w 3"] = field(repr=False)
    """The picture, RGB; the overlay is drawn on it."""
    source: str = ""
    """Where the picture came from, as it was named."""
    source_sha256: str = ""
    focal_source: FocalSource = "diagonal"
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    """How often each makeshift was taken (docs/output.md lists them); absent means never."""
    notes: tuple[str, ...] = ()
    weights: Mapping[str, object] = field(default_factory=dict)
    """Name and provenance of the model's weights."""
    options: Mapping[str, object] = field(default_factory=dict)
    """What it was made with (inference/options.py): plain values; of a file its name and sha256."""

    def stacked(self, name: str) -> Float[np.ndarray, "p ..."]:
        """One field of all people as an array with a row for each; P = 0 keeps its other dimensions."""
        shape = {
            "box": (4,),
            "keypoints2d": (17, 3),
            "global_orient": (3,),
            "body_pose": (69,),
            "betas": (10,),
        }
        shape |= {"transl": (3,), "joints3d": (30, 3), "joints2d": (30, 2), "score": (), "joint_sigma": (30,)}
        shape |= {"vertices": (int(self.faces.max(initial=-1)) + 1, 3)}
        rows = [np.asarray(getattr(person, name), np.float32) for person in self.people]
        return np.stack(rows) if rows else np.zeros((0, *shape[name]), np.float32)
