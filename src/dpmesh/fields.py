"""Fields of a data set's files: each checked, with an InputError that names the file and the field."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh import io
from dpmesh.errors import InputError

LARGEST = 1e9
"""Larger numbers are no measurement, in whatever unit, and leave no room for float32."""
LARGEST_SIDE = 100_000
"""Pixels."""


def read_json(path: Path, fix: str = "Download it again.") -> Any:
    """A data set's JSON file. Raises InputError, with `fix`."""
    try:
        return io.read_json(path)
    except InputError as error:
        raise InputError(error.what, where=error.where, fix=fix) from None


@contextmanager
def misfits(where: Path) -> Generator[None]:
    """Turns the errors of a reader that meets fields of a wrong kind into an InputError that names `where`."""
    try:
        yield
    except MemoryError:
        raise InputError("does not fit into memory", where=str(where)) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        fix = "Download the files again."
        raise InputError(f"a field has a wrong kind of value ({cause})", where=str(where), fix=fix) from None


def entry(row: object, name: str, where: str) -> Any:
    """row[name]. Raises InputError if `row` is no dictionary or lacks it."""
    if not isinstance(row, dict):
        raise InputError("not a dictionary", where=where, fix="This is not the set's file.")
    if name not in row:
        raise InputError(f"the field {name!r} is missing", where=where, fix="Download the file again.")
    return cast("dict[str, Any]", row)[name]


def rows(content: object, name: str, where: str) -> list[Any]:
    """content[name]. Raises InputError if it is no list."""
    value = entry(content, name, where)
    if not isinstance(value, list):
        raise InputError(f"{name} is not a list", where=where, fix="This is not the set's file.")
    return cast("list[Any]", value)


def numbers(value: object, shape: tuple[int, ...], where: str, *, finite: bool = True) -> NDArray[np.float64]:
    """An array of this shape; a flat list of as many numbers, or the shape for a flat one, is reshaped.

    -1 in `shape` is any length; extra leading axes of length 1 are dropped (1×72). Raises InputError for another
    shape, for numbers above LARGEST and, with `finite`, for numbers that are not finite.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("not an array of numbers", where=where) from None
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    flat = array.ndim == 1 or len(shape) == 1
    if flat and -1 not in shape and array.size == np.prod(shape):
        array = array.reshape(shape)
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
    """An integer in [low, high]. Raises InputError."""
    number = numbers(value, (), where)
    if number != np.round(number) or not low <= number <= high:
        raise InputError(f"{float(number):g} is no whole number from {low} to {high}", where=where)
    return int(number)


def invertible(K: NDArray[np.floating]) -> bool:
    """Whether a finite K is that of a pinhole camera: positive focal lengths, last row 0 0 1."""
    return bool(
        K[0, 0] > 1e-6 and K[1, 1] > 1e-6 and abs(np.linalg.det(K)) > 1e-9 and (K[2] == [0, 0, 1]).all()
    )


def camera(value: object, where: str) -> NDArray[np.float64]:
    """K (3, 3) of a pinhole camera. Raises InputError if it is singular."""
    K = numbers(value, (3, 3), where)
    if not invertible(K):
        raise InputError("this camera cannot be inverted", where=where)
    return K


def camera_of(focal: object, centre: object, where: str) -> NDArray[np.float64]:
    """K (3, 3) of two focal lengths and the principal point, px. Raises InputError."""
    (fx, fy), (cx, cy) = numbers(focal, (2,), where), numbers(centre, (2,), where)
    return camera(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), where)


def betas(value: object, where: str) -> NDArray[np.float64]:
    """The first ten shape coefficients (10,). Raises InputError for fewer."""
    coefficients = numbers(np.ravel(np.asarray(value)), (-1,), where)
    if len(coefficients) < 10:
        raise InputError(f"{len(coefficients)} shape coefficients instead of 10", where=where)
    return coefficients[:10]


def rotations(value: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Rotation matrices (..., 3, 3). Raises InputError unless orthonormal, with determinant 1."""
    off = np.abs(value @ np.swapaxes(value, -1, -2) - np.eye(3)).max(initial=0)
    if off > 1e-2 or (np.linalg.det(value) < 0).any():
        raise InputError("this is no rotation", where=where)
    return value


def first_existing(candidates: list[Path], what: str) -> Path:
    """The first path that exists. Raises InputError that names all candidates."""
    for path in candidates:
        if path.exists():
            return path
    raise InputError(
        f"{what} was not found",
        where=" or ".join(str(path) for path in candidates),
        fix="docs/guide/evaluation.md says what to download and where to put it.",
    )
