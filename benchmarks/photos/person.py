"""Tests one predicted body on a photograph; the results are one row."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.photos.keypoints import distances, feet_visible, mirrored, upside_down
from benchmarks.photos.penetration import Trunk, volume
from dpmesh.body.files import BodyArrays
from dpmesh.body.layer import BodyModel
from dpmesh.inference.scene import Person
from dpmesh.skeletons import SMPL24

STATURES = (1.4, 2.05)
"""Metres: the adults in the free photographs are none of them smaller or taller."""
_FEET = tuple(tuple(SMPL24.index(f"{side}_{part}") for part in ("Ankle", "Toe")) for side in "LR")


@dataclass(frozen=True, eq=False)
class Row:
    """The test results of one person.

    image, person: the image's name and the person's number in it. distances: keypoints.distances. not_confident: number
    of the 17 keypoints that are not confident, and not compared. upside_down, mirrored: None where the keypoints do
    not decide it. through_trunk: bones. inside_share: of limb vertices in the trunk. stature: metres. foot: the lowest
    point of the feet whose ankles are visible, metres, or None. above_floor: metres, once a floor is known.
    """

    image: str
    person: int
    finite: bool
    distances: tuple[float, ...]
    not_confident: int
    upside_down: bool | None
    mirrored: bool | None
    inside_out: bool
    through_trunk: tuple[str, ...]
    inside_share: float
    stature: float
    foot: tuple[float, float, float] | None
    above_floor: float | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        named = {
            "not finite": not self.finite,
            "upside down": bool(self.upside_down),
            "mirrored": bool(self.mirrored),
            "inside out": self.inside_out,
            "limb through the trunk": bool(self.through_trunk),
            "stature": self.finite and not STATURES[0] <= self.stature <= STATURES[1],
            "off the floor": self.above_floor is not None and abs(self.above_floor) > 0.25,
        }
        return tuple(name for name, failed in named.items() if failed)


class Examiner:
    """Tests people of one body."""

    def __init__(self, arrays: BodyArrays) -> None:
        self.trunk, self.faces = Trunk(arrays.weights, arrays.faces), arrays.faces
        self.body = BodyModel(arrays)
        owner = arrays.weights.argmax(1)
        self.feet = [np.isin(owner, joints) for joints in _FEET]

    def row(self, image: str, number: int, person: Person) -> Row:
        compared = (person.joints2d, person.keypoints2d, person.box)
        turned, swapped = upside_down(*compared), mirrored(*compared)
        off = distances(*compared)
        inner = self.trunk.test(person.vertices, person.joints3d)
        return Row(
            image=image,
            person=number,
            finite=inner.finite,
            distances=tuple(float(d) for d in off),
            not_confident=len(person.keypoints2d) - len(off),
            upside_down=turned.failed if turned.tested else None,
            mirrored=swapped.failed if swapped.tested else None,
            inside_out=inner.finite and volume(person.vertices, self.faces) <= 0,
            through_trunk=inner.bones,
            inside_share=inner.share,
            stature=self.stature(person.betas),
            foot=self._foot(person) if inner.finite else None,
        )

    def stature(self, betas: Float[np.ndarray, "10"]) -> float:
        """Crown to sole in the rest pose, metres."""
        shape = torch.from_numpy(np.asarray(betas, np.float32))[None]
        height = self.body(shape, torch.eye(3).expand(1, 24, 3, 3)).vertices[0, :, 1]
        return float(height.max() - height.min())

    def _foot(self, person: Person) -> tuple[float, float, float] | None:
        points = [
            person.vertices[vertices][person.vertices[vertices, 1].argmax()]
            for vertices, visible in zip(self.feet, feet_visible(person.keypoints2d), strict=True)
            if visible
        ]
        if not points:
            return None
        x, y, z = max(points, key=lambda p: float(p[1]))
        return float(x), float(y), float(z)
