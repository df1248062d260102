"""tracks.npz (arrays, no pickles) and tracks.json (the rest), written and checked when they are read."""

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.array_files import BROKEN_ARRAYS
from dpmesh.errors import InputError
from dpmesh.inference.corrections import corrections_of
from dpmesh.io import atomic_path, atomic_write, open_regular, read_json
from dpmesh.video.columns import ARRAYS, KINDS, ROW_SHAPES, TRACK_SHAPES, Ground

SCHEMA = "dpmesh.tracks/1"
TABLE, TEXT = "tracks.npz", "tracks.json"
LARGEST_TABLE = 2**32
"""Bytes of all arrays, unpacked: a day of one person at 30 frames a second."""
_LARGEST_TEXT = 2**26


def write_tables(folder: Path, arrays: Mapping[str, NDArray[Any]], content: Mapping[str, Any]) -> None:
    """Each file whole or not at all. Raises OutputError."""
    with atomic_path(folder / TABLE) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{name: arrays[name] for name in ARRAYS})
    text = json.dumps({"schema": SCHEMA, **content}, indent=1, allow_nan=False)
    atomic_write(folder / TEXT, text + "\n")


def read_text(folder: Path) -> dict[str, Any]:
    """The content of tracks.json. Raises InputError."""
    content = read_json(folder / TEXT, _LARGEST_TEXT)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"not a {SCHEMA} file", where=str(folder / TEXT))
    return cast("dict[str, Any]", content)


def given_fps(record: Mapping[str, Any]) -> float | None:
    """The frames a second that a result's video was read with in place of its own times, None for its own.

    record: the tracks.json.
    """
    options = record.get("options")
    fps = options.get("fps") if isinstance(options, dict) else None
    return float(fps) if isinstance(fps, (int, float)) and 0 < fps <= 1000 else None


def read_tables(folder: Path) -> dict[str, Any]:
    """The fields of `Tracks`. Raises InputError for a file that is missing, damaged or of other shapes."""
    content, path = read_text(folder), folder / TEXT
    try:
        height, width = content["image_size"]
        fields: dict[str, Any] = {
            "fps": float(content["fps"]),
            "image_size": (int(height), int(width)),
            "frames": int(content["frames"]),
            "notes": tuple(str(note) for note in content["notes"]),
            "fallbacks": {str(name): int(n) for name, n in content["fallbacks"].items()},
            "ground": _ground(content["world"]),
        }
        if not 0 < fields["fps"] < math.inf or fields["frames"] < 0:
            raise ValueError("fps or frames")
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"damaged ({type(error).__name__}: {error})", where=str(path)) from None
    steps = corrections_of(content.get("corrections", []), str(path))
    return {**_arrays(folder / TABLE), **fields, "corrections": tuple(step.as_json() for step in steps)}


def _ground(world: Any) -> Ground | None:
    if world is None:
        return None
    rotation = np.array(world["rotation"], float).reshape(3, 3)
    translation = np.array(world["translation"], float).reshape(3)
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) or not np.isfinite(translation).all():
        raise ValueError("world is no rotation and translation")
    return Ground(rotation, translation)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays, after their headers have been checked. Raises InputError."""
    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as archive:
                headers = {name: _header(archive, name, path) for name in ARRAYS}
            _check(headers, path)
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: np.asarray(stored[name]) for name in ARRAYS}
    except BROKEN_ARRAYS as error:
        line = " ".join(str(error).split())[:100]
        raise InputError(f"damaged ({type(error).__name__}: {line})", where=str(path)) from None
    _check_values(arrays, path)
    return arrays


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if f"{name}.npy" not in archive.namelist():
        raise InputError(f"has no {name}", where=str(path))
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
    return shape, dtype


def _check(headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], path: Path) -> None:
    """Types and shapes. Raises InputError."""
    rows, people = (headers[name][0][:1] for name in ("frame", "numbers"))
    wanted = {name: (*rows, *shape) for name, shape in ROW_SHAPES.items()}
    wanted |= {name: (*people, *shape) for name, shape in TRACK_SHAPES.items()} | {"K": (3, 3)}
    size = 0
    for name, (shape, dtype) in headers.items():
        kind = np.dtype(KINDS.get(name, np.float32))
        if shape != wanted[name] or dtype != kind:
            what = f"{name} is {dtype} {shape}, not {kind} {wanted[name]}"
            raise InputError(what, where=str(path))
        size += math.prod(shape) * kind.itemsize
    if size > LARGEST_TABLE:
        raise InputError(f"unpacked it would have {size:,} bytes", where=str(path))


def _check_values(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Raises InputError for numbers that are not finite, and tracks that are not listed."""
    for name, values in arrays.items():
        if name != "joint_sigma" and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{name} has values that are not finite", where=str(path))
    if (np.diff(arrays["numbers"]) <= 0).any() or not np.isin(arrays["track"], arrays["numbers"]).all():
        raise InputError("numbers are not the tracks', in ascending order", where=str(path))
    if (np.diff(arrays["frame"]) < 0).any():
        raise InputError("the rows are not in order of frame", where=str(path))
