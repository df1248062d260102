"""Samples without an image: the keypoint path is trained on thousands of them per second."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray

from dpmesh.data.detector_noise import detected
from dpmesh.data.noise import detector_like, joints30_of, posefix
from dpmesh.data.sample import Batch
from dpmesh.data.synthetic.bodies import PoseSource
from dpmesh.data.synthetic.body import FastBody
from dpmesh.data.synthetic.scene import OTHERS, SIZE, Scenes, draw_scenes, project
from dpmesh.skeletons import COCO17, JOINTS30, SMPL_PARENTS

_COCO_ROWS = np.array(COCO17.indices_in(JOINTS30))
_BEYOND = np.array([joint not in (*COCO17.joints, "Pelvis", "Neck") for joint in JOINTS30.joints])
_J = JOINTS30.index
_F32 = np.float32


def keypoints_only(
    rng: np.random.Generator, n: int, bank: PoseSource, body: FastBody, detector_noise: float = 0.0
) -> Batch:
    """n samples as arrays by the names of record.Sample's fields, without "crop"; has_image is 0.

    The same people, cameras and noise as the images have (`describe`); what hides a joint is drawn at random.
    """
    scenes = draw_scenes(rng, n, bank, body)
    hidden = guess_hidden(rng, scenes)
    return {
        "record_id": [f"synthetic-keypoints/{row}" for row in range(n)],  # the step identifies the batch
        **describe(rng, scenes, hidden, detector_noise),
        "surface_valid": np.zeros(n, _F32),
        "has_image": np.zeros(n, _F32),
    }


def describe(
    rng: np.random.Generator,
    scenes: Scenes,
    hidden: Bool[NDArray[np.bool_], "n 30"],
    detector_noise: float = 0.0,
) -> Batch:
    """Targets and noisy inputs of scenes. hidden: joints of the 30-set that something covers. detector_noise: share of
    the people whose keypoints have the errors of `detector_noise.detected` in place of PoseFix's."""
    people, focal = scenes.people, scenes.focal
    n = len(focal)
    joints3d = people.joints + scenes.transl[:, None]
    joints2d = project(joints3d, focal)
    inside = _within(joints2d, scenes.frame)
    coco2d, coco_inside, area, near, near_flags = input_truth(scenes)
    # A labelled joint is one inside the image: the rates depend on how many there are.
    noisy = posefix(rng, coco2d, coco_inside.astype(_F32), area, near, near_flags)
    careful = rng.random(n) < 0.15  # some detections are simply good
    slight = coco2d + rng.standard_normal(coco2d.shape) * (0.015 * np.sqrt(area))[:, None, None]
    points = np.where(careful[:, None, None], slight, noisy.points)
    flags = np.where(careful[:, None], 1, noisy.flags)
    points, flags = detector_like(rng, points, flags, hidden[:, _COCO_ROWS], coco_inside, area)
    like_ours = rng.random(n) < detector_noise if detector_noise else np.zeros(n, bool)
    if like_ours.any():
        who = np.flatnonzero(like_ours)
        at, confident = detected(
            rng,
            coco2d[who],
            coco_inside[who],
            hidden[who][:, _COCO_ROWS],
            area[who],
            near[who],
            near_flags[who],
        )
        points[who], flags[who] = at, confident
    joints, visible = joints30_of(points, flags)

    # A detector with more joints than COCO's: the others are input too.
    more = (
        ((rng.random(n) < 0.25) & ~like_ours)[:, None]
        & _BEYOND
        & inside
        & (rng.random((n, 30)) < np.where(hidden, 0.3, 0.8))
    )
    extra = joints2d + rng.standard_normal(joints2d.shape) * (0.03 * np.sqrt(area))[:, None, None]
    more &= ((extra >= 0) & (extra < SIZE)).all(-1)
    return {
        "joints": np.where(more[..., None], extra, joints).astype(_F32),
        "visible": np.where(more, 1, visible).astype(_F32),
        "focal": focal,
        "diagonal": scenes.diagonal,
        "to_image": np.tile(np.eye(3, dtype=_F32), (n, 1, 1)),  # the crop is the middle of its image
        "joints2d": joints2d,
        "joints3d": joints3d,
        "pose": people.pose,
        "betas": people.betas,
        "transl": scenes.transl,
        "joint_visible": (inside & ~hidden).astype(_F32),
        # Generated people are fully known: all masks are 1, and the body is its own fit.
        "joints2d_valid": np.ones((n, 30), _F32),
        "joints3d_valid": np.ones((n, 30), _F32),
        "pose_valid": np.ones((n, 24), _F32),
        "betas_valid": np.ones(n, _F32),
        "fit_joints2d": joints2d,
        "fit_joints3d": joints3d,
        "fit_valid": np.ones(n, _F32),
    }


class InputTruth(NamedTuple):
    """COCO-17 joints that input keypoints are drawn from. points, near: px; area: px² of the joints' box; inside:
    in the image; near: joints of others whose boxes overlap the person's, near_flags: which are inside."""

    points: Float32[NDArray[np.float32], "n 17 2"]
    inside: Bool[NDArray[np.bool_], "n 17"]
    area: Float32[NDArray[np.float32], "n"]
    near: Float32[NDArray[np.float32], "n k 17 2"]
    near_flags: Float32[NDArray[np.float32], "n k 17"]


def input_truth(scenes: Scenes) -> InputTruth:
    """The scenes' true joints, as noise models take them."""
    points = project(scenes.people.coco + scenes.transl[:, None], scenes.focal)
    area = np.prod(np.ptp(points, axis=1), axis=1)
    return InputTruth(points, _within(points, scenes.frame), area, *_neighbours(scenes, points))


def guess_hidden(rng: np.random.Generator, scenes: Scenes) -> Bool[NDArray[np.bool_], "n 30"]:
    """Which joints might be covered: by the own torso and head, by objects, by the other person."""
    joints = scenes.people.joints + scenes.transl[:, None]
    pixels = project(joints, scenes.focal)
    n = len(joints)
    hidden = _behind_torso(joints, pixels) | _turned_away(joints)

    low, high = pixels.min(1), pixels.max(1)
    # Rates that bring each joint's share near the rendered stream's (docs/guide/data.md has both).
    for chance in OBJECTS:
        size = (high - low) * rng.uniform(0.15, 0.7, (n, 2))
        middle = low + (high - low) * rng.random((n, 2))
        covered = (np.abs(pixels - middle[:, None]) < size[:, None] / 2).all(-1)
        hidden |= covered & (rng.random(n) < chance)[:, None]
    below = (pixels[..., 1] > (low[:, 1] + (high - low)[:, 1] * rng.uniform(0.3, 0.9, n))[:, None]) & (
        rng.random(n) < 0.2
    )[:, None]  # a table, a counter, a wall
    hidden |= _SKIRTED & (rng.random((n, 1)) < SKIRTS)
    limb = rng.integers(1, 24, n)
    limb_hidden = _DESCENDANTS[limb] & (rng.random(n) < 0.2)[:, None]

    of = scenes.other_of
    others2d = project(scenes.others.joints + scenes.other_transl[:, None], scenes.focal[of])
    front = scenes.other_transl[:, 2] < scenes.transl[of, 2]
    a, b = (np.quantile(others2d, q, axis=1) if len(of) else np.zeros((0, 2)) for q in (0.15, 0.85))
    crossed = ((pixels[of] > a[:, None]) & (pixels[of] < b[:, None])).all(-1) & front[:, None]
    np.logical_or.at(hidden, of, crossed)
    return hidden | below | limb_hidden


def _neighbours(
    scenes: Scenes, coco2d: Float32[NDArray[np.float32], "n 17 2"]
) -> tuple[Float32[NDArray[np.float32], "n k 17 2"], Float32[NDArray[np.float32], "n k 17"]]:
    """COCO joints of the others whose boxes overlap the person's, and which of them are inside the image."""
    of = scenes.other_of
    points = np.zeros((len(coco2d), len(OTHERS) - 1, 17, 2), _F32)
    flags = np.zeros(points.shape[:3], _F32)
    if len(of):
        place = np.arange(len(of)) - np.searchsorted(of, of)  # the how-manieth of its sample
        others2d = project(scenes.others.coco + scenes.other_transl[:, None], scenes.focal[of])
        near = _overlap(coco2d[of], others2d) >= 0.1
        points[of, place] = others2d
        flags[of, place] = _within(others2d, scenes.frame[of]) & near[:, None]
    return points, flags


def _behind_torso(
    joints: Float32[NDArray[np.float32], "n 30 3"], pixels: Float32[NDArray[np.float32], "n 30 2"]
) -> NDArray[np.bool_]:
    """Arms and legs that lie behind the quadrilateral between shoulders and hips."""
    hip, neck = (pixels[:, _J("L_Hip")] + pixels[:, _J("R_Hip")]) / 2, pixels[:, _J("Neck")]
    across = pixels[:, _J("L_Shoulder")] - pixels[:, _J("R_Shoulder")]
    up = neck - hip
    u = ((pixels - hip[:, None]) * up[:, None]).sum(-1) / np.maximum((up * up).sum(-1), 1e-6)[:, None]
    normal = np.stack([-up[:, 1], up[:, 0]], 1) / np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-6)
    v = np.abs(((pixels - hip[:, None]) * normal[:, None]).sum(-1))
    half = np.abs((across * normal).sum(-1)) / 2 + 0.12 * np.linalg.norm(up, axis=1)
    depth = (joints[:, _J("Neck"), 2] + joints[:, _J("Pelvis"), 2]) / 2
    return (u > -0.1) & (u < 1.05) & (v < half[:, None]) & (joints[..., 2] > depth[:, None] + 0.15) & _LIMBS


def _turned_away(joints: Float32[NDArray[np.float32], "n 30 3"]) -> NDArray[np.bool_]:
    """Nose, eyes and ears on the far side of the head."""
    middle = (joints[:, _J("L_Ear"), 2] + joints[:, _J("R_Ear"), 2]) / 2
    return (joints[..., 2] > middle[:, None] + 0.02) & _FACE


def _within(
    points: Float32[NDArray[np.float32], "n k 2"], frame: Float32[NDArray[np.float32], "n 4"]
) -> NDArray[np.bool_]:
    return np.asarray(((points >= frame[:, None, :2]) & (points <= frame[:, None, 2:] - 1)).all(-1))


def _overlap(
    a: Float[NDArray[np.floating], "n 17 2"], b: Float[NDArray[np.floating], "n 17 2"]
) -> NDArray[np.floating]:
    """Intersection over union of the tight boxes."""
    low, high = np.maximum(a.min(1), b.min(1)), np.minimum(a.max(1), b.max(1))
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    return shared / np.maximum(
        np.prod(np.ptp(a, axis=1), axis=1) + np.prod(np.ptp(b, axis=1), axis=1) - shared, 1e-6
    )


def _descendants() -> NDArray[np.bool_]:
    """Row j: the joints of the 30-set that hang on joint j, itself included; the face hangs on the head."""
    parents = (*SMPL_PARENTS, *([_J("Head")] * 6))
    out = np.eye(30, dtype=bool)
    for child in range(1, 30):
        out[:, child] |= out[:, parents[child]]
    return out


OBJECTS = (0.6, 0.35, 0.2)  # probabilities of things before the person
SKIRTS = 0.1  # long ones, which knees hang deep under
_SKIRTED = np.array([joint.endswith("Knee") for joint in JOINTS30.joints])
_DESCENDANTS = _descendants()
_FACE = np.array([joint.endswith(("Nose", "Eye", "Ear")) for joint in JOINTS30.joints])
_LIMBS = np.array(
    [joint.endswith(("Elbow", "Wrist", "Hand", "Knee", "Ankle", "Toe")) for joint in JOINTS30.joints]
)
