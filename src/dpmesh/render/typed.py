"""Typed wrappers of numpy and numba, whose stubs leave some results unknown to a strict type checker."""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
from numpy.typing import NDArray


def floats(values: object) -> NDArray[np.float64]:
    """As float64, without a copy if it already is."""
    return np.asarray(values, dtype=np.float64)


def clamp(values: object, low: float, high: float) -> NDArray[np.float64]:
    """Clipped to [low, high]."""
    return np.minimum(np.maximum(floats(values), low), high)


def to_uint8(values: object) -> NDArray[np.uint8]:
    """Rounded, in 0..255; always a copy."""
    array: NDArray[Any] = np.asarray(values)
    if array.dtype == np.uint8:
        return np.array(array, np.uint8)
    rounded: NDArray[Any] = np.rint(array)
    return np.clip(rounded, 0, 255, out=rounded).astype(np.uint8)


def transform(points: object, R: object, t: object) -> NDArray[np.float64]:
    """R p + t for points (n, 3)."""
    return np.einsum("ij,nj->ni", floats(R), floats(points)) + floats(t)


P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Machine code for `function`: compiled at the first call, cached next to its source, runs without the GIL.

    The shape checks that the tests wrap around every function are removed first: numba compiles plain functions.
    """
    njit: Any = numba.njit(cache=True, nogil=True)  # pyright: ignore[reportUnknownMemberType]
    return cast("Callable[P, R]", njit(inspect.unwrap(function)))


def compiled_fast(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, for colours: sums may be reordered and division by zero is not checked, so the last bits depend
    on the machine."""
    njit: Any = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # pyright: ignore[reportUnknownMemberType]
    return cast("Callable[P, R]", njit(inspect.unwrap(function)))
