"""Patterns over space or over a plane: functions of coordinates in metres. No family of theirs occurs in training,
whose textures are plain, striped, checked, tiled, blotted, two-block or cloudy (data/synthetic)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.data.synthocc.draws import Draws

Array = NDArray[np.float64]
Pattern = Callable[[Array], Array]
"""(n, 2 or 3) metres -> (n, 3) RGB in [0, 1]."""


def noise(points: Float[Array, "n d"], salt: int) -> Float[Array, "n"]:
    """Smooth noise in [0, 1], one cell a unit: hashed corners, interpolated."""
    cell = np.floor(points)
    part = points - cell
    part = part * part * (3 - 2 * part)
    base = cell.astype(np.int64)
    out = np.zeros(len(points))
    for corner in range(2 ** points.shape[1]):
        offset = np.array([corner >> axis & 1 for axis in range(points.shape[1])])
        weight = np.where(offset, part, 1 - part).prod(1)
        out += weight * _hash(base + offset, salt)
    return out


def _hash(cells: NDArray[np.int64], salt: int) -> Array:
    """(n, d) whole numbers -> (n,) in [0, 1): integer arithmetic, exact everywhere."""
    mixed = np.full(len(cells), salt & 0xFFFFFFFF, np.uint64)
    for axis in range(cells.shape[1]):
        mixed = (mixed ^ (cells[:, axis].astype(np.uint64) & np.uint64(0xFFFFFFFF))) * np.uint64(
            0x9E3779B97F4A7C15
        )
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def fractal(points: Float[Array, "n d"], salt: int, octaves: int = 4) -> Float[Array, "n"]:
    """Noise of several sizes, in [0, 1]."""
    total = sum((noise(points * 2.0**i, salt + i) * 0.5**i for i in range(octaves)), np.zeros(len(points)))
    return total / (2 - 0.5 ** (octaves - 1))


def draw_pattern(draws: Draws, scale: float, dull: float = 0.8) -> Pattern:
    """A pattern of about `scale` metres. dull: strength of colour."""
    first, second, third = (draws.colour(strength=dull) for _ in range(3))
    kind, salt = draws.pick(6), draws.pick(2**31)
    size, turn = scale * draws.between(0.6, 1.6), draws.between(0.0, np.pi)

    def rotated(points: Array) -> Array:
        x, y = points[:, 0], points[:, 1]
        out = points.copy()
        out[:, 0], out[:, 1] = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
        return out / size

    def spots(points: Array) -> Array:
        off = rotated(points)
        off = off - np.floor(off) - 0.5
        return _mix(first, second, (off**2).sum(1) < 0.1)

    def diamonds(points: Array) -> Array:
        off = np.abs((points / size) % 2 - 1)
        return _mix(first, second, off[:, 0] + off[:, 1] < 1)

    def chevrons(points: Array) -> Array:
        height = points[:, 1] / size + np.abs((points[:, 0] / size) % 2 - 1)
        return _mix(first, second, height % 1 < 0.45)

    def camouflage(points: Array) -> Array:
        level = fractal(points / size, salt, 3)
        out = _mix(first, second, level > 0.45)
        out[level > 0.58] = third
        return out

    def marble(points: Array) -> Array:
        wave = np.sin(6 * points[:, 1] / size + 9 * fractal(points / size, salt, 3))
        return first + (second - first) * (0.5 + 0.5 * wave)[:, None]

    def cells(points: Array) -> Array:
        flat = points[:, :2] / size
        nearest, owner = np.full(len(flat), np.inf), np.zeros(len(flat))
        home = np.floor(flat).astype(np.int64)
        second_best = np.full(len(flat), np.inf)
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                cell = home + np.array([dx, dy])
                centre = cell + 0.5 + 0.8 * (np.stack([_hash(cell, salt), _hash(cell, salt + 1)], 1) - 0.5)
                far = ((flat - centre) ** 2).sum(1)
                closer = far < nearest
                second_best = np.where(closer, nearest, np.minimum(second_best, far))
                owner = np.where(closer, _hash(cell, salt + 2), owner)
                nearest = np.minimum(nearest, far)
        out = first + (second - first) * owner[:, None]
        out[np.sqrt(second_best) - np.sqrt(nearest) < 0.08] = third * 0.5
        return out

    return (spots, diamonds, chevrons, camouflage, marble, cells)[kind]


def _mix(first: Array, second: Array, where: NDArray[np.bool_]) -> Array:
    return np.where(where[:, None], second, first)
