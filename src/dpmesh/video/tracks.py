"""The result of a video: one row for each person and frame, and what holds for a whole track.

`tracks.npz` holds the arrays (no pickles), `tracks.json` names, provenance and counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from numpy.typing import NDArray

from dpmesh.video.columns import ARRAYS, ROW_SHAPES, Ground
from dpmesh.video.tables import read_tables

__all__ = ["ARRAYS", "INTERRUPTED", "ROW_SHAPES", "Ground", "Tracks"]

INTERRUPTED = "interrupted after"
"""Start of a note."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tracks:
    """People over time: n rows of t tracks, ordered by frame and track. Metres, camera frame (x right, y down, z
    forward); image pixels; axis-angle."""

    frame: Int64[np.ndarray, " n"]
    """Of the video, from 0."""
    time: Float[np.ndarray, " n"]
    """Seconds after the first frame."""
    track: Int64[np.ndarray, " n"]
    """The person's number, the same in all frames."""
    interpolated: Bool[np.ndarray, " n"]
    """Not detected in this frame: filled between the frames before and after."""
    box: Float32[np.ndarray, "n 4"]
    """x1 y1 x2 y2."""
    score: Float32[np.ndarray, " n"]
    keypoints2d: Float32[np.ndarray, "n 17 3"]
    """COCO-17, x y confidence; confidence 0 where interpolated."""
    global_orient: Float32[np.ndarray, "n 3"]
    body_pose: Float32[np.ndarray, "n 69"]
    transl: Float32[np.ndarray, "n 3"]
    joints3d: Float32[np.ndarray, "n 30 3"]
    joints2d: Float32[np.ndarray, "n 30 2"]
    joint_sigma: Float32[np.ndarray, "n 30"]
    """Metres, as `Person.joint_sigma`."""
    contacts: Bool[np.ndarray, "n 4"]
    """Which feet stand: L_Ankle, L_Toe, R_Ankle, R_Toe; all False where the camera was not said to stand still."""
    numbers: Int64[np.ndarray, " t"]
    """Of the tracks, ascending."""
    betas: Float32[np.ndarray, "t 10"]
    """One shape for each track."""
    K: Float[np.ndarray, "3 3"]
    fps: float
    image_size: tuple[int, int]
    """(height, width)."""
    frames: int
    """Read from the video, also those without people."""
    ground: Ground | None = None
    """The floor, where the camera was said to stand still and most feet stand at one level."""
    notes: tuple[str, ...] = ()
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    corrections: tuple[Mapping[str, object], ...] = ()
    """The list of corrections that these tracks have (correct.py)."""

    @classmethod
    def load(cls, folder: str | Path) -> "Tracks":
        """The tracks that `dpmesh video` wrote into a result's folder. Raises InputError for a file that is missing,
        damaged, or of other shapes."""
        return cls(**read_tables(Path(folder)))

    def __len__(self) -> int:
        """People: tracks."""
        return len(self.numbers)

    def __repr__(self) -> str:
        people = "1 person" if len(self) == 1 else f"{len(self)} people"
        height, width = self.image_size
        return f"Tracks({people}, {self.frames} frames, {self.fps:g} fps, {width}×{height})"

    @property
    def interrupted(self) -> bool:
        """Whether the video was not read to the end of its span."""
        return any(note.startswith(INTERRUPTED) for note in self.notes)

    def of(self, number: int) -> NDArray[np.int64]:
        """Rows of a track, in order of time."""
        return np.flatnonzero(self.track == number)

    def in_frame(self, frame: int) -> NDArray[np.int64]:
        """Rows of a frame, in order of track."""
        return np.flatnonzero(self.frame == frame)

    def betas_of(self, rows: NDArray[np.int64]) -> Float32[np.ndarray, "k 10"]:
        """The shape of each row's track."""
        return self.betas[np.searchsorted(self.numbers, self.track[rows])]

    def with_rows(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_], **changed: Any) -> "Tracks":
        """A selection of rows; tracks without a row are dropped. changed: fields to replace after it."""
        chosen = {name: getattr(self, name)[rows] for name in ROW_SHAPES}
        left = np.isin(self.numbers, chosen["track"])
        return replace(self, **chosen, numbers=self.numbers[left], betas=self.betas[left], **changed)

    def with_notes(self, notes: tuple[str, ...]) -> "Tracks":
        """The same tracks with these notes."""
        return replace(self, notes=notes)
