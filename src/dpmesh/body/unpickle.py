"""Reads SMPL's `.pkl` without running anything from it: a pickle is read as data (pickle_reader.py).

A pickle is a program; `pickle.load` on a stranger's file runs whatever it says. SMPL's files need numpy arrays, scipy
sparse matrices and chumpy's array classes. The latter two become inert records of the pickled fields, from which the
array is then read, every index checked. chumpy and scipy are not needed.
"""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.pickle_arrays import Foreign, Malformed
from dpmesh.body.pickle_reader import BROKEN, read_pickle
from dpmesh.errors import InputError
from dpmesh.io import read_bytes

LARGEST_PICKLE = 2 * 2**30
"""Bytes. SMPL 1.1.0 has an eighth of it."""
LARGEST_DENSE = 2**24
"""Numbers in a sparse matrix, zeros included; a joint regressor of SMPL has 165 thousand."""


def load_pickle(path: Path) -> object:
    """What a pickle of arrays, strings, numbers, lists and dictionaries holds (SMPL, 3DPW); Python 2's text is read as
    latin1, as its arrays need. Raises InputError, and runs nothing, for a pickle that asks for anything else."""
    try:
        return read_pickle(read_bytes(path, LARGEST_PICKLE))
    except InputError as error:
        raise InputError(error.what, where=str(path), fix=error.fix) from None
    except BROKEN as error:
        raise _damaged("the pickle is damaged", error, path) from error


def load_smpl_pickle(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of an SMPL `.pkl` by field name, without fields that are no arrays. Raises InputError."""
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise InputError(
            "the pickle holds no dictionary of arrays", where=str(path), fix="Give an SMPL .pkl."
        )
    fields = cast("dict[object, object]", content)
    try:
        arrays = {str(key): _array(value) for key, value in fields.items()}
    except BROKEN as error:
        raise _damaged("an array of the pickle is damaged", error, path) from error
    return {key: value for key, value in arrays.items() if value is not None}


def _damaged(what: str, error: BaseException, path: Path) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{what} ({reason})", where=str(path), fix="Download it again.")


def _array(value: object) -> NDArray[np.generic] | None:
    if isinstance(value, np.ndarray):
        return cast("NDArray[np.generic]", value)
    if not isinstance(value, Foreign):
        return None
    if value.kind != "chumpy":
        return _dense(value)
    # chumpy.ch.Ch keeps its array as `x`; chumpy.reordering.Select picks `a[idxs]`.
    fields = value.fields
    if "x" in fields:
        return _array(fields["x"])
    base = _array(fields["a"])
    if base is None:
        return None
    if "idxs" in fields:
        base = base.ravel()[_whole(fields["idxs"], base.size)]
    shape: Sequence[Any] | None = fields.get("preferred_shape", fields.get("newshape"))
    return base if shape is None else np.reshape(base, tuple(operator.index(n) for n in shape))


def _dense(value: Foreign) -> NDArray[np.generic]:
    fields = value.fields
    height, width = (operator.index(n) for n in fields["_shape" if "_shape" in fields else "shape"])
    if min(height, width) < 0 or height * width > LARGEST_DENSE:
        raise Malformed(f"a sparse matrix of {height}×{width}")
    data = _line(fields["data"], "fiub").astype(np.float64)
    if value.kind == "coo":
        one, two = fields["coords"] if "coords" in fields else (fields["row"], fields["col"])
        rows, columns = _whole(one, height), _whole(two, width)
    else:
        lines, across = (width, height) if value.kind == "csc" else (height, width)
        line, place = _starts(fields["indptr"], lines, len(data)), _whole(fields["indices"], across)
        rows, columns = (place, line) if value.kind == "csc" else (line, place)
    if not len(rows) == len(columns) == len(data):
        raise Malformed("a sparse matrix with more numbers than places")
    out = np.zeros((height, width))
    np.add.at(out, (rows, columns), data)  # equal positions add up, as in scipy
    return out


def _starts(pointers: object, lines: int, count: int) -> NDArray[np.int64]:
    """The line of every stored number, from where each line's numbers start."""
    starts = _whole(pointers, count + 1)
    steps = np.diff(starts)
    if len(starts) != lines + 1 or starts[0] != 0 or starts[-1] != count or (steps < 0).any():
        raise Malformed("a sparse matrix whose lines do not fit its numbers")
    return np.repeat(np.arange(lines), steps)


def _whole(value: object, below: int) -> NDArray[np.int64]:
    """Whole numbers in [0, below), in one line."""
    found = _line(value, "iu")
    if len(found) and (found.min() < 0 or found.max() >= below):  # pyright: ignore[reportOperatorIssue]
        raise Malformed("an index outside of its array")
    return found.astype(np.int64)


def _line(value: object, kinds: str) -> NDArray[np.generic]:
    found = cast("NDArray[np.generic]", np.asarray(value))
    if found.ndim != 1 or (found.dtype.kind not in kinds and found.size):
        raise Malformed("numbers of a sparse matrix or a selection are not numbers in a line")
    return found
