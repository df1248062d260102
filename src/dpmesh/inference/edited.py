"""A person as a list of corrections leaves them: keypoints, pinned joints, and the steps in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from dpmesh.geometry.camera import project
from dpmesh.geometry.crop import Crop
from dpmesh.inference.corrections import Correction, Part
from dpmesh.inference.preprocess import EXPAND
from dpmesh.skeletons import COCO17, JOINTS30, convert

_PARTS: Mapping[Part, tuple[str, ...]] = {
    "all": tuple(name[2:] for name in JOINTS30.joints if name.startswith("L_")),
    "arms": ("Shoulder", "Elbow", "Wrist", "Hand"),
    "legs": ("Hip", "Knee", "Ankle", "Toe"),
}


@dataclass
class Edited:
    """A person as the list leaves them. keypoints: skeletons.JOINTS30, x y confidence, image px. pixels, points: the
    pinned joints. marks: the steps in words."""

    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "30 3"]
    score: float
    pixels: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])
    points: dict[int, tuple[float, float, float]] = field(
        default_factory=dict[int, tuple[float, float, float]]
    )
    marks: list[str] = field(default_factory=list[str])
    deleted: bool = False
    joints: Float[np.ndarray, "30 2"] | None = None
    """Of the predicted body, image px; None for a person who was added."""

    def apply(self, step: Correction, K: Float[np.ndarray, "3 3"]) -> None:
        """One step of this person: move, hide, swap or delete."""
        if step.op == "swap":
            self._swap(_PARTS[step.part])
        elif step.op == "delete":
            self.deleted = True
        else:
            joint = JOINTS30.index(step.joint or "")
            self.pixels.pop(joint, None)
            self.points.pop(joint, None)
            self.marks = [mark for mark in self.marks if mark != f"move {step.joint}"]
            self.keypoints[joint, 2] = 0.0
            at = step.pixel
            if step.point is not None:
                self.points[joint] = step.point
                at = tuple(project(np.array(step.point), K))
            if at is not None:
                if step.point is None:
                    self.pixels[joint] = step.pixel or (0.0, 0.0)
                self.keypoints[joint] = (*at, 1.0)
            self._middles()
        if step.mark not in self.marks:
            self.marks.append(step.mark)

    @property
    def farthest(self) -> float:
        """How far a joint was moved in the image, crop px."""
        if self.joints is None or not self.pixels:
            return 0.0
        rows = list(self.pixels)
        off = np.linalg.norm(self.joints[rows] - np.array([self.pixels[row] for row in rows]), axis=1)
        return float(off.max()) * Crop.around(self.box, EXPAND).scale

    def with_keypoints(self, keypoints: Float32[np.ndarray, "30 3"], mark: str) -> "Edited":
        """With others than the moved ones."""
        fresh = keypoints.copy()
        moved = [*self.pixels, *self.points]
        fresh[moved] = self.keypoints[moved]
        other = replace(self, keypoints=fresh, marks=[*self.marks, mark])
        other._middles()
        return other

    def _swap(self, names: Sequence[str]) -> None:
        for name in names:
            left, right = JOINTS30.index(f"L_{name}"), JOINTS30.index(f"R_{name}")
            self.keypoints[[left, right]] = self.keypoints[[right, left]]
            for pins in (self.pixels, self.points):
                other: dict[int, Any] = {left: right, right: left}
                moved = {other.get(joint, joint): at for joint, at in pins.items()}
                pins.clear()
                pins.update(moved)
        self._middles()

    def _middles(self) -> None:
        """Pelvis and neck follow from hips and shoulders, unless they are pinned."""
        fresh = convert(convert(self.keypoints, JOINTS30, COCO17), COCO17, JOINTS30)
        for name in ("Pelvis", "Neck"):
            joint = JOINTS30.index(name)
            if joint not in {*self.pixels, *self.points}:
                self.keypoints[joint] = fresh[joint]
