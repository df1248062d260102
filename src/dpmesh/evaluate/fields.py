"""Fields of foreign files, checked: every misfit is an InputError that names the file and the place."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh import io
from dpmesh.data.annotation import invertible
from dpmesh.errors import InputError

LARGEST = 1e9
"""Larger numbers are no measurement, in whatever unit, and leave no room for float32."""
LARGEST_SIDE = 100_000
"""Pixels."""


def read_json(path: Path) -> Any:
    """A set's JSON file; raises InputError."""
    try:
        return io.read_json(path)
    except InputError as error:
        raise InputError(error.what, where=error.where, fix="Download it again.") from None


@contextmanager
def misfits(where: Path) -> Generator[None]:
    """Raises InputError, naming `where`, for whatever a reader stumbles over in a file that is not the set's."""
    try:
        yield
    except MemoryError:
        raise InputError("does not fit into memory", where=str(where)) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        fix = "Download the files again."
        raise InputError(f"a field has a wrong kind of value ({line})", where=str(where), fix=fix) from None


def entry(row: object, name: str, where: str) -> Any:
    """row[name] of a dictionary that must have it."""
    if not isinstance(row, dict):
        raise InputError("not a dictionary", where=where, fix="This is not the set's file.")
    if name not in row:
        raise InputError(f"the field {name!r} is missing", where=where, fix="Download the file again.")
    return cast("dict[str, Any]", row)[name]


def rows(content: object, name: str, where: str) -> list[Any]:
    """content[name], which must be a list."""
    found = entry(content, name, where)
    if not isinstance(found, list):
        raise InputError(f"{name} is not a list", where=where, fix="This is not the set's file.")
    return cast("list[Any]", found)


def numbers(value: object, shape: tuple[int, ...], where: str, *, finite: bool = True) -> NDArray[np.float64]:
    """An array of this shape; -1 in `shape` is any length, more than this one's leading ones are dropped (1×72)."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("not an array of numbers", where=where) from None
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    fits = array.ndim == len(shape) and all(w in (-1, n) for w, n in zip(shape, array.shape, strict=True))
    if not fits:
        wanted, got = ("×".join(str(n) if n >= 0 else "n" for n in s) for s in (shape, array.shape))
        raise InputError(f"{got or 'a number'} instead of {wanted} numbers", where=where)
    if finite and not np.isfinite(array).all():
        raise InputError("a number is not finite", where=where)
    if (np.abs(array) > LARGEST).any():
        raise InputError("a number is beyond anything measured", where=where)
    return array


def whole(value: object, where: str, low: int = 0, high: int = LARGEST_SIDE) -> int:
    """A whole number in [low, high]."""
    number = numbers(value, (), where)
    if number != np.round(number) or not low <= number <= high:
        raise InputError(f"{float(number):g} is no whole number from {low} to {high}", where=where)
    return int(number)


def camera(value: object, where: str) -> NDArray[np.float64]:
    """K (3, 3) of a pinhole camera."""
    K = numbers(value, (3, 3), where)
    if not invertible(K):
        raise InputError("this camera cannot be inverted", where=where)
    return K


def betas(value: object, where: str) -> NDArray[np.float64]:
    """The first ten shape coefficients (10,)."""
    found = numbers(np.ravel(np.asarray(value)), (-1,), where)
    if len(found) < 10:
        raise InputError(f"{len(found)} shape coefficients instead of 10", where=where)
    return found[:10]


def rotations(value: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Rotation matrices (..., 3, 3)."""
    off = np.abs(value @ np.swapaxes(value, -1, -2) - np.eye(3)).max(initial=0)
    if off > 1e-2 or (np.linalg.det(value) < 0).any():
        raise InputError("this is no rotation", where=where)
    return value


def first_existing(candidates: list[Path], what: str) -> Path:
    """The first path that exists; AssetError-like InputError that names all places where it was looked for."""
    for path in candidates:
        if path.exists():
            return path
    raise InputError(
        f"{what} was not found",
        where=" or ".join(str(path) for path in candidates),
        fix="docs/evaluation.md says what to download and where to put it.",
    )
