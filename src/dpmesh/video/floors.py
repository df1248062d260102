"""The floor that a correction sets for a video: people's tracks stand on it."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.floor import FEET, SOLE
from dpmesh.inference.corrections import Correction
from dpmesh.inference.floors import floor_of
from dpmesh.video.ground import find_ground, ground_of
from dpmesh.video.solve import on_floor
from dpmesh.video.tracks import Ground, Tracks

_ROUNDS, _NEAR = 8, 0.01
"""Times that a track is moved towards the floor at most, and metres of its standing feet from it that are enough."""
_OFF, _MOVED = 0.05, 0.1
"""At most: metres of standing feet from the floor, and share of the box by which joints move in the image."""
_MOVED_COLUMNS = ("transl", "body_pose", "joints3d", "joints2d", "contacts")


def ground_for(step: Correction, tracks: Tracks) -> Ground:
    """The floor of a step. tracks: of the people on it, as the other corrections leave them. Raises InputError."""
    if step.normal is not None:
        return ground_of(floor_of(step, np.zeros((0, 30, 3)), tracks.K))
    if step.pixels is not None:
        if step.frame is None:
            raise InputError("pixels of a video need their frame", where="floor")
        joints = tracks.joints3d[tracks.in_frame(step.frame)].astype(np.float64)
        return ground_of(floor_of(step, joints, tracks.K))
    ground = find_ground(tracks)
    if ground is None:
        raise InputError("the feet show no single floor", where="floor", fix="Give its normal and height.")
    return ground


def rows_on_floor(step: Correction, tracks: Tracks, left: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Those of `left` whose people stand on it. Raises InputError for one who is not there."""
    there = set(tracks.track[left].tolist())
    if step.people is None:
        return left
    if missing := [number for number in step.people if number not in there]:
        raise InputError(f"there is no track {missing[0]}", where="floor")
    return left & np.isin(tracks.track, step.people)


def standing_tracks(tracks: Tracks, ground: Ground, rows: Bool[np.ndarray, " n"], body: BodyModel) -> Tracks:
    """The tracks with the feet of these rows' people on the floor. Raises InputError where they cannot be."""
    part = tracks.with_rows(rows)
    for _ in range(_ROUNDS):
        part = on_floor(part, ground, body, everyone=True)
        if _off(part, ground, np.ones(len(part.track), bool)) < _NEAR:
            break
    shift = np.linalg.norm(part.joints2d - tracks.joints2d[rows], axis=-1)
    size = np.maximum(*(part.box[:, 2:] - part.box[:, :2]).T)
    for number in part.numbers.tolist():
        own = part.track == number
        if _off(part, ground, own) > _OFF or np.median(shift[own] / size[own, None]) > _MOVED:
            raise InputError(
                f"person {number} cannot stand on this floor and be where the video has them",
                where="floor",
                fix="Name those who can as people, or change it.",
            )
    columns = {name: getattr(tracks, name).copy() for name in _MOVED_COLUMNS}
    for name, values in columns.items():
        values[rows] = getattr(part, name)
    return replace(tracks, ground=ground, **columns)


def _off(tracks: Tracks, ground: Ground, rows: Bool[np.ndarray, " n"]) -> float:
    """Median distance of standing feet from their height, metres; 0 where none stands."""
    above = np.abs(ground.heights(tracks.joints3d[rows][:, FEET]) - np.asarray(SOLE))
    touching = tracks.contacts[rows]
    return float(np.median(above[touching])) if touching.any() else 0.0
