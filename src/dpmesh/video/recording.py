"""The rows of a video's frames on the disk while they are predicted: memory stays flat, and a killed run can go on.

`rows.bin` holds fixed-size records, `state.json` what belongs to them up to a checkpoint: the number of frames and rows
that count, the camera, and the tracker's state. What was written after the last checkpoint is dropped.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.inference.scene import Scene
from dpmesh.io import atomic_write, read_json
from dpmesh.video.columns import KINDS, ROW_SHAPES
from dpmesh.video.decode import Frame

ROWS, STATE = "rows.bin", "state.json"
SCHEMA = "dpmesh.recording/1"
CHECKPOINT = 30
"""Frames between two checkpoints."""
_MADE_LATER = ("interpolated", "contacts")
RECORD = np.dtype(
    [
        *((name, KINDS.get(name, np.float32), shape) for name, shape in ROW_SHAPES.items() if name not in _MADE_LATER),
        ("betas", np.float32, (10,)),
    ]
)  # fmt: skip
"""One person of one frame: the fields of Tracks, and the frame's own betas."""


class Recording:
    """Rows that are appended frame by frame, in order, and read back in parts.

    folder: for the two files. resume: go on from the last checkpoint there, if there is one; otherwise they are begun
    anew. header: JSON values that are stored along. Raises InputError for damaged files, OutputError.
    """

    def __init__(self, folder: Path, resume: bool = False, header: Any = None) -> None:
        self.folder, self.header = folder, header
        self.frames = self.count = 0
        self.last_frame = -1
        self.fallbacks = Counter[str]()
        self.K: NDArray[np.float64] | None = None
        self.image_size, self.focal_source = (0, 0), "diagonal"
        self.camera_moved = False
        """Whether the camera was noticed to move: there is no floor then."""
        self.tracker: Any = None
        """State of the tracker after last_frame."""
        if resume and (folder / STATE).is_file():
            self._restore()
        else:
            (folder / STATE).unlink(missing_ok=True)
        self._file: BinaryIO = (folder / ROWS).open("r+b" if self.count else "w+b")
        self._file.truncate(self.count * RECORD.itemsize)
        self._file.seek(0, 2)

    def _restore(self) -> None:
        path = self.folder / STATE
        content = stored(self.folder)
        try:
            self.frames, self.count = int(content["frames"]), int(content["rows"])
            self.last_frame, self.tracker = int(content["last_frame"]), content["tracker"]
            self.fallbacks = Counter({str(name): int(n) for name, n in content["fallbacks"].items()})
            self.K = None if content["K"] is None else np.array(content["K"], float).reshape(3, 3)
            height, width = content["image_size"]
            self.image_size, self.focal_source = (int(height), int(width)), str(content["focal_source"])
            self.camera_moved = bool(content["camera_moved"])
            whole = (self.folder / ROWS).stat().st_size >= self.count * RECORD.itemsize
        except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
            raise _damaged(path, error) from None
        if self.count < 0 or not whole:
            raise _damaged(path, ValueError(f"{ROWS} is shorter than it says"))

    def add(self, frame: Frame, scene: Scene, numbers: Sequence[int]) -> None:
        """Append a frame's people; those of number -1 belong to no track and are left out."""
        self.K, self.image_size, self.focal_source = scene.K, scene.image_size, scene.focal_source
        self.frames, self.last_frame = self.frames + 1, frame.index
        self.fallbacks.update(scene.fallbacks)
        rows = np.zeros(sum(number >= 0 for number in numbers), RECORD)
        known = ((p, n) for p, n in zip(scene.people, numbers, strict=True) if n >= 0)
        for row, (person, number) in zip(rows, known, strict=True):
            row["frame"], row["time"], row["track"] = frame.index, frame.time, number
            for name in RECORD.names or ():
                if name not in ("frame", "time", "track"):
                    row[name] = getattr(person, name)
        self._file.write(rows.tobytes())
        self.count += len(rows)

    def checkpoint(self, tracker: Any) -> None:
        """All frames so far count from now on. tracker: its state after the last of them. Raises OutputError."""
        self._file.flush()
        self.tracker = tracker
        content = {
            "schema": SCHEMA,
            "header": self.header,
            "frames": self.frames,
            "rows": self.count,
            "last_frame": self.last_frame,
            "fallbacks": dict(self.fallbacks),
            "K": None if self.K is None else np.asarray(self.K).tolist(),
            "image_size": list(self.image_size),
            "focal_source": self.focal_source,
            "camera_moved": self.camera_moved,
            "tracker": tracker,
        }
        atomic_write(self.folder / STATE, json.dumps(content, allow_nan=False))

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows start to stop, as RECORD."""
        stop = self.count if stop is None else min(stop, self.count)
        self._file.flush()
        with (self.folder / ROWS).open("rb") as file:
            file.seek(start * RECORD.itemsize)
            return np.fromfile(file, RECORD, max(0, stop - start))

    def column(self, *names: str) -> dict[str, NDArray[Any]]:
        """Some fields of all rows, read in parts."""
        size = 4096
        parts = [self.read(at, at + size)[list(names)].copy() for at in range(0, self.count, size)] or [
            self.read(0, 0)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def close(self) -> None:
        self._file.close()


def stored(folder: Path) -> dict[str, Any]:
    """The content of a folder's state file. Raises InputError."""
    content = read_json(folder / STATE, 2**28)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"not a {SCHEMA} file", where=str(folder / STATE), fix="Leave --resume out.")
    return content


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"damaged ({type(error).__name__}: {error})", where=str(path), fix="Leave --resume out to begin anew."
    )
