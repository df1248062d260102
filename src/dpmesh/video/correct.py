"""Corrections of a video's people: each fits a body in one frame, and spreads to the frames about it.

In a corrected frame the body is fitted to its pinned joints (inference/correct.py), with the shape of its track. What
that changes, a rotation of each joint in its own frame and a translation, fades over time with a normal curve; two
corrections of one track are joined so that each is exact in its frame (interpolation by radial basis functions). Where
a joint's sigma is lower than in the corrected frame it takes less of the change.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.inference.corrections import Correction
from dpmesh.inference.edited import Edited
from dpmesh.inference.floors import Standing, last_floor
from dpmesh.inference.pins import fitted_to_pins
from dpmesh.inference.scene_data import Person
from dpmesh.skeletons import COCO17, JOINTS30, convert
from dpmesh.video.floors import ground_for, rows_on_floor, standing_tracks
from dpmesh.video.solve import moved_by, pixels_of, posed_joints
from dpmesh.video.tracks import Ground, Tracks

SECONDS = 0.25
"""Standard deviation of the curve by which a correction fades."""
_LEAST_SIGMA = 1e-3
"""Metres."""
_LEAST_CHANGE = 1e-6
"""Radians and metres: what changes less stays."""


def correct_tracks(tracks: Tracks, steps: Sequence[Correction], body: BodyModel) -> Tracks:
    """The tracks after all steps; `person` of a step is the track's number. They count from the tracks as they were
    solved, so a shorter list undoes. keypoints2d has the moved joints; contacts stay, unless a floor is set.

    Raises InputError for a track or a frame that does not exist, for tracks that are corrected already, for steps that
    need the images (swap, add: predict those frames as images), and for a floor on which people cannot stand.
    """
    if tracks.corrections:
        raise InputError("are corrected already", where="tracks", fix="Correct them as they were solved.")
    if not steps:
        return tracks
    edited: dict[int, Edited] = {}
    deleted = list[int]()
    for i, step in enumerate(steps):
        if step.op == "floor":
            continue
        row = _row(tracks, step, f"corrections[{i}]")
        if step.op == "delete":
            deleted.append(step.person or 0)
        else:
            if row not in edited:
                keypoints = convert(tracks.keypoints2d[row].copy(), COCO17, JOINTS30)
                edited[row] = Edited(tracks.box[row], keypoints, float(tracks.score[row]))
            edited[row].apply(step, tracks.K)
    left = ~np.isin(tracks.track, deleted)
    result = _fitted(tracks, edited, body)
    if (step := last_floor(steps)) is not None:
        rows = rows_on_floor(step, tracks, left)
        ground = ground_for(step, result.with_rows(rows))
        result = _fitted(standing_tracks(tracks, ground, rows, body), edited, body, ground)
    keypoints = tracks.keypoints2d.copy()
    for row, one in edited.items():
        keypoints[row] = convert(one.keypoints, JOINTS30, COCO17)
    result = replace(result, keypoints2d=keypoints, corrections=tuple(step.as_json() for step in steps))
    return result.with_rows(left) if deleted else result


def _fitted(
    tracks: Tracks, edited: Mapping[int, Edited], body: BodyModel, ground: Ground | None = None
) -> Tracks:
    """With the bodies of these rows fitted to their pinned joints, and those about them moved along. ground: standing
    feet stay on it."""
    rows_of = defaultdict[int, list[int]](list)
    for row in sorted(edited):
        rows_of[int(tracks.track[row])].append(row)
    for rows in rows_of.values():
        tracks = _spread(tracks, rows, [edited[row] for row in rows], body, ground)
    return tracks


def _row(tracks: Tracks, step: Correction, where: str) -> int:
    """The row that a step is of; for delete any of the track. Raises InputError."""
    if step.op in ("swap", "add"):
        fix = "Predict the frame as an image, with its corrections."
        raise InputError(f"{step.op} needs the image, and these are tracks", where=where, fix=fix)
    if step.person is None or step.person not in tracks.numbers:
        listed = ", ".join(map(str, tracks.numbers[:20]))
        raise InputError(f"there is no track {step.person}", where=where, fix=f"There are: {listed}.")
    own = tracks.of(step.person)
    if step.op == "delete":
        return int(own[0])
    if step.frame is None:
        raise InputError(f"{step.op} of a video needs its frame", where=where)
    here = own[tracks.frame[own] == step.frame]
    if not len(here):
        first, last = tracks.frame[own[0]], tracks.frame[own[-1]]
        what = f"track {step.person} has no frame {step.frame}"
        raise InputError(what, where=where, fix=f"It is in frames {first} to {last}.")
    return int(here[0])


def _spread(
    tracks: Tracks, rows: list[int], edited: list[Edited], body: BodyModel, ground: Ground | None
) -> Tracks:
    """One track with its corrected rows fitted, and the frames about them moved along."""
    own = tracks.of(int(tracks.track[rows[0]]))
    people = [_person(tracks, row) for row in rows]
    standing = None
    if ground is not None:
        standing = Standing(ground.floor, tracks.contacts[rows])
    fitted = fitted_to_pins(people, edited, tracks.K, body, shape=False, standing=standing)
    at = np.searchsorted(own, rows)
    vectors = np.concatenate([tracks.global_orient, tracks.body_pose], 1)[own].reshape(len(own), 24, 3)
    new = np.stack([np.concatenate([p.global_orient, p.body_pose]) for p in fitted]).reshape(-1, 24, 3)
    turns = Rotation.from_rotvec(vectors[at].reshape(-1, 3)).inv() * Rotation.from_rotvec(new.reshape(-1, 3))
    shift = np.stack([p.transl for p in fitted]) - tracks.transl[own[at]]
    changes = np.concatenate([turns.as_rotvec().reshape(len(rows), 72), shift], 1)
    share = _interpolation(tracks.time[own], tracks.time[rows]) @ changes.astype(np.float64)
    share = share * _openness(tracks.joint_sigma[own], at, tracks.time[own])
    touched = np.abs(share).max(1) > _LEAST_CHANGE
    share, moved = share[touched], own[touched]
    old = Rotation.from_rotvec(vectors[touched].reshape(-1, 3))
    matrices = (old * Rotation.from_rotvec(share[:, :72].reshape(-1, 3))).as_matrix().reshape(-1, 24, 3, 3)
    turned = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 72)
    transl = tracks.transl[moved] + share[:, 72:]
    joints = np.zeros((0, 30, 3))
    if len(moved):
        joints = posed_joints(body, tracks.betas_of(own[:1])[0], matrices) + transl[:, None]
    columns = {
        "global_orient": turned[:, :3],
        "body_pose": turned[:, 3:],
        "transl": transl,
        "joints3d": joints,
        "joints2d": pixels_of(joints, tracks.K),
    }
    changed = {name: getattr(tracks, name).copy() for name in columns}
    for name, values in columns.items():
        changed[name][moved] = values
    return replace(tracks, **changed)


def _interpolation(
    times: Float[np.ndarray, " t"], known: Float[np.ndarray, " k"]
) -> Float[NDArray[np.float64], "t k"]:
    """Shares of the changes at the known times, one row for each time: 1 and 0 at those, near 0 far from them."""

    def curve(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.exp(-0.5 * np.square((a[:, None] - b[None]) / SECONDS)).astype(np.float64)

    shares = np.linalg.solve(curve(known, known) + 1e-9 * np.eye(len(known)), curve(known, times)).T
    return shares.astype(np.float64)


def _openness(
    sigma: Float[np.ndarray, "t 30"], at: NDArray[np.integer], times: Float[np.ndarray, " t"]
) -> Float[NDArray[np.float64], "t 75"]:
    """How much of a change each rotation and the translation take, by sigma relative to the nearest corrected frame."""
    nearest = at[np.abs(times[:, None] - times[at][None]).argmin(1)]
    moved = np.maximum(moved_by(np.nan_to_num(sigma.astype(np.float64), nan=1.0)), _LEAST_SIGMA)
    share = np.minimum(1.0, np.square(moved / moved[nearest]))
    return np.concatenate([np.repeat(share, 3, axis=1), np.ones((len(sigma), 3))], 1)


def _person(tracks: Tracks, row: int) -> Person:
    betas = tracks.betas_of(np.array([row]))[0]
    return Person(
        box=tracks.box[row],
        keypoints2d=tracks.keypoints2d[row],
        global_orient=tracks.global_orient[row],
        body_pose=tracks.body_pose[row],
        betas=betas,
        transl=tracks.transl[row],
        vertices=np.zeros((0, 3), np.float32),
        joints3d=tracks.joints3d[row],
        joints2d=tracks.joints2d[row],
        score=float(tracks.score[row]),
        joint_sigma=tracks.joint_sigma[row],
    )
