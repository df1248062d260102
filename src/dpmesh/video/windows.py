"""A recording's rows as tracks, solved over time in overlapping windows, so that memory does not grow with the solver's
own arrays."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.layer import BodyModel
from dpmesh.video.columns import KINDS, ROW_SHAPES
from dpmesh.video.recording import Recording
from dpmesh.video.smooth import weighted_median
from dpmesh.video.solve import solve_tracks
from dpmesh.video.tracker import STRONG
from dpmesh.video.tracks import Tracks

WINDOW = 30.0
"""Seconds that are solved at a time, without the margins."""
_ROWS = 4096
"""Rows that are read at a time."""
MARGIN = 4.0
"""Seconds before and after a window that are solved with it: more than smoothing and the filling of gaps reach."""


def raw_tracks(recording: Recording, fps: float, notes: tuple[str, ...] = ()) -> Tracks:
    """All rows as they were estimated, with each track's own median shape. Tracks that were never sure are dropped."""
    numbers, shapes = _tracks(recording)
    return _part(recording, recording.read(), numbers, shapes, fps, notes)


def solved_tracks(recording: Recording, fps: float, body: BodyModel, notes: tuple[str, ...] = ()) -> Tracks:
    """All rows with short gaps filled and motion smoothed (solve.solve_tracks, without a floor)."""
    numbers, shapes = _tracks(recording)
    with tempfile.TemporaryFile(dir=recording.folder) as file:
        count = 0
        for rows, first, until in _windows(recording):
            solved = solve_tracks(_part(recording, rows, numbers, shapes, fps, notes), body)
            kept = np.flatnonzero((solved.frame >= first) & (solved.frame < until))
            table = np.zeros(len(kept), _SOLVED)
            for name in ROW_SHAPES:
                table[name] = getattr(solved, name)[kept]
            file.write(table.tobytes())
            count += len(kept)
        columns = _columns(file, count)
    whole = _part(recording, recording.read(0, 0), numbers, shapes, fps, notes)
    return replace(whole, **columns, numbers=numbers, betas=shapes)


_SOLVED = np.dtype([(name, KINDS.get(name, np.float32), shape) for name, shape in ROW_SHAPES.items()])


def _columns(file: IO[bytes], count: int) -> dict[str, NDArray[Any]]:
    """Columns of a file of _SOLVED; only they are in memory."""
    columns = {
        name: np.empty((count, *shape), KINDS.get(name, np.float32)) for name, shape in ROW_SHAPES.items()
    }
    file.seek(0)
    for at in range(0, count, _ROWS):
        part = np.frombuffer(file.read(_ROWS * _SOLVED.itemsize), _SOLVED)
        for name, values in columns.items():
            values[at : at + len(part)] = part[name]
    return columns


def _windows(recording: Recording) -> Iterator[tuple[NDArray[Any], int, int]]:
    """Rows of a window with its margins, its own first frame, and the first one after it."""
    light = recording.column("frame", "time")
    frame, time = light["frame"], light["time"]
    if not len(time):
        return
    starts = np.arange(0.0, float(time[-1]) + 1e-9, WINDOW)
    edges = [int(frame[min(np.searchsorted(time, start), len(frame) - 1)]) for start in starts]
    edges = [-1, *edges[1:], int(frame[-1]) + 1]
    for i, start in enumerate(starts):
        low, high = np.searchsorted(time, [start - MARGIN, start + WINDOW + MARGIN])
        if edges[i + 1] > edges[i]:
            yield recording.read(int(low), int(high)), edges[i], edges[i + 1]


def _tracks(recording: Recording) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers of the tracks that are sure of a person in three frames, and their shapes (t, 10)."""
    light = recording.column("track", "score", "betas")
    sigma = _sigma(recording)
    numbers: list[int] = []
    shapes: list[NDArray[np.float32]] = []
    for number in np.unique(light["track"]):
        own = light["track"] == number
        if (light["score"][own] >= STRONG).sum() >= 3:
            numbers.append(int(number))
            shapes.append(weighted_median(light["betas"][own], 1 / np.maximum(sigma[own], 0.01) ** 2))
    return np.array(numbers, np.int64), np.asarray(shapes, np.float32).reshape(-1, 10)


def _sigma(recording: Recording) -> NDArray[np.float32]:
    """Mean of each row's joint_sigma."""
    parts = [recording.read(at, at + _ROWS)["joint_sigma"] for at in range(0, recording.count, _ROWS)]
    means = [np.nan_to_num(part, nan=0.1).mean(1) for part in parts]
    return np.concatenate(means) if means else np.zeros(0, np.float32)


def _part(
    recording: Recording,
    rows: NDArray[Any],
    numbers: NDArray[np.int64],
    shapes: NDArray[np.float32],
    fps: float,
    notes: tuple[str, ...],
) -> Tracks:
    """Some rows as tracks; those of other tracks are left out."""
    rows = rows[np.isin(rows["track"], numbers)]
    rows = rows[np.lexsort((rows["track"], rows["frame"]))]
    fields: dict[str, Any] = {
        name: np.ascontiguousarray(rows[name])
        if name in (rows.dtype.names or ())
        else np.zeros((len(rows), *shape), KINDS.get(name, np.float32))
        for name, shape in ROW_SHAPES.items()
    }
    there = np.isin(numbers, rows["track"])
    return Tracks(
        **fields,
        numbers=numbers[there],
        betas=shapes[there],
        K=np.eye(3) if recording.K is None else recording.K,
        fps=fps,
        image_size=recording.image_size,
        frames=recording.frames,
        notes=notes,
        fallbacks=dict(recording.fallbacks),
    )
