"""Feet on the floor: translations by which standing feet neither slide nor sink.

Depth is the least certain coordinate, so whether a foot rests is first read in the image. A track's translations are
then solved together, by linear least squares: near those that put the body onto the image, smooth, and with standing
feet that stay where they are. A translation's change drifts, so that a track which is too far away stays so.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, vstack
from scipy.sparse.linalg import spsolve

from dpmesh.geometry.floor import FEET, SOLE
from dpmesh.video.tracks import Ground, Tracks

STILL = 0.35
"""Metres a second, across the line of sight: a foot that is slower rests."""
ACROSS, ALONG = 0.02, 0.3
"""Metres: by how much a translation may move across and along the line of sight."""
DRIFT, BEND = 0.6, 8.0
"""Metres a second, and a second squared: how fast the translations' change may become another."""
LOOSE, ROUNDS = 0.04, 6
"""Metres from frame to frame beyond which a foot does not stand after all, and how often that is decided."""
SLIP, SINK = 0.003, 0.1
"""Metres: of a standing foot, from frame to frame, and from its height above the floor."""
ON_FLOOR = 0.3
"""Metres from the floor up to which a standing foot stands on it: farther away it stands on something else."""


def in_image(feet: Float[np.ndarray, "t 4 3"], time: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 4"]:
    """Speed across the line of sight, metres a second. feet: camera frame, metres; of at least two frames."""
    depth = np.maximum(feet[..., 2:], 0.1)
    step = np.maximum(np.gradient(time), 1e-3)[:, None]
    return np.linalg.norm(np.gradient(feet[..., :2] / depth, axis=0), axis=-1) * depth[..., 0] / step


def in_space(feet: Float[np.ndarray, "t 4 3"], time: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 4"]:
    """Speed, metres a second: the lower one of from the frame before and to the next. Of at least two frames."""
    speed = np.linalg.norm(np.diff(feet, axis=0), axis=-1) / np.maximum(np.diff(time), 1e-3)[:, None]
    return np.minimum(np.concatenate([speed, speed[-1:]]), np.concatenate([speed[:1], speed]))


def still(feet: Float[np.ndarray, "t 4 3"], time: Float[np.ndarray, " t"]) -> Bool[np.ndarray, "t 4"]:
    """Feet that rest in the image."""
    return in_image(feet, time) < STILL if len(feet) > 1 else np.zeros(feet.shape[:2], bool)


def planted(
    tracks: Tracks,
    rows: NDArray[np.int64],
    touching: Bool[np.ndarray, "t 4"],
    ground: Ground | None,
    within: float = ON_FLOOR,
) -> Float[np.ndarray, "t 3"]:
    """Change of each row's translation, metres, camera frame, by which standing feet keep their place, and their height
    above the floor, if there is one. within: metres from it."""
    count = len(rows)
    if not touching.any() or count < 3:
        return np.zeros((count, 3))
    feet = tracks.joints3d[rows][:, FEET].astype(np.float64)
    sight = tracks.joints3d[rows, 0].astype(np.float64)
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    away = np.eye(3) - sight[:, :, None] * sight[:, None]
    solid = [_blocks(np.arange(count), away / ACROSS + sight[:, :, None] * sight[:, None] / ALONG, count)]
    wanted = [np.zeros(3 * count)]
    step = float(np.median(np.diff(tracks.time[rows])))
    middle = np.arange(1, count - 1)
    bend = np.eye(3) / (BEND * step**2)
    before, here, after = (_blocks(middle + k, bend, count) for k in (-1, 0, 1))
    solid.append(before - 2 * here + after)
    wanted.append(np.zeros(3 * len(middle)))
    steady = np.eye(3) / (DRIFT * step)
    solid.append(_blocks(np.arange(1, count), steady, count) - _blocks(np.arange(count - 1), steady, count))
    wanted.append(np.zeros(3 * (count - 1)))
    for foot in range(touching.shape[1] if ground is not None else 0):
        assert ground is not None
        above = ground.heights(feet[:, foot]) - SOLE[foot]
        on = np.flatnonzero(touching[:, foot] & (np.abs(above) < within))
        solid.append(_blocks(on, ground.up[None] / SINK, count))
        wanted.append(-above[on] / SINK)
    shift, steps = np.zeros((count, 3)), np.diff(feet, axis=0)
    pairs = [np.flatnonzero(touching[:-1, foot] & touching[1:, foot]) for foot in range(touching.shape[1])]
    for _ in range(ROUNDS):
        system, right = list(solid), list(wanted)
        for foot, stays in enumerate(pairs):
            slip = np.linalg.norm(steps[stays, foot] + shift[stays + 1] - shift[stays], axis=1)
            held = (np.eye(3) / SLIP) / (1 + (slip / LOOSE) ** 2)[:, None, None]  # Geman and McClure
            system.append(_blocks(stays + 1, held, count) - _blocks(stays, held, count))
            right.append(-np.einsum("nab,nb->na", held, steps[stays, foot]).ravel())
        matrix = csc_array(vstack(system))
        solved = spsolve(csc_array(matrix.T @ matrix), matrix.T @ np.concatenate(right))
        shift = np.asarray(solved, np.float64).reshape(count, 3)
    return shift


def _blocks(frames: NDArray[np.int64], values: Float[np.ndarray, "*n r 3"], count: int) -> csr_array:
    """Rows with r × 3 values at the columns of each of `frames`; the same values for all, or one a frame."""
    values = np.broadcast_to(values, (len(frames), *values.shape[-2:]))
    height = values.shape[1]
    row = np.arange(len(frames) * height).reshape(len(frames), height, 1)
    column = 3 * frames[:, None, None] + np.arange(3)
    row, column = np.broadcast_to(row, values.shape), np.broadcast_to(column, values.shape)
    return csr_array((values.ravel(), (row.ravel(), column.ravel())), (len(frames) * height, 3 * count))


def runs(flags: Bool[np.ndarray, " t"]) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
