"""One row for each evaluated person, stored as plain arrays; parts of a run, written whole or not at all."""

import io
import json
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.evaluate.schema import ANY, COUNT, Each, require
from dpmesh.io import atomic_write, parse_json, read_bytes

LARGEST = 2 * 2**30
"""Bytes of a file of rows, packed and unpacked; all of 3DPW's persons have a fiftieth of that."""


@dataclass(frozen=True, eq=False)
class Rows:
    """index: place in the source. Errors in millimetres, NaN for a failure (metrics.py) or where the protocol does not
    have the measure. joint, joint_pa: per measured joint, NaN where the truth was not measured. seen: as Persons.
    fallbacks: of the persons and the run, all together."""

    index: Int64[np.ndarray, " n"]
    ids: Shaped[np.ndarray, " n"]
    sequences: Shaped[np.ndarray, " n"]
    mpjpe: Float[np.ndarray, " n"]
    pa_mpjpe: Float[np.ndarray, " n"]
    mpve: Float[np.ndarray, " n"]
    joint: Float[np.ndarray, "n j"]
    joint_pa: Float[np.ndarray, "n j"]
    seen: Float[np.ndarray, "n j"]
    failed: Shaped[np.ndarray, " n"]
    fallbacks: Counter[str] = field(default_factory=Counter[str])

    def __len__(self) -> int:
        return len(self.index)

    @property
    def unusable(self) -> Bool[NDArray[np.bool_], " n"]:
        """Whose record has a number that is not finite: no failure of the model, and in no figure."""
        return np.logical_not(self.failed) & np.isnan(self.mpjpe)


ARRAYS = tuple(f.name for f in fields(Rows) if f.name != "fallbacks")
_TEXTS, _TABLES = ("ids", "sequences"), ("joint", "joint_pa", "seen")


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Parts in the order of `index`. Raises InputError where they measure other joints."""
    if len({part.joint.shape[1] for part in parts}) != 1:
        raise InputError("the parts do not measure the same joints", fix="Run the evaluation again.")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    order = np.argsort(joined["index"], kind="stable")
    total = sum((part.fallbacks for part in parts), Counter[str]())
    return Rows(**{name: array[order] for name, array in joined.items()}, fallbacks=total)


def save(path: Path, rows: Rows, header: Mapping[str, Any]) -> None:
    """An .npz without pickles, whole or not at all. header: what the rows belong to. Raises OutputError."""
    buffer = io.BytesIO()
    about = json.dumps({"header": dict(header), "fallbacks": dict(rows.fallbacks)})
    np.savez(buffer, about=np.array(about), **{name: getattr(rows, name) for name in ARRAYS})
    atomic_write(path, buffer.getvalue())


def load(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows and their header; raises InputError for a file that is not one of ours, or that was changed."""
    arrays = read_arrays(path)
    if problem := _misfit(arrays):
        raise InputError(f"these are no rows of an evaluation ({problem})", where=str(path), fix=_FIX)
    about = parse_json(str(arrays["about"]), str(path))
    require(about, {"header": Each(ANY), "fallbacks": Each(COUNT)}, str(path), _FIX)
    rows = Rows(
        **{name: arrays[name] for name in ARRAYS},  # pyright: ignore[reportArgumentType]
        fallbacks=Counter(about["fallbacks"]),
    )
    return rows, about["header"]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz of bounded size; raises InputError."""
    data = read_bytes(path, LARGEST)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise InputError(f"unpacks to more than {LARGEST:,} bytes", where=str(path), fix=_FIX)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except _UNREADABLE as error:
        told = " ".join(str(error).split())[:80] or type(error).__name__
        raise InputError(f"this is not a readable .npz ({told})", where=str(path), fix=_FIX) from error
    if strange := [
        name for name, array in arrays.items() if not isinstance(array, np.ndarray)
    ]:  # it gives bytes
        raise InputError(f"its member {strange[0][:80]} is no array", where=str(path), fix=_FIX)
    return arrays


_FIX = "Delete the file and run the evaluation again."
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, AttributeError, RuntimeError, MemoryError,
    OverflowError, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
)  # fmt: skip
"""What zipfile and numpy raise for a damaged archive (RuntimeError: encrypted, or packed in an unknown way)."""


def _misfit(arrays: Mapping[str, NDArray[Any]]) -> str:
    """What is wrong with arrays that should be rows, or nothing."""
    if missing := [name for name in ("about", *ARRAYS) if name not in arrays]:
        return f"{missing[0]} is missing"
    if arrays["about"].dtype.kind != "U" or arrays["about"].ndim:
        return "about is not a text"
    count = arrays["index"].shape[:1]
    joints = arrays["joint"].shape[1:2]
    for name in ARRAYS:
        array = arrays[name]
        kind = "i" if name == "index" else "U" if name in _TEXTS else "b" if name == "failed" else "f"
        if array.dtype.kind != kind or array.shape != (count + joints if name in _TABLES else count):
            return f"{name} is {array.dtype} of shape {array.shape}"
    index = arrays["index"]
    if not len(index) or index.min() < 0 or len(np.unique(index)) < len(index):
        return "the indices are not those of different persons"
    if len(np.unique(arrays["ids"])) < len(index):
        return "a person is there twice"
    if (np.nan_to_num(np.concatenate([arrays[n].ravel() for n in ("mpjpe", "pa_mpjpe", "mpve")])) < 0).any():
        return "an error is below zero"
    if np.isfinite(arrays["mpjpe"][arrays["failed"]]).any():
        return "a failed person has an error"
    return ""
