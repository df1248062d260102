"""The fields of a prediction: people in one camera frame, the image, and the provenance.

Frames and units as in docs/reference/conventions.md: metres, x right, y down, z forward; pixels of the full image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Integer, UInt8

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.floor import Floor

FocalSource = Literal["given", "exif", "diagonal"]


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """n bodies that agree with the visible keypoints, most different where no keypoint is (hypotheses.py). The first is
    the person's own. Units and frames as `Person`'s."""

    weight: Float[np.ndarray, "n"]
    """Probability; sums to 1."""
    global_orient: Float[np.ndarray, "n 3"]
    body_pose: Float[np.ndarray, "n 69"]
    betas: Float[np.ndarray, "n 10"]
    transl: Float[np.ndarray, "n 3"]
    joints3d: Float[np.ndarray, "n 30 3"]

    def __len__(self) -> int:
        return len(self.weight)


HYPOTHESES_SHAPES: dict[str, tuple[int, ...]] = {
    "weight": (), "global_orient": (3,), "body_pose": (69,), "betas": (10,), "transl": (3,), "joints3d": (30, 3),
}  # fmt: skip
"""Of one of `Hypotheses`."""


@dataclass(frozen=True, eq=False, repr=False)
class Person:
    """One body. Its parameters give `vertices` through `BodyModel`, `transl` added after skinning."""

    box: Float[np.ndarray, "4"]
    """x1 y1 x2 y2, image pixels, right and bottom exclusive."""
    keypoints2d: Float[np.ndarray, "17 3"]
    """Input of the model: COCO-17, x y confidence, image pixels."""
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
    """Metres: standard deviation, along each axis, of the error of `joints3d` less the pelvis; 0 for the pelvis
    (types.Prediction). NaN where the model does not predict it; refining keeps it."""
    track: int | None = None
    """The person's number in a video; None in a single image, and before a track is sure."""
    corrected: tuple[str, ...] = ()
    """The corrections of this person in words ("move L_Wrist", "swap arms"); empty for a prediction."""
    hypotheses: Hypotheses | None = None
    """Other bodies that agree with the keypoints; None where they were not asked for."""

    def __repr__(self) -> str:
        box = " ".join(f"{float(v):.0f}" for v in self.box)
        return f"Person(score {self.score:.2f}, box {box}, {float(self.joints3d[0, 2]):.2f} m away)"


PEOPLE_SHAPES: dict[str, tuple[int, ...]] = {
    "box": (4,), "keypoints2d": (17, 3), "global_orient": (3,), "body_pose": (69,), "betas": (10,), "transl": (3,),
    "joints3d": (30, 3), "joints2d": (30, 2), "score": (), "joint_sigma": (30,),
}  # fmt: skip
"""Of `Person`'s fields but the vertices."""

_GUESSED = {"given": "given", "exif": "from EXIF", "diagonal": "guessed"}


@dataclass(frozen=True, eq=False, repr=False)
class SceneData:
    """All people in one image of one camera."""

    K: Float[np.ndarray, "3 3"]
    """Image pixels."""
    image_size: tuple[int, int]
    """(height, width)."""
    joint_names: tuple[str, ...]
    faces: Integer[np.ndarray, "f 3"]
    people: tuple[Person, ...]
    image: UInt8[np.ndarray, "h w 3"] | None = None
    """RGB, for the overlay; None for a scene that was loaded without its image."""
    source: str = ""
    """The image's path or name, as the user wrote it."""
    source_sha256: str = ""
    focal_source: FocalSource = "diagonal"
    roll: float = 0.0
    """Degrees that upright things lean clockwise in the image: people were detected and predicted upright."""
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    """How often each fallback was taken (docs/reference/output.md lists them); absent means never."""
    notes: tuple[str, ...] = ()
    weights: Mapping[str, object] = field(default_factory=dict)
    """Name and provenance of the model's weights."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The options of the prediction (inference/options.py): plain values; of a file its name and sha256."""
    corrections: tuple[Mapping[str, object], ...] = ()
    """The list of corrections (corrections.Correction.as_json) that made this scene of the predicted one."""
    floor: Floor | None = None
    """Set by a correction."""
    body: BodyModel | None = None
    """Gives each person's vertices; the GLB's skeleton and skin come from it. Not copied and not pickled."""

    def __repr__(self) -> str:
        height, width = self.image_size
        people = "1 person" if len(self.people) == 1 else f"{len(self.people)} people"
        focal = f"focal {float(self.K[0, 0]):.0f} px, {_GUESSED[self.focal_source]}"
        return f"{type(self).__name__}({people}, {width}×{height}, {focal})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "body": None}

    def stacked(self, name: str) -> Float[np.ndarray, "p ..."]:
        """One field of all people as an array with a row for each; P = 0 keeps its other dimensions."""
        shapes = PEOPLE_SHAPES | {"vertices": (int(self.faces.max(initial=-1)) + 1, 3)}
        rows = [np.asarray(getattr(person, name), np.float32) for person in self.people]
        return np.stack(rows) if rows else np.zeros((0, *shapes[name]), np.float32)


def image_of(scene: SceneData) -> UInt8[np.ndarray, "h w 3"]:
    """The scene's image; raises InputError for a loaded scene without it."""
    if scene.image is None:
        raise InputError(
            "the image of this scene is not known",
            where=scene.source or "scene",
            fix="Load it with its image: Scene.load(folder, image=FILE).",
        )
    return scene.image
