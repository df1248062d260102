"""Feet on the floor: which stand, and translations by which standing feet neither slide nor sink.

Depth is the least certain coordinate, so a foot stands where it rests in the image. A track's translations are then
solved together, by linear least squares: near those that put the body onto the image, smooth, and with standing feet
that stay on the floor.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, vstack
from scipy.sparse.linalg import spsolve

from dpmesh.geometry.floor import FEET, LOWEST, SOLE
from dpmesh.video.tracks import Ground, Tracks

STILL, MAYBE = 0.35, 0.9
"""Metres a second, across the line of sight: a foot that is slower stands, or may stand."""
NEAR = 0.12
"""Metres above the floor up to which a foot may stand, besides the lowest, wherever the floor is."""
ACROSS, ALONG = 0.015, 0.3
"""Metres: by how much a translation may move across and along the line of sight."""
BEND = 8.0
"""Metres a second squared: accelerations that the translations' change may have."""
LOOSE, ROUNDS = 0.01, 6
"""Metres from frame to frame beyond which a foot does not stand after all, and how often that is decided."""
SLIP, SINK = 0.003, 0.03
"""Metres: of a standing foot, from frame to frame, and from its height above the floor."""


def still(
    feet: Float[np.ndarray, "t 4 3"], time: Float[np.ndarray, " t"], below: float = STILL
) -> Bool[np.ndarray, "t 4"]:
    """Feet that rest in the image. feet: camera frame, metres. below: metres a second."""
    if len(feet) < 2:
        return np.zeros(feet.shape[:2], bool)
    depth = np.maximum(feet[..., 2:], 0.1)
    rays = feet[..., :2] / depth
    step = np.maximum(np.gradient(time), 1e-3)[:, None]
    return np.linalg.norm(np.gradient(rays, axis=0), axis=-1) * depth[..., 0] / step < below


def contacts(
    tracks: Tracks, rows: NDArray[np.int64], ground: Ground, below: float = STILL
) -> Bool[np.ndarray, "t 4"]:
    """Which of FEET stand (`Tracks.contacts`): still, and near the floor or lowest, for at least three frames."""
    feet = tracks.joints3d[rows][:, FEET].astype(np.float64)
    above = ground.heights(feet) - np.asarray(SOLE)
    touching = still(feet, tracks.time[rows], below) & (
        (above < NEAR) | (above < above.min(1, keepdims=True) + LOWEST)
    )
    for foot in range(touching.shape[1]):
        for start, end in runs(touching[:, foot]):
            if end - start < 3:
                touching[start:end, foot] = False
    return touching


def planted(
    tracks: Tracks, rows: NDArray[np.int64], touching: Bool[np.ndarray, "t 4"], ground: Ground
) -> Float[np.ndarray, "t 3"]:
    """Change of each row's translation, metres, camera frame, by which standing feet keep their place on the floor."""
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
    for foot in range(touching.shape[1]):
        on = np.flatnonzero(touching[:, foot])
        solid.append(_blocks(on, ground.up[None] / SINK, count))
        wanted.append((SOLE[foot] - ground.heights(feet[on, foot])) / SINK)
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
