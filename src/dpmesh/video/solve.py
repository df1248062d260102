"""Tracks over time, offline: short gaps filled, one shape a track, motion smoothed, bodies kept on the image."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.body.layer import BodyModel
from dpmesh.geometry.camera import project
from dpmesh.skeletons import SMPL_PARENTS
from dpmesh.video.feet import ON_FLOOR, planted, runs
from dpmesh.video.ground import NO_FLOOR, find_ground, own_ground
from dpmesh.video.legs import reaching
from dpmesh.video.smooth import place_in_image, smooth_rotations
from dpmesh.video.stance import contacts
from dpmesh.video.tracker import BIRTH
from dpmesh.video.tracks import ROW_SHAPES, Ground, Tracks

LONGEST_GAP = 1.0
"""Seconds without a detection that are filled."""
APART = 0.25
"""Seconds of a gap that sets a few detections at the end of a track apart."""
EDGE, HALF_LEFT, HARDLY = 2.0, 0.6, 0.33
"""Of a person who leaves the image: pixels from its edge; share of the keypoints' usual confidence below which rows are
left out, in a stretch that falls below the last one."""
LEAVING = 2.0
"""Seconds: less than the margin of a window (windows.py), whose ends are not those of the track."""
SURE = 0.06
"""Metres: a joint of this sigma is smoothed with weight 1."""
_NEAREST = 0.05
"""Metres: depth of a joint at or behind the camera."""
_LEAST, _MOST = 0.05, 4.0
"""Range of the weights; a frame of a gap has the least, so that it does not leave the arc."""


def solve_tracks(tracks: Tracks, body: BodyModel, static_camera: bool = False) -> Tracks:
    """The same people with gaps of up to LONGEST_GAP filled (`interpolated`), without strays, and everything smoothed.

    static_camera: standing feet keep their places, and the floor is estimated.

    Between two frames of a gap rotations go along the shortest arc, the rest in a straight line.
    """
    rows: dict[str, list[NDArray[Any]]] = {name: [] for name in ROW_SHAPES}
    shapes: list[NDArray[np.float32]] = []
    for number in tracks.numbers:
        own = tracks.of(int(number))
        shapes.append(tracks.betas_of(own[:1])[0])
        for part in _parts(tracks, own):
            sure = without_strays(part, tracks.time[part])
            confidence, time = tracks.keypoints2d[sure, :, 2], tracks.time[sure]
            sure = sure[staying(confidence, tracks.box[sure], time, tracks.image_size)]
            for name, values in _solved(tracks, sure, shapes[-1], body).items():
                rows[name].append(values)
    empty = {name: getattr(tracks, name)[:0] for name in ROW_SHAPES}
    columns = {
        name: np.concatenate([empty[name], *parts]).astype(empty[name].dtype) for name, parts in rows.items()
    }
    order = np.lexsort((columns["track"], columns["frame"]))
    betas = np.asarray(shapes, np.float32).reshape(-1, 10)
    solved = replace(tracks, **{name: values[order] for name, values in columns.items()}, betas=betas)
    return on_feet(solved, body) if static_camera else solved


def on_feet(tracks: Tracks, body: BodyModel) -> Tracks:
    """Of a camera that stands still: with the floor, if there is one (else with a note), with contacts, and with the
    translations and legs by which standing feet stay where they are."""
    ground = find_ground(tracks)
    if ground is None:
        tracks = tracks.with_notes((*tracks.notes, NO_FLOOR))
    return on_floor(tracks, ground, body)


def on_floor(tracks: Tracks, ground: Ground | None, body: BodyModel, everyone: bool = False) -> Tracks:
    """The same with a floor that is given; None: each track's feet keep their place at its own level.

    everyone: feet stand on this floor, however far from it they are; else those nearby.
    """
    parts: list[tuple[NDArray[np.int64], Ground]] = []
    for number in tracks.numbers:
        for own in _parts(tracks, tracks.of(int(number))):
            level = (own_ground(tracks, own) or ground) if everyone else (ground or own_ground(tracks, own))
            if level is not None:
                parts.append((own, level))
    shift = np.zeros((len(tracks.frame), 3), np.float32)
    for own, level in parts:
        shift[own] = planted(
            tracks, own, contacts(tracks, own, level), ground, np.inf if everyone else ON_FLOOR
        )
    moved = replace(
        tracks, transl=tracks.transl + shift, joints3d=tracks.joints3d + shift[:, None], ground=ground
    )
    touching, pose, joints3d = np.zeros_like(tracks.contacts), tracks.body_pose.copy(), moved.joints3d.copy()
    for own, level in parts:
        touching[own] = contacts(moved, own, level, solved=True)
        vectors = np.concatenate([tracks.global_orient[own], tracks.body_pose[own]], 1).reshape(-1, 3)
        matrices = Rotation.from_rotvec(vectors).as_matrix().reshape(len(own), 24, 3, 3)
        matrices = reaching(moved.joints3d[own].astype(np.float64), matrices, touching[own])
        turns = Rotation.from_matrix(matrices[:, 1:].reshape(-1, 3, 3)).as_rotvec()
        pose[own] = turns.reshape(len(own), 69)
        joints3d[own] = posed_joints(body, tracks.betas_of(own[:1])[0], matrices) + moved.transl[own, None]
    return replace(
        moved, body_pose=pose, joints3d=joints3d, joints2d=pixels_of(joints3d, tracks.K), contacts=touching
    )


def pixels_of(
    points: Float[np.ndarray, "t 30 3"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "t 30 2"]:
    """Projections; a joint at or behind the camera is taken at its nearest depth."""
    before = points.copy()
    before[..., 2] = np.maximum(before[..., 2], _NEAREST)
    return project(before.reshape(-1, 3), K).reshape(*points.shape[:2], 2).astype(np.float32)


def _parts(tracks: Tracks, own: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Runs of rows without a gap longer than LONGEST_GAP."""
    breaks = np.flatnonzero(np.diff(tracks.time[own]) > LONGEST_GAP) + 1
    yield from np.split(own, breaks)


def without_strays(own: NDArray[np.int64], time: Float[np.ndarray, " t"]) -> NDArray[np.int64]:
    """Rows of a track without one or two detections alone at either end, after or before a gap: seldom the person."""
    runs = np.split(own, np.flatnonzero(np.diff(time) > APART) + 1)
    while len(runs) > 1 and min(len(runs[0]), len(runs[-1])) < BIRTH:
        runs = runs[:-1] if len(runs[-1]) <= len(runs[0]) else runs[1:]
    return np.concatenate(runs)


def staying(
    confidence: Float[np.ndarray, "t 17"],
    box: Float[np.ndarray, "t 4"],
    time: Float[np.ndarray, " t"],
    image_size: tuple[int, int],
) -> Bool[np.ndarray, " t"]:
    """Rows of a track without those at either end in which the person comes into the image or leaves it, at its edge,
    and is hardly in sight: bodies turn about there. All rows where that lasts longer than LEAVING, or few are left."""
    share = confidence.mean(1) / max(float(np.quantile(confidence.mean(1), 0.75)), 1e-6)
    height, width = image_size
    cut = (box[:, :2] <= EDGE).any(1) | (box[:, 2] >= width - EDGE) | (box[:, 3] >= height - EDGE)
    stays = np.ones(len(share), bool)
    for start, end in runs(cut & (share < HALF_LEFT)):
        short = time[end - 1] - time[start] <= LEAVING
        if (start == 0 or end == len(share)) and short and share[start:end].min() < HARDLY:
            stays[start:end] = False
    return stays if stays.sum() >= BIRTH else np.ones(len(share), bool)


def _solved(
    tracks: Tracks, own: NDArray[np.int64], betas: NDArray[np.float32], body: BodyModel
) -> dict[str, NDArray[Any]]:
    step = int(np.median(np.diff(tracks.frame[own]))) if len(own) > 1 else 1
    frames = np.arange(int(tracks.frame[own[0]]), int(tracks.frame[own[-1]]) + 1, max(step, 1))
    frames = np.union1d(frames, tracks.frame[own])
    at = np.searchsorted(frames, tracks.frame[own])
    detected = np.zeros(len(frames), bool)
    detected[at] = True
    old = {name: getattr(tracks, name)[own] for name in ROW_SHAPES}
    filled: dict[str, NDArray[Any]] = {
        name: _fill(frames, tracks.frame[own], values) for name, values in old.items()
    }
    vectors = np.concatenate([old["global_orient"], old["body_pose"]], 1).reshape(len(own), 24, 3)
    matrices = _arcs(frames, tracks.frame[own], vectors)
    sigma = np.where(np.isfinite(filled["joint_sigma"]), filled["joint_sigma"], SURE)
    rate = tracks.fps / max(step, 1)
    weights = np.clip((SURE / np.maximum(moved_by(sigma), 1e-3)) ** 2, _LEAST, _MOST)
    weights[~detected] = _LEAST
    if len(frames) >= 3:
        matrices = smooth_rotations(matrices, weights, rate)
    turns = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(len(frames), 24, 3)
    joints = posed_joints(body, betas, matrices)
    focal = float(tracks.K[[0, 1], [0, 1]].mean())
    depth = filled["transl"][:, 2:] + joints[:, :, 2]
    error = focal * np.maximum(sigma, 0.02) / np.maximum(depth, 0.3)
    inverse = detected[:, None] / np.maximum(error, 1.0) ** 2
    transl = place_in_image(joints, filled["joints2d"], inverse, tracks.K, filled["transl"], rate)
    joints3d = (joints + transl[:, None]).astype(np.float32)
    filled |= {
        "frame": frames,
        "track": np.full(len(frames), tracks.track[own[0]]),
        "interpolated": ~detected,
        "global_orient": turns[:, 0],
        "body_pose": turns[:, 1:].reshape(len(frames), 69),
        "transl": transl,
        "joints3d": joints3d,
        "joints2d": pixels_of(joints3d, tracks.K),
    }
    filled["keypoints2d"][~detected, :, 2] = 0
    return filled


def _fill(
    frames: NDArray[np.int64], known: NDArray[np.int64], values: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Values at all frames, in straight lines between the known ones."""
    flat = np.asarray(values, np.float64).reshape(len(known), -1)
    lines = [np.interp(frames, known, column) for column in flat.T]
    return np.stack(lines, 1).reshape(len(frames), *values.shape[1:])


def _arcs(
    frames: NDArray[np.int64], known: NDArray[np.int64], vectors: Float[np.ndarray, "k 24 3"]
) -> Float[np.ndarray, "t 24 3 3"]:
    """Rotations at all frames, along the shortest arc between the known ones."""
    out = np.empty((len(frames), 24, 3, 3))
    after = np.clip(np.searchsorted(known, frames), 0, len(known) - 1)
    before = np.where(known[after] == frames, after, np.maximum(after - 1, 0))
    span = np.maximum(known[after] - known[before], 1)
    share = ((frames - known[before]) / span)[:, None]
    for joint in range(24):
        first = Rotation.from_rotvec(vectors[before, joint])
        change = (first.inv() * Rotation.from_rotvec(vectors[after, joint])).as_rotvec()
        out[:, joint] = (first * Rotation.from_rotvec(share * change)).as_matrix()
    return out


def moved_by(sigma: Float[np.ndarray, "t 30"]) -> Float[np.ndarray, "t 24"]:
    """Of each joint's rotation: the mean sigma of the joints that it moves directly (its own at the end of a limb).
    The root moves hips and shoulders."""
    children = [
        [k for k, parent in enumerate(SMPL_PARENTS) if parent == joint] or [joint] for joint in range(24)
    ]
    children[0] = [1, 2, 16, 17]
    return np.stack([sigma[:, rows].mean(1) for rows in children], 1)


@torch.no_grad()
def posed_joints(
    body: BodyModel, betas: NDArray[np.float32], matrices: Float[np.ndarray, "t 24 3 3"]
) -> Float[np.ndarray, "t 30 3"]:
    device = body.faces.device
    parts: list[NDArray[np.float64]] = []
    for start in range(0, len(matrices), 256):
        turns = torch.from_numpy(matrices[start : start + 256]).to(device, torch.float32)
        shape = torch.from_numpy(betas[None]).to(device).expand(len(turns), 10)
        parts.append(body.joints30_only(shape, turns).cpu().numpy().astype(np.float64))
    return np.concatenate(parts)
