"""The floor that a correction sets, and the feet that stand on it.

A single image shows no heights. So a floor of points lies where the feet next to them are, and is level (as the
camera's own axes say) as far as the points do not tell: only people or points that are well apart tilt it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.geometry.camera import project
from dpmesh.geometry.floor import LEVEL, Floor, lowest_feet, plane_normal, unit
from dpmesh.inference.corrections import Correction
from dpmesh.inference.scene_data import Person

_SPREAD = 0.5
"""Metres: points with a greater standard deviation along the floor tilt it more than the level camera holds it. Two
points that are off by 0.1 m weigh about as much against a camera whose tilt is known to 10°."""
_ROUNDS, _OUTLIER, _LEAST = 5, 4.0, 0.02
"""Points farther off than some standard deviations (of at least _LEAST metres) are left out, in a few rounds."""
_STEEPEST = 45.0
"""Degrees."""
_OFF, _GROWN, _MOVED = 0.03, 3.0, 0.1
"""At most: metres of the lowest foot from the floor; change of a beta; of the box, by which the joints move."""


@dataclass(frozen=True, eq=False)
class Standing:
    """People on a floor. feet: of floor.FEET, those that stand on it."""

    floor: Floor
    feet: Bool[np.ndarray, "p 4"]

    @classmethod
    def of(cls, floor: Floor, joints: Float[np.ndarray, "p 30 3"]) -> "Standing":
        """The lowest feet of each person stand."""
        return cls(floor, lowest_feet(joints, floor.up)[1])


def last_floor(steps: Sequence[Correction]) -> Correction | None:
    """The one that counts."""
    return next((step for step in reversed(steps) if step.op == "floor"), None)


def floor_of(step: Correction, joints: Float[np.ndarray, "p 30 3"], K: Float[np.ndarray, "3 3"]) -> Floor:
    """joints: of the people on it, as the other corrections leave them, metres, camera frame.

    Raises InputError where points or feet give no floor below the camera.
    """
    if step.normal is not None:
        normal = np.array(step.normal, np.float64)
        return Floor(unit(normal), float(step.height or 0.0))
    before = joints[(joints[..., 2] > 0).all(1)]
    if not len(before):
        _refuse("there is no person whose feet give a floor")
    soles, lowest = lowest_feet(before.astype(np.float64), LEVEL)
    points = soles[lowest] if step.pixels is None else _at_pixels(np.array(step.pixels), soles, before, K)
    return _through(points)


def refuse_unfit(number: int, before: Person, after: Person, floor: Floor) -> None:
    """Raise InputError for a body that stands on the floor only with another size or in another place of the image, or
    not at all. before, after: without the floor and with it."""
    soles, _ = lowest_feet(after.joints3d.astype(np.float64), floor.up)
    off = abs(float(floor.heights(soles).min()))
    grown = float(np.abs(after.betas - before.betas).max())
    moved = np.median(np.linalg.norm(after.joints2d - before.joints2d, axis=1))
    if off > _OFF or grown > _GROWN or moved > _MOVED * max(before.box[2:] - before.box[:2]):
        raise InputError(
            f"person {number} cannot stand on this floor and be where the image has them",
            where="floor",
            fix="Name those who can as people, or change it.",
        )


def _at_pixels(
    pixels: Float[np.ndarray, "n 2"],
    soles: Float[np.ndarray, "p 4 3"],
    joints: Float[np.ndarray, "p 30 3"],
    K: Float[np.ndarray, "3 3"],
) -> NDArray[np.float64]:
    """The points of the image as far away as the foot next to each, metres."""
    feet = project(soles.reshape(-1, 3), K)
    drawn = project(joints.reshape(-1, 3), K).reshape(len(joints), 30, 2)
    tall = np.repeat(np.ptp(drawn[..., 1], axis=1), 4)
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T
    points = list[NDArray[np.float64]]()
    for pixel, ray in zip(pixels, rays, strict=True):
        off = np.linalg.norm(feet - pixel, axis=1)
        nearest = int(off.argmin())
        if off[nearest] > tall[nearest]:
            _refuse(f"x {pixel[0]:.0f}, y {pixel[1]:.0f} is far from all feet")
        points.append(ray * soles.reshape(-1, 3)[nearest, 2])
    return np.stack(points)


def _through(points: Float[np.ndarray, "n 3"]) -> Floor:
    up, inside = LEVEL, points
    for _ in range(_ROUNDS):
        up = plane_normal(inside, LEVEL, _SPREAD)
        heights = points @ up
        off = np.abs(heights - np.median(heights))
        inside = points[off <= _OUTLIER * max(1.4826 * float(np.median(off)), _LEAST)]
    floor = Floor(up, -float(np.median(inside @ up)))
    tilt = np.degrees(np.arccos(np.clip(up @ LEVEL, -1, 1)))
    if tilt > _STEEPEST or floor.height <= 0:
        _refuse(f"these points give no floor: tilted by {tilt:.0f}°, {floor.height:.2f} m below the camera")
    return floor


def _refuse(what: str) -> NoReturn:
    raise InputError(what, where="floor", fix="Give its normal and height.")
