"""Arrays from pickles (SMPL, 3DPW) without executing them: a pickle is read as data (pickle_reader.py).

A pickle is a program, and `pickle.load` runs it. SMPL's files need numpy arrays, scipy's sparse matrices and chumpy's
array classes. The latter two become inert records of the pickled fields, from which the array is built with every
index checked. Neither chumpy nor scipy is needed.
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
from dpmesh.io import HEAD, mistaken, read_bytes

LARGEST_PICKLE = 2 * 2**30
"""Bytes; eight times SMPL 1.1.0."""
LARGEST_DENSE = 2**24
"""Entries of a sparse matrix, zeros included; SMPL's joint regressor has 165 thousand."""
LARGEST_MADE = 512 * 2**20
"""Bytes of all arrays built from a file's sparse matrices and selections, with working memory; SMPL takes 10 MB."""
FIELDS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
"""Fields of an SMPL file that are read; the others are ignored."""


def load_pickle(path: Path) -> object:
    """The content of a pickle of arrays, strings, numbers, lists and dictionaries (SMPL, 3DPW); Python 2's text is
    decoded as latin1, as its arrays need. Raises InputError, without running anything, for any other pickle."""
    head = b""
    try:
        data = read_bytes(path, LARGEST_PICKLE)
        head = data[:HEAD]
        return read_pickle(data)
    except InputError as error:
        raise InputError(error.what, where=str(path), fix=error.fix) from None
    except BROKEN as error:
        if kind := mistaken(head):
            raise InputError(kind.what, where=str(path), fix=kind.fix) from None
        raise _damaged("the pickle is damaged", error, path) from error


def load_smpl_pickle(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of an SMPL `.pkl` by field name, of `FIELDS`. Raises InputError."""
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise InputError(
            "the pickle holds no dictionary of arrays", where=str(path), fix="Give an SMPL .pkl."
        )
    fields, budget = cast("dict[object, object]", content), _Budget()
    named = {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in fields.items()
    }
    try:
        arrays = {name: _array(named[name], budget) for name in FIELDS if name in named}
    except BROKEN as error:
        raise _damaged("an array of the pickle is damaged", error, path) from error
    return {key: value for key, value in arrays.items() if value is not None}


def plain_array(value: object) -> NDArray[np.generic] | None:
    """The array in a value of `read_pickle`: an array, a sparse matrix, one of chumpy's, or an array that holds one of
    these as its only object. None for anything else. Raises what BROKEN lists."""
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        if array.dtype == object:
            return _array(array.ravel()[0] if array.size == 1 else None, _Budget())
        return _array(array, _Budget())
    return _array(value, _Budget())


def _damaged(what: str, error: BaseException, path: Path) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{what} ({reason})", where=str(path), fix="Download it again.")


class _Budget:
    """Bytes that arrays of one file may still take; charged before an array is allocated."""

    def __init__(self) -> None:
        self.left = LARGEST_MADE

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Malformed(f"its arrays would take more than {LARGEST_MADE:,} bytes")


def _array(value: object, budget: _Budget) -> NDArray[np.generic] | None:
    if isinstance(value, np.ndarray):
        return cast("NDArray[np.generic]", value)
    if not isinstance(value, Foreign):
        return None
    if value.kind != "chumpy":
        return _dense(value, budget)
    # chumpy.ch.Ch keeps its array as `x`; chumpy.reordering.Select picks `a[idxs]`.
    fields = value.fields
    if "x" in fields:
        return _array(fields["x"], budget)
    base = _array(fields["a"], budget)
    if base is None:
        return None
    if "idxs" in fields:
        chosen = _whole(fields["idxs"], base.size, budget)
        budget.take(base.nbytes + len(chosen) * base.itemsize)
        base = base.ravel()[chosen]
    shape: Sequence[Any] | None = fields.get("preferred_shape", fields.get("newshape"))
    return base if shape is None else np.reshape(base, tuple(operator.index(n) for n in shape))


def _dense(value: Foreign, budget: _Budget) -> NDArray[np.generic]:
    fields = value.fields
    height, width = (operator.index(n) for n in fields["_shape" if "_shape" in fields else "shape"])
    if min(height, width) < 0 or max(height * width, height, width) > LARGEST_DENSE:
        raise Malformed(f"a sparse matrix of {height}×{width}")
    numbers = _line(fields["data"], "fiub")
    budget.take(8 * height * width + 8 * len(numbers))
    data = numbers.astype(np.float64)
    if value.kind == "coo":
        one, two = fields["coords"] if "coords" in fields else (fields["row"], fields["col"])
        rows, columns = _whole(one, height, budget), _whole(two, width, budget)
    else:
        lines, across = (width, height) if value.kind == "csc" else (height, width)
        line = _starts(fields["indptr"], lines, len(data), budget)
        place = _whole(fields["indices"], across, budget)
        rows, columns = (place, line) if value.kind == "csc" else (line, place)
    if not len(rows) == len(columns) == len(data):
        raise Malformed("a sparse matrix with more values than indices")
    out = np.zeros((height, width))
    np.add.at(out, (rows, columns), data)  # equal positions add up, as in scipy
    return out


def _starts(pointers: object, lines: int, count: int, budget: _Budget) -> NDArray[np.int64]:
    """The row (or column) of every stored value, from where each begins."""
    starts = _whole(pointers, count + 1, budget)
    steps = np.diff(starts)
    if len(starts) != lines + 1 or starts[0] != 0 or starts[-1] != count or (steps < 0).any():
        raise Malformed("a sparse matrix whose pointers do not fit its values")
    budget.take(8 * (lines + count))
    return np.repeat(np.arange(lines), steps)


def _whole(value: object, below: int, budget: _Budget) -> NDArray[np.int64]:
    """A vector of integers in [0, below)."""
    indices = _line(value, "iu")
    if len(indices) and (indices.min() < 0 or indices.max() >= below):  # pyright: ignore[reportOperatorIssue]
        raise Malformed("an index outside of its array")
    budget.take(8 * len(indices))
    return indices.astype(np.int64)


def _line(value: object, kinds: str) -> NDArray[np.generic]:
    vector = cast("NDArray[np.generic]", np.asarray(value))
    if vector.ndim != 1 or (vector.dtype.kind not in kinds and vector.size):
        raise Malformed("a sparse matrix or a selection whose entries are no vector of numbers")
    return vector
