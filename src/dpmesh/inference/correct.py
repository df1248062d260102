"""What corrections do to a scene: keypoints are edited, people predicted again, and bodies fitted to pinned joints.

A moved joint is a keypoint that is certain. So the model gets all keypoints again, with the moved ones in their new
places; then the body is fitted with them as strong constraints (posterior.py). The result depends on the uncorrected
scene and the whole list alone: a shorter list undoes, and a stored list gives the same bodies again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.camera import project
from dpmesh.geometry.crop import Crop
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.inference.corrections import Correction, corrections_record
from dpmesh.inference.detections import Detection, PersonDetector
from dpmesh.inference.edited import Edited
from dpmesh.inference.images import DecodedImage
from dpmesh.inference.posterior import Observed, Posterior
from dpmesh.inference.preprocess import EXPAND, MIN_DETECTED, MIN_SUPPLIED, PreparedImage
from dpmesh.inference.rolled import RolledDetector
from dpmesh.inference.scene_data import Person, SceneData, image_of
from dpmesh.inference.user_detections import around
from dpmesh.skeletons import COCO17, JOINTS30, convert

Kind = TypeVar("Kind", bound=SceneData)
SWAPPED = "left and right exchanged"
"""Mark of a person whose other keypoints were exchanged after a joint was moved."""
_FAR, _MOST, _MARGIN = 20.0, 40.0, 0.5
"""Crop px: of a moved joint; of a disagreement; by which the exchanged keypoints must agree better."""


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
    changed = [i for i, one in enumerate(edited) if one.marks and not one.deleted]
    people = dict(enumerate(scene.people))
    if changed:
        own = [edited[i] for i in changed]
        again = _predicted(scene, own, predict)
        marked = [replace(person, corrected=tuple(one.marks)) for one, person in zip(own, again, strict=True)]
        people.update(zip(changed, fitted_to_pins(marked, own, scene.K, body), strict=True))
    kept = tuple(people[i] for i, one in enumerate(edited) if not one.deleted)
    return replace(
        scene,
        people=kept,
        corrections=tuple(step.as_json() for step in steps),
        options={**scene.options, "corrections": corrections_record(steps)},
    )


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
    scene: SceneData, edited: Sequence[Edited], predict: Callable[[PreparedImage], SceneData]
) -> list[Person]:
    """The model's people for the edited keypoints. Where a joint was moved far, left and right of the other keypoints
    may be exchanged: those people are predicted both ways, and stay as agrees better with their keypoints."""
    far = [i for i, one in enumerate(edited) if _may_be_swapped(scene, one)]
    twins = [edited[i].swapped() for i in far]
    both = predict(_prepared(scene, [*edited, *twins])).people
    people = list(both[: len(edited)])
    for i, twin, other in zip(far, twins, both[len(edited) :], strict=True):
        if _disagreement(other, twin) + _MARGIN < _disagreement(people[i], edited[i]):
            people[i] = other
            edited[i].keypoints = twin.keypoints
            edited[i].marks.append(SWAPPED)
    return people


def _may_be_swapped(scene: SceneData, one: Edited) -> bool:
    """Not keypoints that the user supplied, nor where the user says which side is which."""
    supplied = scene.options.get("keypoints") is not None or any(m.startswith("swap") for m in one.marks)
    return one.farthest > _FAR and not supplied


def _disagreement(person: Person, one: Edited) -> float:
    """Mean distance of the body's joints from the keypoints by confidence, crop px, each at most _MOST."""
    off = (
        np.linalg.norm(person.joints2d - one.keypoints[:, :2], axis=1) * Crop.around(person.box, EXPAND).scale
    )
    weight = one.keypoints[:, 2].clip(0, 1)
    return float((np.minimum(off, _MOST) * weight).sum() / max(float(weight.sum()), 1e-6))


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


def fitted_to_pins(
    people: Sequence[Person],
    edited: Sequence[Edited],
    K: Float[np.ndarray, "3 3"],
    body: BodyModel,
    shape: bool = True,
) -> list[Person]:
    """The people fitted to their pinned joints; those without pins, or whose fit is not finite, as they are.

    Without the model, so faster than `correct`: from the last result it follows a joint while that is dragged.
    shape=False: betas stay.
    """
    rows = [i for i, one in enumerate(edited) if one.pixels or one.points]
    result = list(people)
    if not rows:
        return result
    observed = _observed([people[i] for i in rows], [edited[i] for i in rows], K, body.faces.device)
    posterior = Posterior(body)
    at = posterior.most_probable(observed, shape=shape)
    fresh = with_bodies([people[i] for i in rows], *posterior.body_at(observed, at), body, K)
    for i, person, numbers in zip(rows, fresh, at, strict=True):
        if torch.isfinite(numbers).all() and np.isfinite(person.vertices).all():
            result[i] = person
    return result


def _observed(
    people: Sequence[Person], edited: Sequence[Edited], K: Float[np.ndarray, "3 3"], device: torch.device
) -> Observed:
    observed = observed_people(people, [one.keypoints for one in edited], K, device)
    pixels, pinned = torch.zeros_like(observed.keypoints), torch.zeros_like(observed.weights)
    points, placed = torch.zeros_like(observed.points), torch.zeros_like(observed.weights)
    for i, (person, one) in enumerate(zip(people, edited, strict=True)):
        crop = Crop.around(person.box, EXPAND)
        for joint, at in one.pixels.items():
            pixels[i, joint] = torch.from_numpy(crop.to_crop(np.array(at, np.float64)))
            pinned[i, joint] = 1
        for joint, point in one.points.items():
            points[i, joint] = torch.tensor(point)
            placed[i, joint] = 1
    free = 1 - torch.maximum(pinned, placed)
    return replace(
        observed, weights=observed.weights * free, pixels=pixels, pinned=pinned, points=points, placed=placed
    )


def observed_people(
    people: Sequence[Person],
    keypoints: Sequence[Float[np.ndarray, "30 3"]],
    K: Float[np.ndarray, "3 3"],
    device: torch.device,
) -> Observed:
    """Predicted people with keypoints (JOINTS30, x y confidence, image px) as what a posterior is of."""
    cameras, places, weights = list[Tensor](), list[Tensor](), list[Tensor]()
    middles = [JOINTS30.index(name) for name in ("Pelvis", "Neck")]
    for person, rows in zip(people, keypoints, strict=True):
        crop = Crop.around(person.box, EXPAND)
        shift = np.array(
            [[crop.scale, 0, -crop.x1 * crop.scale], [0, crop.scale, -crop.y1 * crop.scale], [0, 0, 1]]
        )
        cameras.append(torch.from_numpy(shift @ K))
        visible = rows[:, 2].clip(0, 1) * np.isfinite(rows[:, :2]).all(1)
        visible[middles] = 0  # detectors' are the middles of hips and shoulders: they say nothing new
        weights.append(torch.from_numpy(visible))
        places.append(
            torch.from_numpy(np.where(visible[:, None] > 0, crop.to_crop(rows[:, :2].astype(float)), 0))
        )
    vectors = np.stack([np.concatenate([p.global_orient, p.body_pose]) for p in people]).reshape(-1, 24, 3)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device, torch.float32)

    return Observed.of_keypoints(
        rotation_matrix(tensor(vectors)),
        tensor(np.stack([p.betas for p in people])),
        tensor(np.stack([p.transl for p in people])),
        torch.stack(cameras).to(device, torch.float32),
        tensor(np.stack([p.joint_sigma for p in people])),
        torch.stack(places).to(device, torch.float32),
        torch.stack(weights).to(device, torch.float32),
    )


@torch.no_grad()
def with_bodies(
    people: Sequence[Person],
    rotations: Float[Tensor, "b 24 3 3"],
    betas: Float[Tensor, "b 10"],
    transl: Float[Tensor, "b 3"],
    body: BodyModel,
    K: Float[np.ndarray, "3 3"],
) -> list[Person]:
    """The people with other bodies. As postprocess does it, the vertices are those of the stored axis-angle numbers."""
    vectors = axis_angle(rotations.float())
    vertices = body(betas, rotation_matrix(vectors)).vertices + transl[:, None]
    joints = body.regress(vertices, "joints30")
    turns, shapes, places, meshes, points = (
        array.float().cpu().numpy() for array in (vectors, betas, transl, vertices, joints)
    )
    return [
        replace(
            person,
            global_orient=turns[i, 0],
            body_pose=turns[i, 1:].reshape(-1),
            betas=shapes[i],
            transl=places[i],
            vertices=meshes[i],
            joints3d=points[i],
            joints2d=project(points[i], K).astype(np.float32),
        )
        for i, person in enumerate(people)
    ]
