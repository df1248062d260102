"""Materials of surfaces: a row of parameters, from which a compiled loop computes a colour at any point.

A material is evaluated at a *place*: metres in the rest pose for what is worn, in the thing's own frame otherwise.
SynthOcc keeps spots, diamonds, chevrons, camouflage, marble and cells for itself; none is here.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import math
from bisect import bisect
from collections.abc import Iterable
from functools import cache
from itertools import accumulate

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.render.typed import compiled_fast

_F32 = np.float32
Array32 = NDArray[np.float32]

# Columns of a material: kind, colours A and B, the axes that give u and v (cycles a metre) and their offsets,
# the share of B, grain (strength, cycles a metre), folds (strength), gloss.
KIND, A, B, U, V, U0, V0, DUTY, GRAIN, GRAIN_PITCH, FOLDS, GLOSS = 0, 1, 4, 7, 10, 13, 14, 15, 16, 17, 18, 19
PLAIN, STRIPES, PLAID, BLOTS, BLEND, TILES, PRINT, WINDOWS, SKIN, PHOTO, PHOTO_SKIN = range(11)
# The last two have a texture, whose number is in column B (photo_textures.py).
Material = Float32[Array32, "20"]

CLOTHS = ((PLAIN, STRIPES, PLAID, BLOTS, BLEND, PRINT), (0.5, 0.15, 0.1, 0.07, 0.08, 0.1))
SURFACES = ((PLAIN, BLEND, TILES, STRIPES, PLAID), (0.35, 0.33, 0.2, 0.09, 0.03))
TABLE = 256


def _table() -> Array32:
    """Tileable noise with two octaves, mean 0, about [-1, 1]; the same in every process."""
    white = np.random.default_rng(6).standard_normal((TABLE, TABLE))
    ramp = np.fft.fftfreq(TABLE) * TABLE
    radius = np.hypot(ramp, ramp[:, None])
    keep = (
        np.exp(-((radius / 50) ** 2)) / np.maximum(radius, 3.0) ** 1.25
    )  # pink up to a sixth of the table's finest
    noise = np.fft.ifft2(np.fft.fft2(white) * keep).real
    return np.clip(noise / (2.2 * noise.std()), -1, 1).astype(_F32)


NOISE = _table()

# Colours by what they are on in photographs: mostly muted, with a few loud ones.
_SKIN_TONES = np.array(
    [[255, 226, 205], [241, 199, 168], [224, 172, 135], [190, 132, 95], [138, 88, 60], [84, 54, 40]]
) / 255  # fmt: skip
_CLOTH: list[list[float]] = (np.array(
    [[20, 20, 24], [38, 40, 46], [235, 235, 232], [205, 203, 198], [128, 128, 130], [85, 88, 92], [30, 38, 66],
     [35, 45, 80], [62, 84, 120], [104, 128, 160], [150, 30, 35], [96, 24, 34], [60, 80, 60], [84, 90, 58],
     [190, 170, 140], [150, 128, 98], [90, 70, 55], [214, 180, 60], [200, 100, 50], [196, 130, 150], [70, 130, 150]]
) / 255).tolist()  # fmt: skip
HAIR = np.array(
    [[22, 18, 16], [34, 26, 22], [45, 30, 22], [85, 55, 35], [150, 110, 65], [200, 170, 120], [150, 150, 150],
     [205, 205, 205], [120, 50, 25]]
) / 255  # fmt: skip
_SURFACE: list[list[float]] = (np.array(
    [[225, 220, 210], [200, 196, 188], [170, 170, 168], [120, 122, 124], [90, 88, 84], [60, 58, 56], [150, 120, 88],
     [110, 82, 58], [180, 150, 112], [140, 70, 52], [90, 104, 70], [70, 90, 50], [100, 116, 132], [60, 84, 120],
     [30, 60, 130], [190, 180, 120]]
) / 255).tolist()  # fmt: skip


def pick(rng: np.random.Generator, shares: tuple[float, ...]) -> int:
    """A number below len(shares), with these probabilities: Generator.choice, forty times as fast."""
    return min(bisect(_ends(shares), rng.random()), len(shares) - 1)


def pick_each(rng: np.random.Generator, shares: tuple[float, ...], n: int) -> NDArray[np.int64]:
    """n numbers of `pick`, as Generator.choice draws them."""
    ends = np.array(_ends(shares))
    return np.searchsorted(ends / ends[-1], rng.random(n), side="right")


def between(rng: np.random.Generator, low: float | int, high: float | int) -> float:
    """Generator.uniform of one number, the same one, three times as fast."""
    return low + (high - low) * rng.random()


@cache
def _ends(shares: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(accumulate(shares))


def clipped(colour: Iterable[float]) -> list[float]:
    """Within what surfaces reflect."""
    return [min(max(channel, 0.02), 0.98) for channel in colour]


def _near(rng: np.random.Generator, table: list[list[float]], any_colour: float) -> list[float]:
    """A colour of the table, a little off; with probability any_colour any colour."""
    if rng.random() < any_colour:
        grey, apart = between(rng, 0.05, 0.95), rng.random(3).tolist()
        spread = between(rng, 0.1, 1.0)
        return clipped([grey + (channel - 0.5) * spread for channel in apart])
    usual, level = table[int(rng.random() * len(table))], between(rng, 0.75, 1.25)
    return clipped([c * level + off for c, off in zip(usual, rng.normal(0, 0.03, 3).tolist(), strict=True)])


def cloth_colour(rng: np.random.Generator) -> list[float]:
    """Four in five one of the usual ones."""
    return _near(rng, _CLOTH, 0.2)


def surface_colour(rng: np.random.Generator) -> list[float]:
    """Of walls, floors, furniture."""
    return _near(rng, _SURFACE, 0.12)


def material(
    kind: int, first: Iterable[float], second: Iterable[float] | None = None, *, pitch: float = 0.1,
    turn: float = 0.0, duty: float = 0.5, grain: float = 0.05, grain_pitch: float = 60.0, folds: float = 0.0,
    gloss: float = 0.0, u0: float = 0.0, v0: float = 0.0, ratio: float = 1.0,
) -> Material:  # fmt: skip
    """u runs across (x, and z at 0.6) and v along y, turned by `turn` radians; pitch metres a period of u, pitch ×
    ratio of v."""
    c, s = math.cos(turn) / pitch, math.sin(turn) / pitch
    u, v = (c, s, 0.6 * c), (-s / ratio, c / ratio, -0.6 * s / ratio)
    first = tuple(first)
    other = first if second is None else second
    return np.array([kind, *first, *other, *u, *v, u0, v0, duty, grain, grain_pitch, folds, gloss], _F32)


def cloth(rng: np.random.Generator, plain: bool = False) -> Material:
    """Half of what people wear has one colour; stripes, plaid, blots, prints and blends share the rest."""
    kind = PLAIN if plain else CLOTHS[0][pick(rng, CLOTHS[1])]
    pitch = between(rng, 0.5, 1.6) if kind in (BLOTS, BLEND) else between(rng, 0.02, 0.14)
    row = material(
        kind, cloth_colour(rng), cloth_colour(rng), pitch=pitch,
        turn=(0.0, np.pi / 2, between(rng, 0, 3))[pick(rng, (0.34, 0.33, 0.33))],
        duty=between(rng, 0.15, 0.6), grain=between(rng, 0.02, 0.12), grain_pitch=between(rng, 0.5, 4),
        folds=between(rng, 0.05, 0.3), gloss=max(between(rng, -0.2, 0.2), 0.0), u0=rng.random(), v0=rng.random(),
    )  # fmt: skip
    if kind == PRINT:  # a patch on the chest: u and v run from its middle
        row[U : U + 3], row[V : V + 3] = (between(rng, 4, 9), 0, 0), (0, between(rng, 4, 9), 0)
        row[U0], row[V0] = 0, -row[V + 1] * between(rng, 0.2, 0.4)
    return row


def skin(rng: np.random.Generator, eyes: Array32, mouth: Array32) -> Material:
    """Any human tone, even along the scale; eyes and lips at these places of the rest pose (|x|, y, z)."""
    tone = between(rng, 0, len(_SKIN_TONES) - 1)
    base = np.array([np.interp(tone, np.arange(len(_SKIN_TONES)), _SKIN_TONES[:, c]) for c in range(3)])
    row = material(SKIN, clipped(base * rng.uniform(0.9, 1.05, 3)), grain=between(rng, 0.01, 0.05),
                   grain_pitch=1.0, gloss=between(rng, 0.02, 0.18), duty=between(rng, 0.15, 0.5))  # fmt: skip
    row[U : U + 3], row[V : V + 3] = eyes, mouth
    return row


def surface(rng: np.random.Generator, fine: float = 1.0) -> Material:
    """A wall, floor, or piece of furniture: plain, grained, tiled, or blended. fine: scales pitches."""
    kind = SURFACES[0][pick(rng, SURFACES[1])]
    first = surface_colour(rng)
    if rng.random() < 0.75:
        level = between(rng, 0.55, 1.35)
        second = clipped(channel * level for channel in first)
    else:
        second = surface_colour(rng)
    pitch = (between(rng, 1, 8) if kind == BLEND else between(rng, 0.08, 0.7)) * fine
    return material(
        kind, first, second, pitch=pitch, turn=(0.0, np.pi / 2, between(rng, 0, 3))[pick(rng, (0.5, 0.35, 0.15))],
        duty=between(rng, 0.02, 0.12) if kind == TILES else between(rng, 0.2, 0.6), grain=0.2 * rng.beta(1, 2.5),
        grain_pitch=between(rng, 0.2, 3), gloss=max(between(rng, -0.15, 0.15), 0.0),
        u0=rng.random(), v0=rng.random(), ratio=(1.0, 0.5, 3.0)[pick(rng, (0.4, 0.3, 0.3))],
    )  # fmt: skip


@compiled_fast
def noise_at(table: Array32, u: float, v: float) -> float:
    """The table between its cells, one period for each 1 of u and v."""
    x, y = u * TABLE, v * TABLE
    fx, fy = np.floor(x), np.floor(y)
    a, b = np.float32(y - fy), np.float32(x - fx)
    i0, j0 = int(fy) & (TABLE - 1), int(fx) & (TABLE - 1)  # TABLE is a power of two
    i1, j1 = (i0 + 1) & (TABLE - 1), (j0 + 1) & (TABLE - 1)
    above = table[i0, j0] + b * (table[i0, j1] - table[i0, j0])
    below = table[i1, j0] + b * (table[i1, j1] - table[i1, j0])
    return above + a * (below - above)


@compiled_fast
def _cell(table: Array32, u: float, v: float) -> float:
    """The table's nearest cell: for grain, where the steps are invisible."""
    return table[int(np.floor(v * TABLE)) & (TABLE - 1), int(np.floor(u * TABLE)) & (TABLE - 1)]


@compiled_fast
def paint(
    table: Array32, paints: NDArray[np.floating], m: int, x: float, y: float, z: float, fade: float
) -> tuple[float, float, float]:
    """The colour of material m at a place. fade 1 near, towards 0 where a pixel holds many periods."""
    kind = int(paints[m, KIND])
    u = paints[m, U] * x + paints[m, U + 1] * y + paints[m, U + 2] * z + paints[m, U0]
    v = paints[m, V] * x + paints[m, V + 1] * y + paints[m, V + 2] * z + paints[m, V0]
    share = 0.0
    level = 1.0
    if kind == STRIPES:
        share = 1.0 if u - np.floor(u) < paints[m, DUTY] else 0.0
    elif kind == PLAID:
        share = 0.5 * ((u - np.floor(u) < paints[m, DUTY]) + (v - np.floor(v) < paints[m, DUTY]))
    elif kind == BLOTS:
        share = 1.0 if noise_at(table, u, v) > paints[m, DUTY] - 0.2 else 0.0
    elif kind == BLEND:
        share = 0.5 + 0.5 * noise_at(table, u, v)
    elif kind == TILES:
        line = np.floor(v)
        w = u + 0.5 * (line - 2 * np.floor(line / 2))
        share = 1.0 if v - line < paints[m, DUTY] or w - np.floor(w) < 0.6 * paints[m, DUTY] else 0.0
        level = 1.0 + 0.1 * fade * table[int(line) * 7 % TABLE, int(np.floor(w)) * 13 % TABLE]
    elif kind == PRINT:
        if z > 0 and abs(u) < 0.7 and abs(v) < 0.5:
            share = 1.0 if noise_at(table, 0.05 * u, 0.05 * v + paints[m, DUTY]) > -0.1 else 0.0
    elif kind == WINDOWS:
        i, j = np.floor(u), np.floor(v)
        if abs(u - i - 0.5) < 0.5 * paints[m, DUTY] and abs(v - j - 0.5) < 0.34:
            share = 1.0
            level = 1.0 + 0.7 * fade * table[int(j) * 31 % TABLE, int(i) * 17 % TABLE]
    elif kind == SKIN:
        dx, dy, dz = abs(x) - paints[m, U], y - paints[m, U + 1], z - paints[m, U + 2]
        if dx * dx * 0.4 + dy * dy * 2 + dz * dz < 0.00009 or (
            abs(dx) < 0.02 and abs(dy - 0.021) < 0.005 and abs(dz) < 0.03
        ):
            level = paints[m, DUTY]  # eyes, brows
        dy, dz = y - paints[m, V + 1], z - paints[m, V + 2]
        if x * x * 0.12 + dy * dy + dz * dz * 0.3 < 0.00007:
            share = 0.5
    if kind != SKIN:
        share = 0.5 + (share - 0.5) * fade if kind in (STRIPES, PLAID) else share * fade
        if kind == PLAIN:
            share = 0.0
    if paints[m, GRAIN] > 0:
        pitch = paints[m, GRAIN_PITCH]
        level *= 1 + paints[m, GRAIN] * fade * _cell(table, (x + 0.7 * z) * pitch, (y + 0.7 * z) * pitch)
    if paints[m, FOLDS] > 0:
        level *= 1 + paints[m, FOLDS] * noise_at(
            table, 1.1 * x + 0.9 * z + 0.3 * y + paints[m, U0], 0.45 * y + 0.2 * x + paints[m, V0]
        )
    red, green, blue = paints[m, A], paints[m, A + 1], paints[m, A + 2]
    if kind == SKIN:
        other = (0.9 * red, 0.45 * green, 0.45 * blue)
    else:
        other = (paints[m, B], paints[m, B + 1], paints[m, B + 2])
    rest, share = (1 - share) * level, share * level
    return red * rest + other[0] * share, green * rest + other[1] * share, blue * rest + other[2] * share
