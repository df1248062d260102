"""Predicted bodies as most probable ones (posterior.py): fitted to pinned joints, and onto a floor."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.body.layer import BodyModel
from dpmesh.geometry.camera import project
from dpmesh.geometry.crop import Crop
from dpmesh.geometry.floor import FEET, SOLE
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.inference.edited import Edited
from dpmesh.inference.floors import Standing
from dpmesh.inference.posterior import Observed, Posterior
from dpmesh.inference.preprocess import EXPAND
from dpmesh.inference.scene_data import Person
from dpmesh.skeletons import JOINTS30


def fitted_to_pins(
    people: Sequence[Person],
    edited: Sequence[Edited],
    K: Float[np.ndarray, "3 3"],
    body: BodyModel,
    shape: bool = True,
    standing: Standing | None = None,
) -> list[Person]:
    """The people fitted to their pinned joints, and onto the floor where there is one; others, and those whose fit is
    not finite, as they are.

    Without the model, so faster than `correct`: from the last result it follows a joint while that is dragged.
    shape=False: betas stay.
    """
    rows = [i for i, one in enumerate(edited) if standing is not None or one.pixels or one.points]
    result = list(people)
    if not rows:
        return result
    observed = _observed([people[i] for i in rows], [edited[i] for i in rows], K, body.faces.device)
    if standing is not None:
        observed = _on(observed, standing)
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


def _on(observed: Observed, standing: Standing) -> Observed:
    """With a floor: the feet that stand have their height, the others are not below it."""
    floor = torch.tensor([*standing.floor.up, standing.floor.height])
    feet, solid, soles = (torch.zeros_like(observed.weights) for _ in range(3))
    feet[:, FEET] = torch.from_numpy(standing.feet).to(feet)
    solid[:, FEET], soles[:, FEET] = 1.0, torch.tensor(SOLE).to(soles)
    floors = floor.to(observed.floor).expand_as(observed.floor)
    return replace(observed, floor=floors, standing=feet, solid=solid, soles=soles)


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
