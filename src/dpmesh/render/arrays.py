"""Typed doors to numpy, whose own stubs leave some results unknown to a strict checker."""

import numpy as np
from numpy.typing import NDArray


def floats(values: object) -> NDArray[np.float64]:
    """As float64, without a copy where it is already."""
    return np.asarray(values, dtype=np.float64)


def clamp(values: object, low: float, high: float) -> NDArray[np.float64]:
    """Clipped to [low, high]."""
    return np.minimum(np.maximum(floats(values), low), high)


def to_uint8(values: object) -> NDArray[np.uint8]:
    """Rounded, in 0..255."""
    return clamp(np.rint(floats(values)), 0.0, 255.0).astype(np.uint8)


def transform(points: object, R: object, t: object) -> NDArray[np.float64]:
    """R p + t for points (n, 3)."""
    return np.einsum("ij,nj->ni", floats(R), floats(points)) + floats(t)
