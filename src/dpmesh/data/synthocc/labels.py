"""Labels of a scene: the ground truth and simulated keypoints, rounded, as plain arrays with a checksum."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray

from dpmesh.data.noise import detector_like, joints30_of, posefix
from dpmesh.data.synthocc.bodies import DIGITS, People
from dpmesh.data.synthocc.drawing import own_depth
from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.patterns import Array
from dpmesh.data.synthocc.scenes import Standing, SynthOccScene, box_of
from dpmesh.geometry import CROP
from dpmesh.skeletons import COCO17, JOINTS30

_NOISE = 50
"""Third number of the keys of the noise's draws, plus the level."""
_COCO = np.array(COCO17.indices_in(JOINTS30))
_DROP_HIDDEN, _DROP_ANY = 0.5, 0.1
_FACE, _TRUNK = (
    ("Nose", "Eye", "Ear"),
    ("Pelvis", "Hip", "Torso", "Spine", "Chest", "Neck", "Thorax", "Shoulder"),
)
_INSIDE = np.array(
    [0.06 if j.endswith(_FACE) else 0.28 if j.endswith(_TRUNK) else 0.13 for j in JOINTS30.joints]
)
"""Metres that a joint may lie behind the person's own surface and still be in sight: its depth in the body."""


@dataclass(frozen=True, eq=False)
class Label:
    """One person. pose (axis-angle), betas, transl, focal, frame, box: of the scene. joints3d: the 30-set, metres,
    camera frame; joints2d: crop px.
    hidden: by others, an object or the frame; visible: hidden by nothing, not by the own body either.
    points, detected: simulated 2D keypoints, crop px, and which of them exist (0 elsewhere)."""

    id: str
    pose: Float[Array, "24 3"]
    betas: Float[Array, "10"]
    transl: Float[Array, "3"]
    focal: float
    frame: Float[Array, "4"]
    box: Float[Array, "4"]
    joints3d: Float[Array, "30 3"]
    joints2d: Float[Array, "30 2"]
    hidden: Bool[np.ndarray, "30"]
    visible: Bool[np.ndarray, "30"]
    points: Float[Array, "30 2"]
    detected: Bool[np.ndarray, "30"]


_STEPS = {"pose": "pose", "betas": "betas", "transl": "metres", "focal": "pixels", "frame": "pixels", "box": "pixels",
          "joints3d": "metres", "joints2d": "pixels", "points": "pixels"}  # fmt: skip


def name(number: int, subset: str, level: int) -> str:
    return f"synthocc/{subset}/{number:04d}/{level}"


def label(people: People, scene: SynthOccScene) -> Label:
    assert scene.hidden is not None
    person, pixels = scene.person, scene.pixels(scene.person.joints)
    x, y = np.clip(np.rint(pixels).astype(np.int64), 0, CROP - 1).T
    own = own_depth(people, scene)[y, x] < person.joints[:, 2] - _INSIDE
    visible = ~scene.hidden & ~own & scene.inside(pixels)
    points, detected = _noisy(scene, ~visible)
    return Label(
        id=name(scene.case, scene.subset, scene.level),
        pose=person.figure.pose,
        betas=person.figure.betas,
        transl=person.transl,
        focal=scene.focal,
        frame=np.array(scene.frame, np.float64),
        box=box_of(scene),
        joints3d=person.joints.round(DIGITS["metres"]),
        joints2d=pixels.round(DIGITS["pixels"]),
        hidden=scene.hidden,
        visible=visible,
        points=points.astype(np.float64).round(DIGITS["pixels"]),
        detected=detected > 0,
    )


def _noisy(
    scene: SynthOccScene, hidden: Bool[np.ndarray, "30"]
) -> tuple[Float32[NDArray[np.float32], "30 2"], Float32[NDArray[np.float32], "30"]]:
    """data.noise, as in training, with the rates written down here."""
    rng = Draws(scene.case, scene.attempt, _NOISE + scene.level).generator
    coco = _coco(scene, scene.person)
    inside = scene.inside(coco)
    near = [one for one in (_coco(scene, other) for other in scene.others) if _overlap(coco, one) >= 0.1]
    neighbours = np.stack(near) if near else np.zeros((1, 17, 2))
    flags = np.stack([scene.inside(one) for one in near]) if near else np.zeros((1, 17))
    area = np.array([np.prod(np.ptp(coco, axis=0))])
    noisy = posefix(
        rng,
        coco[None],
        inside[None].astype(np.float64),
        area,
        neighbours[None],
        flags[None].astype(np.float64),
    )
    points, detected = detector_like(
        rng, noisy.points, noisy.flags, hidden[_COCO][None], inside[None], area, _DROP_HIDDEN, _DROP_ANY
    )
    x1, y1, x2, y2 = scene.frame
    # Detectors report nothing outside their input image.
    detected = detected * ((points >= [x1, y1]) & (points <= [x2 - 1, y2 - 1])).all(-1)
    joints, visible = joints30_of(
        points * detected[..., None].astype(np.float32), detected.astype(np.float32)
    )
    return joints[0], visible[0]


def _coco(scene: SynthOccScene, one: Standing) -> Float[Array, "17 2"]:
    return scene.pixels(one.figure.coco + one.transl).round(DIGITS["pixels"])


def _overlap(a: Float[Array, "17 2"], b: Float[Array, "17 2"]) -> float:
    """Intersection over union of the tight boxes."""
    shared = float(np.prod(np.maximum(np.minimum(a.max(0), b.max(0)) - np.maximum(a.min(0), b.min(0)), 0)))
    return shared / max(float(np.prod(np.ptp(a, axis=0)) + np.prod(np.ptp(b, axis=0))) - shared, 1e-6)


def checksum(labels: Iterable[Label]) -> str:
    """SHA-256 over the labels' ids and numbers, each as whole multiples of its step, little-endian."""
    digest = hashlib.sha256()
    for one in labels:
        for field in fields(Label):
            value = getattr(one, field.name)
            if field.name == "id":
                digest.update(value.encode())
                continue
            scaled = (
                np.asarray(value, np.float64) * 10.0 ** DIGITS[_STEPS[field.name]]
                if field.name in _STEPS
                else value
            )
            digest.update(np.rint(np.asarray(scaled, np.float64)).astype("<i8").tobytes())
    return digest.hexdigest()
