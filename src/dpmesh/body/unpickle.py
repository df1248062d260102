"""Reads SMPL's `.pkl` without running anything from it: only the names below exist for it.

A pickle is a program; `pickle.load` on a stranger's file runs whatever it says. SMPL's files need numpy
arrays, scipy sparse matrices and chumpy's array classes. numpy's own are admitted; the others become inert
stand-ins that hold the pickled fields, from which the array is then read. chumpy is not needed.
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dpmesh.errors import InputError


class _Fields:
    """Stand-in for a foreign object: keeps what was pickled and can do nothing."""

    def __init__(self, *_: object) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("state of an array class is not a dictionary")
        self.fields = {str(key): value for key, value in state.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


class _Chumpy(_Fields):
    """chumpy.ch.Ch keeps its array as `x`; chumpy.reordering.Select picks `a[idxs]`."""


class _Sparse(_Fields):
    """A scipy sparse matrix of any age; `layout` is filled by the subclasses."""

    layout = ""


class _Csc(_Sparse):
    layout = "csc"


class _Csr(_Sparse):
    layout = "csr"


class _Coo(_Sparse):
    layout = "coo"


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode` as Python 3 writes bytes in protocol 2; no other codec."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


def _new(cls: type, *_: object) -> object:
    """`copyreg._reconstructor`, for our stand-ins only."""
    if not (isinstance(cls, type) and issubclass(cls, _Fields)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise pickle.UnpicklingError(f"an object of {cls!r}")
    return cls()


def _admitted() -> dict[tuple[str, str], Callable[..., Any]]:
    array = np.zeros(1)
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }
    for core in ("numpy.core", "numpy._core"):  # the name before and since numpy 2
        # numpy's own reducers name these functions, whatever module they live in today.
        names[f"{core}.multiarray", "_reconstruct"] = array.__reduce__()[0]  # pyright: ignore[reportArgumentType]
        names[f"{core}.multiarray", "scalar"] = array[0].__reduce__()[0]  # pyright: ignore[reportArgumentType]
        names[f"{core}.numeric", "_frombuffer"] = array.__reduce_ex__(5)[0]  # pyright: ignore[reportArgumentType]
    for builtins in ("builtins", "__builtin__"):
        names |= {(builtins, "object"): object, (builtins, "set"): set}
    for copyreg in ("copyreg", "copy_reg"):
        names[copyreg, "_reconstructor"] = _new
    for layout, cls in (("csc", _Csc), ("csr", _Csr), ("coo", _Coo)):
        for module in ("scipy.sparse", f"scipy.sparse.{layout}", f"scipy.sparse._{layout}"):
            names[module, f"{layout}_matrix"] = names[module, f"{layout}_array"] = cls
    for name in (
        "ch.Ch",
        "Ch",
        "reordering.Select",
        "reordering.Reorder",
        "reordering.Ravel",
        "reordering.Reshape",
    ):
        module, _, cls = f"chumpy.{name}".rpartition(".")
        names[module, cls] = _Chumpy
    return names


class _Unpickler(pickle.Unpickler):
    _names = _admitted()

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._names:
            raise InputError(
                f"the pickle asks for {module_name}.{global_name}, which no such file needs; nothing was run"
            )
        return self._names[module_name, global_name]

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise pickle.UnpicklingError("a persistent id")


_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError,
           OverflowError, MemoryError, RecursionError)  # fmt: skip
"""What pickle raises on a damaged file (its documentation promises no shorter list)."""


def load_pickle(path: Path, fix: str) -> dict[str, Any]:
    """A pickled dictionary of plain Python values and numpy arrays. Raises InputError, with `fix` as the advice."""
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()  # written by Python 2
    except InputError as error:
        raise InputError(error.what, where=str(path), fix=fix) from None
    except _BROKEN as error:
        raise InputError(
            f"the pickle is damaged ({error or 'it ends early'})", where=str(path), fix="Download it again."
        ) from error
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", where=str(path)) from error
    if not isinstance(content, dict):
        raise InputError("the pickle holds no dictionary of arrays", where=str(path), fix=fix)
    return {str(key): value for key, value in content.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def load_smpl_pickle(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of an SMPL `.pkl` by field name, without fields that are no arrays. Raises InputError."""
    content = load_pickle(path, "Give an SMPL .pkl, as downloaded from the SMPL site.")
    try:
        arrays = {key: _array(value) for key, value in content.items()}
    except _BROKEN as error:
        raise InputError(
            f"an array of the pickle is damaged ({error})", where=str(path), fix="Download it again."
        ) from error
    return {key: value for key, value in arrays.items() if value is not None}


def _array(value: object) -> NDArray[np.generic] | None:
    if isinstance(value, np.ndarray):
        return value  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, _Sparse):
        return _dense(value)
    if isinstance(value, _Chumpy):
        fields = value.fields
        if "x" in fields:
            return _array(fields["x"])
        base = _array(fields["a"])
        if base is None:
            return None
        if "idxs" in fields:
            base = base.ravel()[fields["idxs"]]
        shape: Sequence[int] | None = fields.get("preferred_shape", fields.get("newshape"))
        return base if shape is None else np.reshape(base, tuple(shape))
    return None


def _dense(value: _Sparse) -> NDArray[np.generic]:
    fields = value.fields
    height, width = fields["_shape"] if "_shape" in fields else fields["shape"]
    out = np.zeros((int(height), int(width)))
    data = np.asarray(fields["data"], np.float64)
    if value.layout == "coo":
        rows, columns = fields["coords"] if "coords" in fields else (fields["row"], fields["col"])
    else:
        line = np.repeat(np.arange(len(fields["indptr"]) - 1), np.diff(fields["indptr"]))
        rows, columns = (fields["indices"], line) if value.layout == "csc" else (line, fields["indices"])
    np.add.at(out, (rows, columns), data)  # equal positions add up, as in scipy
    return out
