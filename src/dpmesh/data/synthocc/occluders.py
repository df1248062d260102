"""Round things that grow or slide before a person, from hiding nothing to hiding nearly everything.

Training has boxes and flat shapes (data/synthetic/occluders.py); here all are curved solids that stand on the ground.
Ground frame: metres, x right, y up, z towards the camera; the origin is on the ground before the person's feet.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32
from numpy.typing import NDArray

from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.patterns import Array, Pattern, draw_pattern, noise

STEPS = 24
"""Sizes that are tried, from t = 1/24 to 1."""


@dataclass(frozen=True, eq=False)
class Solid:
    """vertices: ground frame. foot: (x, z, radius) of its shadow."""

    vertices: Float[Array, "v 3"]
    faces: Int32[NDArray[np.int32], "f 3"]
    foot: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Occluder:
    """at(t): the solid at size or place t in (0, 1]. pattern: over the solid's own coordinates."""

    family: str
    at: Callable[[float], Solid]
    pattern: Pattern


FAMILIES = ("barrel", "hedge", "fir", "column", "bamboo", "balloon", "boulder")


def draw_occluder(draws: Draws, turn: int, height: float, width: float) -> Occluder:
    """One that can hide a person of this height and width (metres); families take turns."""
    family = FAMILIES[turn % len(FAMILIES)]
    make = {"barrel": _barrel, "hedge": _hedge, "fir": _fir, "column": _column, "bamboo": _bamboo,
            "balloon": _balloon, "boulder": _boulder}[family]  # fmt: skip
    return Occluder(family, make(draws, height, width), draw_pattern(draws, draws.between(0.06, 0.3)))


def _barrel(draws: Draws, height: float, width: float) -> Callable[[float], Solid]:
    radius, side = width * draws.between(0.45, 0.65), draws.between(-0.2, 0.2) * width
    return lambda t: _stand(
        _lathe([(1, 0), (1.08, 0.5), (1, 1), (0, 1)]), (radius, 1.2 * t * height, radius), side
    )


def _hedge(draws: Draws, height: float, width: float) -> Callable[[float], Solid]:
    count, salt = 5 + draws.pick(4), draws.pick(2**31)
    rise = 0.85 + 0.3 * draws.unit(count)

    def at(t: float) -> Solid:
        parts = []
        for i in range(count):
            size = (width * 0.5, 0.62 * rise[i] * t * height, width * 0.4)
            ball = _ball(salt + i, 0.25) * size
            parts.append(ball + np.array([(i - (count - 1) / 2) * width * 0.45, size[1] * 0.95, 0]))
        return _joined(parts, _ball_faces(), (0.0, 0.0, width))

    return at


def _fir(draws: Draws, height: float, width: float) -> Callable[[float], Solid]:
    side, spread = draws.between(-0.35, 0.35) * width, draws.between(0.9, 1.3)
    profile = [(0.12, 0), (0.12, 0.1), (1, 0.1), (0.45, 0.45), (0.75, 0.42), (0.28, 0.75), (0.5, 0.7), (0, 1)]

    def at(t: float) -> Solid:
        return _stand(
            _lathe(profile), (spread * width * (0.4 + t), 2.4 * height * t, spread * width * (0.4 + t)), side
        )

    return at


def _column(draws: Draws, height: float, width: float) -> Callable[[float], Solid]:
    radius, side = width * draws.between(0.4, 0.7), -1.0 if draws.chance(0.5) else 1.0
    waist = draws.between(0.8, 1.0)
    shape = _lathe([(1.25, 0), (1.25, 0.04), (1, 0.05), (waist, 0.5), (1, 0.95), (1.25, 0.96), (1.25, 1)])
    return lambda t: _stand(shape, (radius, 2.6 * height, radius), side * (1 - t) * (1.5 * width + radius))


def _bamboo(draws: Draws, height: float, width: float) -> Callable[[float], Solid]:
    thick, side = draws.between(0.025, 0.045), -1.0 if draws.chance(0.5) else 1.0
    pitch, lean = 2 * thick * draws.between(1.1, 1.6), draws.normal(60) * 0.02
    tall = 2.0 * height * (0.8 + 0.4 * draws.unit(60))
    pole, faces = _lathe([(1, 0), (1, 1), (0, 1)], around=8)

    def at(t: float) -> Solid:
        parts, reach = [], 2.4 * width * t
        for i in range(min(60, int(reach / pitch) + 1)):
            stick = pole * [thick, tall[i], thick]
            stick[:, 0] += lean[i] * stick[:, 1] - side * (1.2 * width - i * pitch)
            parts.append(stick)
        return _joined(parts, faces, (-side * (1.2 * width - reach / 2), 0.0, 0.1))

    return at


def _balloon(draws: Draws, height: float, width: float) -> Callable[[float], Solid]:
    """On a string; it swells about a point of the body."""
    y, x, salt = draws.between(0.35, 0.85) * height, draws.between(-0.25, 0.25) * width, draws.pick(2**31)

    def at(t: float) -> Solid:
        radius = t * 1.05 * max(y, height - y, width)
        ball = _ball(salt, 0.03) * [radius, radius * 1.15, radius] + [x, y, 0]
        string, faces = _lathe([(1, 0), (1, 1)], around=6)
        string = string * [0.008, max(y, 0.05), 0.008] + [x, 0, 0]
        both = np.concatenate([faces, _ball_faces() + len(string)]).astype(np.int32)
        return Solid(np.concatenate([string, ball]), both, (x, 0.0, 0.3 * radius))

    return at


def _boulder(draws: Draws, height: float, width: float) -> Callable[[float], Solid]:
    salt, side, broad = draws.pick(2**31), draws.between(-0.4, 0.4) * width, draws.between(0.7, 1.1)

    def at(t: float) -> Solid:
        size = np.array([broad * width * (0.5 + 0.6 * t), 0.72 * height * t, 0.6 * width])
        return Solid(
            _ball(salt, 0.5) * size + [side, size[1] * 0.7, 0], _ball_faces(), (side, 0.0, float(size[0]))
        )

    return at


_ROWS, _AROUND = 16, 24


def _ball(salt: int, rough: float) -> Float[Array, "v 3"]:
    """A unit ball with bumps."""
    tilt = np.linspace(0, np.pi, _ROWS + 1)[:, None]
    turn = np.arange(_AROUND) * (2 * np.pi / _AROUND)
    points = np.stack([np.sin(tilt) * np.cos(turn), np.cos(tilt) + 0 * turn, np.sin(tilt) * np.sin(turn)], -1)
    points = points.reshape(-1, 3)
    return points * (1 + rough * (noise((points * 2.5 + 7).astype(np.float64), salt)[:, None] - 0.5))


def _ball_faces() -> Int32[NDArray[np.int32], "f 3"]:
    return _grid_faces(_ROWS + 1, _AROUND)


def _lathe(
    profile: list[tuple[float | int, float | int]], around: int = 28
) -> tuple[Float[Array, "v 3"], Int32[NDArray[np.int32], "f 3"]]:
    """(radius, height) points turned about the vertical; each corner twice, so that edges stay sharp."""
    points = np.repeat(np.array(profile, np.float64), 2, axis=0)[1:-1]
    turn = np.arange(around) * (2 * np.pi / around)
    rings = [np.stack([r * np.cos(turn), np.full(around, y), r * np.sin(turn)], 1) for r, y in points]
    return np.concatenate(rings), _grid_faces(len(points), around)


def _grid_faces(rows: int, around: int) -> Int32[NDArray[np.int32], "f 3"]:
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(around), indexing="ij")
    a, b = row * around + column, row * around + (column + 1) % around
    c, d = a + around, b + around
    return np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3).astype(np.int32)


def _stand(shape: tuple[Array, NDArray[np.int32]], size: tuple[float, float, float], side: float) -> Solid:
    return Solid(shape[0] * size + [side, 0.0, 0.0], shape[1], (side, 0.0, size[0]))


def _joined(parts: list[Array], faces: NDArray[np.int32], foot: tuple[float, float, float]) -> Solid:
    """Parts of the same faces."""
    starts = np.arange(len(parts)) * len(parts[0])
    return Solid(np.concatenate(parts), np.concatenate([faces + s for s in starts]).astype(np.int32), foot)
