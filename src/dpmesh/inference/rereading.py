"""Other readings of a person's keypoints, among which moved joints choose.

Where a joint has to be moved far, the detector has often taken another person's limbs for this person's. So it is asked
again in boxes beside, smaller and larger, and each reading also counts with left and right exchanged. Few joints tell
which agrees: so confidence counts, and agreement with the first reading; and bodies are predicted for the best few, of
which the one is taken that its keypoints and its own joint_sigma speak for.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float, Float32

from dpmesh.geometry.crop import Crop
from dpmesh.inference.detections import PersonDetector, same_person
from dpmesh.inference.edited import Edited
from dpmesh.inference.preprocess import EXPAND
from dpmesh.inference.rolled import RolledDetector
from dpmesh.inference.scene_data import Person, SceneData, image_of
from dpmesh.skeletons import COCO17, JOINTS30, convert

FAR = 20.0
"""Crop px that a joint was moved, from which other readings are looked at."""
MOST = 3
"""Readings for which bodies are predicted."""
SWAPPED, ANOTHER = "left and right exchanged", "keypoints detected again"
"""Marks of a person."""
_SCALES, _SHIFT = (1.0, 0.7, 1.4), 0.2
"""Of the boxes: sides, and shifts to four sides, in sides of the box."""
_CAP, _DOUBT, _OTHER, _EXCHANGED, _FIRST = 60.0, 30.0, 0.2, 12.0, 12.0
"""Crop px: what each moved joint's distance counts at most; what a reading without any confidence is worse by; share of
its distance from the first reading that counts; what exchanged sides are worse by; what the first is better by. By 100
of SynthOcc's people from 2,600 on."""
_FARTHEST, _SHARE = 40.0, 0.3
"""Of `rating`."""
_LIMBS = [JOINTS30.index(name) for name in COCO17.joints[5:]]
_readings: "WeakKeyDictionary[SceneData, dict[int, tuple[PersonDetector, Float32[np.ndarray, 'n 30 3']]]]"
_readings = WeakKeyDictionary()
"""Of each scene, while it is in use: by person, with the detector. They do not depend on corrections."""


class Reading(NamedTuple):
    """A person with one reading's keypoints, and what speaks against it."""

    edited: Edited
    cost: float


def readings(scene: SceneData, number: int, one: Edited, detector: PersonDetector) -> list[Reading]:
    """The person, of that number in the scene, as corrected; after a far move the MOST readings that cost least.

    As corrected alone, where the user supplied keypoints, or has said which side is which.
    """
    told = scene.options.get("keypoints") is not None or any(mark.startswith("swap") for mark in one.marks)
    if told or one.farthest <= FAR:
        return [Reading(one, 0.0)]
    first = convert(scene.people[number].keypoints2d, COCO17, JOINTS30)
    poses = np.concatenate([first[None], other_readings(scene, number, detector)])
    exchanged = poses.copy()
    exchanged[:, _LIMBS] = poses[:, list(JOINTS30.flip)][:, _LIMBS]
    both = np.concatenate([poses, exchanged]).astype(np.float32)
    costs = _costs(both, one)
    if not np.isfinite(costs).all():
        return [Reading(one, 0.0)]
    hidden = (one.keypoints[:, 2] == 0) & (first[:, 2] > 0)
    found: list[Reading] = []
    for row in np.argsort(costs, kind="stable")[:MOST].tolist():
        edited = one
        if row:
            both[row, hidden, 2] = 0
            mark = SWAPPED if row == len(poses) else ANOTHER
            edited = one.with_keypoints(both[row], mark)
        found.append(Reading(edited, float(costs[row])))
    return found


def rating(person: Person, reading: Reading) -> float:
    """Of the body predicted for a reading; the lowest is best. Crop px: how far its joints are from the keypoints, each
    at most _FARTHEST, and a share of the reading's cost; and a pixel for each centimetre of joint_sigma."""
    keypoints = reading.edited.keypoints
    off = np.linalg.norm(person.joints2d - keypoints[:, :2], axis=1) * Crop.around(person.box, EXPAND).scale
    weight = keypoints[:, 2].clip(0, 1)
    away = float((np.minimum(off, _FARTHEST) * weight).sum() / max(float(weight.sum()), 1e-6))
    return away + _SHARE * reading.cost + 100 * float(np.nan_to_num(person.joint_sigma).mean())


def other_readings(scene: SceneData, number: int, detector: PersonDetector) -> Float32[np.ndarray, "n 30 3"]:
    """JOINTS30, x y confidence, image px. None that are of another person of the scene."""
    known = _readings.setdefault(scene, {})
    if number not in known or known[number][0] is not detector:
        box = scene.people[number].box.astype(np.float64)
        turning = RolledDetector(detector, scene.roll) if scene.roll else detector
        people = turning.keypoints_in_boxes(image_of(scene), _boxes(box, scene.image_size))
        others = [one for i, one in enumerate(scene.people) if i != number]
        own = [
            person.keypoints30
            for person in people
            if not any(same_person(person.keypoints, one.box, one.keypoints2d, one.box) for one in others)
        ]
        known[number] = detector, np.array(own, np.float32).reshape(-1, 30, 3)
    return known[number][1]


def _boxes(box: Float[np.ndarray, "4"], size: tuple[int, int]) -> Float32[np.ndarray, "n 4"]:
    """Around the box, inside the image (size: h, w)."""
    middle, side = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    shifts = _SHIFT * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    rows = [
        np.concatenate([at - scale * side / 2, at + scale * side / 2])
        for scale in _SCALES
        for at in middle + shifts * scale * side
    ]
    limit = np.array([size[1], size[0]] * 2, np.float64)
    inside = np.clip(np.array(rows), 0, limit)
    return inside[(inside[:, 2:] - inside[:, :2] >= 2).all(1)].astype(np.float32)


def _costs(readings: Float[np.ndarray, "n 30 3"], one: Edited) -> Float[np.ndarray, " n"]:
    """Of the first reading, others, and all of them exchanged; inf where there is nothing to tell them apart by."""
    scale, half = Crop.around(one.box, EXPAND).scale, len(readings) // 2
    moved = [row for row in (*one.pixels, *one.points) if readings[:, row, 2].any()]
    costs = np.full(len(readings), np.inf)
    if not moved:
        return costs
    off = scale * np.linalg.norm(readings[:, moved, :2] - one.keypoints[moved, :2], axis=2)
    away = scale * np.linalg.norm(readings[:, _LIMBS, :2] - readings[0, _LIMBS, :2], axis=2)
    costs = np.minimum(off, _CAP).sum(1) + _OTHER * np.minimum(away, _CAP).mean(1)
    costs += _DOUBT * (1 - readings[:, _LIMBS, 2].mean(1))
    costs[half:] += _EXCHANGED
    costs[0] -= _FIRST
    return costs
