"""People smoothed as they come, from the frames up to now only: one-euro filters on rotations, place and keypoints."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.body.layer import BodyModel
from dpmesh.geometry.camera import project
from dpmesh.inference.scene import Person, Scene
from dpmesh.video.one_euro import Cutoff, PointFilter, RotationFilter

ROTATIONS = Cutoff(2.0, 1.0)
"""Per radian a second."""
PLACE = Cutoff(2.0, 12.0)
"""Of the pelvis in the image, x / z and y / z."""
DEPTH = Cutoff(0.5, 8.0)
"""Of the logarithm of the pelvis's depth."""
KEYPOINTS = Cutoff(3.0, 10.0)
"""Per height of the person's box a second."""
FORGET = 0.5
"""Seconds without a person after which the filters begin anew."""
_SHAPE = 0.95
"""Weight of the shape up to now, once it is the mean of many frames."""
_NEAREST = 0.05


class LiveFilter:
    """Filters the scenes of a video in order; one per video. Adds no frame of delay."""

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        self._people: dict[int, _Person] = {}

    def __call__(self, scene: Scene, numbers: list[int], time: float) -> Scene:
        """numbers: each person's track, -1 for none yet: these people are left as they are. time: seconds."""
        people: list[Person] = []
        for person, number in zip(scene.people, numbers, strict=True):
            if number < 0:
                people.append(person)
                continue
            own = self._people.get(number)
            if own is None or not 0 < time - own.time <= FORGET:
                own = self._people[number] = _Person(time)
            people.append(own.filtered(person, time, self.body, scene))
        self._people = {n: own for n, own in self._people.items() if time - own.time <= FORGET}
        return replace(scene, people=tuple(people))


class _Person:
    def __init__(self, time: float) -> None:
        self.time = time
        self.turns, self.place = RotationFilter(ROTATIONS), PointFilter(PLACE)
        self.depth, self.keypoints = PointFilter(DEPTH), PointFilter(KEYPOINTS)
        self.betas: NDArray[np.float64] | None = None
        self.frames = 0

    def filtered(self, person: Person, time: float, body: BodyModel, scene: Scene) -> Person:
        seconds, self.time = time - self.time, time
        self.frames += 1
        vectors = np.concatenate([person.global_orient, person.body_pose]).reshape(24, 3)
        matrices = self.turns(Rotation.from_rotvec(vectors).as_matrix(), seconds)
        old, share = person.betas if self.betas is None else self.betas, max(1 - _SHAPE, 1 / self.frames)
        self.betas = np.asarray(old + share * (person.betas - old), np.float64)
        pelvis = person.joints3d[0].astype(np.float64)
        z = max(float(pelvis[2]), _NEAREST)
        x, y = self.place((pelvis[None, :2] / z), seconds)[0]
        z = float(np.exp(self.depth(np.array([[np.log(z)]]), seconds)[0, 0]))
        vertices, joints = _posed(body, self.betas, matrices)
        transl = np.array([x * z, y * z, z]) - joints[0]
        turned = Rotation.from_matrix(matrices).as_rotvec().astype(np.float32)
        joints3d = (joints + transl).astype(np.float32)
        before = np.concatenate([joints3d[:, :2], np.maximum(joints3d[:, 2:], _NEAREST)], 1)
        return replace(
            person,
            global_orient=turned[0],
            body_pose=turned[1:].reshape(69),
            betas=self.betas.astype(np.float32),
            transl=transl.astype(np.float32),
            vertices=(vertices + transl).astype(np.float32),
            joints3d=joints3d,
            joints2d=project(before, scene.K).astype(np.float32),
            keypoints2d=self._keypoints(person, seconds),
        )

    def _keypoints(self, person: Person, seconds: float) -> NDArray[np.float32]:
        """Those that are not visible stay as they are, and begin anew when they are."""
        height = max(float(person.box[3] - person.box[1]), 1.0)
        points = person.keypoints2d[:, :2] / height
        known = self.keypoints.value
        if known is not None:
            known *= self.height / height
        self.height = height
        filtered = self.keypoints(points, seconds)
        hidden = person.keypoints2d[:, 2] <= 0
        self.keypoints.reset(hidden, points)
        filtered[hidden] = points[hidden]
        return np.concatenate([filtered * height, person.keypoints2d[:, 2:]], 1).astype(np.float32)


@torch.no_grad()
def _posed(
    body: BodyModel, betas: NDArray[np.float64], matrices: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vertices (v, 3) and joints (30, 3) without a translation."""
    device = body.faces.device
    shape, turns = (torch.from_numpy(v[None]).to(device, torch.float32) for v in (betas, matrices))
    posed = body(shape, turns, torch.zeros(1, 3, device=device))
    return posed.vertices[0].cpu().numpy().astype(float), posed.joints30[0].cpu().numpy().astype(float)
