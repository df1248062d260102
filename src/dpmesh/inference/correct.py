"""What corrections do to a scene: keypoints are edited, people predicted again, and bodies fitted to pinned joints.

A moved joint is a keypoint that is certain. So the model gets all keypoints again, with the moved ones in their new
places; then the body is fitted with them, and with the floor, as strong constraints (pins.py). The result depends on
the uncorrected scene and the whole list alone: a shorter list undoes, and a stored list gives the same bodies again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.camera import project
from dpmesh.geometry.crop import Crop
from dpmesh.inference.corrections import Correction, corrections_record
from dpmesh.inference.detections import Detection, PersonDetector
from dpmesh.inference.edited import Edited
from dpmesh.inference.floors import Standing, floor_of, last_floor, refuse_unfit
from dpmesh.inference.images import DecodedImage
from dpmesh.inference.pins import fitted_to_pins
from dpmesh.inference.preprocess import EXPAND, MIN_DETECTED, MIN_SUPPLIED, PreparedImage
from dpmesh.inference.rereading import Reading, rating, readings
from dpmesh.inference.rolled import RolledDetector
from dpmesh.inference.scene_data import Person, SceneData, image_of
from dpmesh.inference.user_detections import around
from dpmesh.skeletons import COCO17, JOINTS30, convert

Kind = TypeVar("Kind", bound=SceneData)
_GROWN, _MOVED, _NEAREST = 4.0, 0.5, 0.05
"""Betas, and sides of the box in the image, by which a fit to moved joints may change a body, and metres before the
camera where it must be. Of 52 corrections to true places: 1.6, 0.12."""


def correct(
    scene: Kind,
    steps: Sequence[Correction],
    body: BodyModel,
    detector: PersonDetector,
    predict: Callable[[PreparedImage], SceneData],
) -> Kind:
    """The scene after all steps. predict: gives the people of a prepared image, in order.

    Raises InputError for a scene that is corrected already or has no image, and for steps that it does not allow.
    """
    if scene.corrections:
        raise InputError(
            "is corrected already",
            where=scene.source or "scene",
            fix="Correct the scene as it was predicted, with the whole list.",
        )
    if not steps:
        return scene
    edited = edit(scene, steps, detector)
    left = [i for i, one in enumerate(edited) if not one.deleted]
    changed = [i for i in left if edited[i].marks]
    start = dict(enumerate(scene.people))
    if changed:
        start.update(_predicted(scene, changed, edited, detector, predict))
    own = [edited[i] for i in left]
    people = fitted_to_pins([start[i] for i in left], own, scene.K, body)
    notes = [_far_fetched(i, start[i], person, one) for i, one, person in zip(left, own, people, strict=True)]
    floor, step = None, last_floor(steps)
    if step is not None:
        rows = _on_floor(step, left, len(edited))
        joints = np.array([person.joints3d for person in people]).reshape(-1, 30, 3)
        floor = floor_of(step, joints[rows], scene.K)
        standing, alone = Standing.of(floor, joints[rows]), [own[row] for row in rows]
        before = [start[left[row]] for row in rows]
        after = fitted_to_pins(before, alone, scene.K, body, standing=standing)
        for row, old, new in zip(rows, before, after, strict=True):
            refuse_unfit(left[row], old, new, floor)
            own[row].marks.append(step.mark)
            people[row] = new
    return replace(
        scene,
        people=tuple(
            replace(person, corrected=tuple(one.marks)) if one.marks else person
            for one, person in zip(own, people, strict=True)
        ),
        floor=floor,
        notes=(*scene.notes, *filter(None, notes)),
        corrections=tuple(step.as_json() for step in steps),
        options={**scene.options, "corrections": corrections_record(steps)},
    )


def _far_fetched(number: int, before: Person, after: Person, one: Edited) -> str:
    """A note on a body that has its moved joints in their places only with another size, in another place of the image,
    or behind the camera; else empty. before, after: the fit."""
    if not (one.pixels or one.points):
        return ""
    grown = float(np.abs(after.betas - before.betas).max())
    moved = float(np.median(np.linalg.norm(after.joints2d - before.joints2d, axis=1)))
    side = float(max(before.box[2:] - before.box[:2]))
    if grown <= _GROWN and moved <= _MOVED * side and after.vertices[:, 2].min() >= _NEAREST:
        return ""
    joints = ", ".join(JOINTS30.joints[row] for row in (*one.pixels, *one.points))
    return f"person {number} is hardly a body any more: {joints} moved too far?"


def _on_floor(step: Correction, left: Sequence[int], count: int) -> list[int]:
    """Positions in `left` of the people who stand on the floor. Raises InputError."""
    wanted = left if step.people is None else step.people
    if missing := [i for i in wanted if i not in left]:
        what = "was deleted" if missing[0] < count else "does not exist"
        raise InputError(f"person {missing[0]} {what}", where="floor", fix=f"There are 0 to {count - 1}.")
    return [left.index(i) for i in dict.fromkeys(wanted)]


def edit(scene: SceneData, steps: Sequence[Correction], detector: PersonDetector) -> list[Edited]:
    """The people as the steps leave them, also those that are deleted; added ones last. Raises InputError."""
    edited = [
        Edited(p.box.copy(), convert(p.keypoints2d.copy(), COCO17, JOINTS30), p.score, joints=p.joints2d)
        for p in scene.people
    ]
    for number, step in enumerate(steps):
        where = f"corrections[{number}]"
        if step.frame is not None:
            raise InputError(f"{step.op} is of a frame of a video, and this is an image", where=where)
        if step.op == "floor":
            continue
        if step.op == "add":
            edited.append(_added(scene, step, detector))
            continue
        person = step.person or 0
        if person >= len(edited) or edited[person].deleted:
            what = "was deleted" if person < len(edited) else "does not exist"
            raise InputError(f"person {person} {what}", where=where, fix=f"There are 0 to {len(edited) - 1}.")
        _refuse_far(step, scene, where)
        edited[person].apply(step, scene.K)
    return edited


def _refuse_far(step: Correction, scene: SceneData, where: str) -> None:
    """Raise InputError for a joint that lies farther outside the image than the image is large."""
    at = step.pixel
    if step.point is not None:
        at = tuple(project(np.array(step.point), scene.K))
    height, width = scene.image_size
    if at is not None and not (-width <= at[0] <= 2 * width and -height <= at[1] <= 2 * height):
        raise InputError(
            f"x {at[0]:.0f}, y {at[1]:.0f} is far outside the image of {width}×{height}", where=where
        )


def _added(scene: SceneData, step: Correction, detector: PersonDetector) -> Edited:
    height, width = scene.image_size
    if step.box is not None:
        box = np.array(step.box, np.float32)
        inside = box[2] > 0 and box[3] > 0 and box[0] < width and box[1] < height
        if not inside:
            raise InputError(f"the box lies outside the image of {width}×{height} pixels", where="add")
        turning = RolledDetector(detector, scene.roll) if scene.roll else detector
        detection = turning.keypoints_in_boxes(image_of(scene), box[None])[0]
        keypoints = detection.keypoints30.astype(np.float32).copy()
    else:
        coco = np.array(step.keypoints, np.float32)
        keypoints = convert(coco, COCO17, JOINTS30)
        box = around(coco[coco[:, 2] > 0].astype(np.float64), scene.image_size)
    return Edited(box, keypoints, 1.0, marks=["add"])


def _predicted(
    scene: SceneData,
    changed: Sequence[int],
    edited: list[Edited],
    detector: PersonDetector,
    predict: Callable[[PreparedImage], SceneData],
) -> dict[int, Person]:
    """The model's people for the edited keypoints, or for other readings of them, which `edited` then holds."""
    tried = [
        (i, one)
        for i in changed
        for one in (
            readings(scene, i, edited[i], detector) if i < len(scene.people) else [Reading(edited[i], 0.0)]
        )
    ]
    people = predict(_prepared(scene, [one.edited for _, one in tried])).people
    best: dict[int, tuple[float, Person]] = {}
    for (i, one), person in zip(tried, people, strict=True):
        rated = rating(person, one)
        if i not in best or rated < best[i][0]:
            best[i], edited[i] = (rated, person), one.edited
    return {i: person for i, (_, person) in best.items()}


def _prepared(scene: SceneData, people: Sequence[Edited]) -> PreparedImage:
    supplied = scene.options.get("keypoints") is not None
    detections = [
        Detection(one.box, convert(one.keypoints, JOINTS30, COCO17), one.score, one.keypoints)
        for one in people
    ]
    return PreparedImage(
        scene.source,
        scene.source_sha256,
        DecodedImage(image_of(scene)),
        scene.K,
        scene.focal_source,
        detections,
        MIN_SUPPLIED if supplied else MIN_DETECTED,
        Counter(),
        [Crop.around(one.box, EXPAND, scene.roll) for one in people],
        scene.roll,
    )
