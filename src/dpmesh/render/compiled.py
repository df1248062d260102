"""numba's njit behind a typed name."""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba  # pyright: ignore[reportMissingTypeStubs]

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Machine code for `function`: made at its first call, cached beside its source, free of Python's lock.

    The shape checks that the tests wrap around every function are taken off first: numba takes plain code.
    """
    njit: Any = numba.njit(cache=True, nogil=True)  # pyright: ignore[reportUnknownMemberType]
    return cast("Callable[P, R]", njit(inspect.unwrap(function)))


def compiled_fast(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, for colours: sums may be reordered, division by zero is not looked for, so the last bits depend
    on the machine."""
    njit: Any = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # pyright: ignore[reportUnknownMemberType]
    return cast("Callable[P, R]", njit(inspect.unwrap(function)))
