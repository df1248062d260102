"""The surroundings of the people: a floor and walls in perspective, rooms or streets or parks, with soft shadows.

The world is a box of four walls on a floor, drawn by ray casting. Out of doors the walls are far (houses, hedges) and
end below the sky. Frame: world, metres, y up, origin at the camera.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from dpmesh.data.synthetic.lighting import Light
from dpmesh.data.synthetic.materials import (
    BLEND,
    BLOTS,
    NOISE,
    PLAIN,
    WINDOWS,
    Material,
    between,
    material,
    noise_at,
    paint,
    surface,
    surface_colour,
)
from dpmesh.render.typed import compiled_fast

_F32 = np.float32
Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]
LEFT, RIGHT = 2, 3  # sides are floor, ceiling, then those at low and high x, and at low and high z
_SHADOW_CELLS = 32  # along a side of the image
_GREENS = np.array([[0.3, 0.36, 0.16], [0.22, 0.3, 0.12], [0.42, 0.42, 0.22], [0.36, 0.3, 0.16]])
_GROUNDS = np.array([[0.42, 0.41, 0.4], [0.55, 0.5, 0.44], [0.3, 0.3, 0.32], [0.68, 0.6, 0.46]])


@dataclass(frozen=True)
class Surroundings:
    """turn: world to the box's axes. low, high (3,): the box, metres; paints of its six sides; panels (k, 6): on which
    side, from and to along it and up, its material's number among paints. rough: height of the walls' jagged end.
    """

    turn: Float32[Array32, "3 3"]
    low: Float32[Array32, "3"]
    high: Float32[Array32, "3"]
    paints: Float32[Array32, "m 20"]
    panels: Float32[Array32, "k 6"]
    sky: Float32[Array32, "2 3"]
    rough: float
    open_air: bool

    @property
    def ground(self) -> float:
        """Height of the floor."""
        return float(self.low[1])


def draw_surroundings(
    rng: np.random.Generator, light: Light, ground: float, people: Float32[Array32, "k 3"]
) -> Surroundings:
    """A room or a place out of doors that holds the camera and the people.

    ground: height of the floor; people: points of theirs, world. Light kinds of rooms and of the open decide.
    """
    open_air = light.kind in ("overcast", "sun", "backlight") or (
        light.kind == "flash" and rng.random() < 0.5
    )
    u, yaw = partial(between, rng), rng.normal(0, 0.5) + (0, 0, 0, np.pi / 2)[rng.integers(4)]
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], _F32)
    points = np.concatenate([people, np.zeros((1, 3), _F32)]) @ turn.T
    space = rng.uniform(4, 30, 4) if open_air else np.abs(rng.normal(0, 1.3, 4)) + 0.6
    low, high = points.min(0), points.max(0)
    low[[0, 2]] -= space[:2]
    high[[0, 2]] += space[2:]
    top = max(float(high[1]), ground + 1.0) + 0.3
    low[1], high[1] = min(ground, -0.3), ground + u(2.5, 14) if open_air else max(top, ground + u(2.3, 3.6))
    if open_air:
        green = np.clip(_GREENS[rng.integers(4)] * u(0.7, 1.3) + rng.normal(0, 0.03, 3), 0, 1)
        floor = surface(rng) if rng.random() < 0.25 else material(
            BLEND, green if rng.random() < 0.5 else _GROUNDS[rng.integers(4)] * u(0.8, 1.2), green * u(0.6, 1.3),
            pitch=u(2, 12), grain=u(0.15, 0.6), grain_pitch=u(0.6, 2.5),
        )  # fmt: skip
        walls = [_far(rng, green) for _ in range(4)]
    else:
        floor, wall = surface(rng), surface(rng, 2.0)
        walls = [wall if rng.random() < 0.7 else surface(rng, 2.0) for _ in range(4)]
    ceiling = material(PLAIN, np.full(3, u(0.6, 1.0)), grain=0.0)
    paints, panels = [floor, ceiling, *walls], []
    for _ in range(rng.integers(0, 7)):  # windows, doors, images, cupboards; posters and signs out of doors
        side, scale = int(rng.integers(2, 6)), 3.0 if open_air else 1.0
        across = (low[2], high[2]) if side in (LEFT, RIGHT) else (low[0], high[0])
        start = u(float(across[0]), float(across[1]))
        bottom = ground + (0.0, u(0.4, 1.5))[rng.integers(2)] * scale
        paints.append(surface(rng, 0.7) if rng.random() < 0.7 else material(
            WINDOWS, surface_colour(rng), light.on(_FROM_ABOVE)[0].astype(np.float64) * u(0.6, 1.4),
            pitch=u(0.3, 1.2), duty=u(0.7, 0.95), grain=0.0))  # fmt: skip
        panels.append(
            [side, start, start + u(0.3, 1.8) * scale, bottom, bottom + u(0.4, 2.0) * scale, len(paints) - 1]
        )
    blue = rng.random()
    if light.kind == "overcast":
        blue *= 0.3
    sky = np.stack([[1 - 0.55 * blue, 1 - 0.3 * blue, 1.0], [1 - 0.2 * blue, 1 - 0.1 * blue, 1.0]]) * u(
        0.7, 1.1
    )
    return Surroundings(
        turn, low.astype(_F32), high.astype(_F32), np.stack(paints),
        np.array(panels, _F32).reshape(-1, 6), sky.astype(_F32), u(0, 0.5) if open_air else 0.0, open_air,
    )  # fmt: skip


def _far(rng: np.random.Generator, green: NDArray[np.float64]) -> Material:
    """What stands far away: trees and hedges, houses, or nothing but haze."""
    kind, u = rng.random(), partial(between, rng)
    if kind < 0.45:
        return material(BLOTS, green * u(0.4, 1.0), np.clip(green * u(0.9, 1.8), 0, 1), pitch=u(4, 12), duty=u(0, 0.4),
                        grain=u(0.3, 0.8), grain_pitch=u(0.1, 0.5))  # fmt: skip
    if kind < 0.85:
        return material(WINDOWS, surface_colour(rng), np.full(3, u(0.05, 0.3)), pitch=u(1.2, 3.5), ratio=u(0.8, 1.3),
                        duty=u(0.3, 0.8), grain=0.1, grain_pitch=0.2)  # fmt: skip
    return surface(rng, 10.0)


def draw_behind(
    image: Float32[Array32, "s s 3"],
    around: Surroundings,
    light: Light,
    view: Float32[Array32, "3 3"],
    focal: float,
    balls: Float32[Array32, "b 4"],
    taken: Int32[NDArray[np.int32], "s s"],
) -> None:
    """Fill the image where taken is negative. balls: x y z (world) and radius of what darkens the floor."""
    size = len(image)
    to_box = np.ascontiguousarray(around.turn @ view.T, _F32)  # camera to the box's axes
    soft = light.on(_INWARD @ to_box)
    facing = np.maximum(_INWARD @ (to_box @ light.direction), 0)[:, None] * light.hard
    shadow = np.ones((_SHADOW_CELLS, _SHADOW_CELLS, 2), _F32)
    placed = np.ascontiguousarray(np.concatenate([balls[:, :3] @ around.turn.T, balls[:, 3:]], 1), _F32)
    _shadows(shadow, to_box, placed, around.low, to_box @ light.direction, focal, size)
    half = np.zeros((size // 2, size // 2, 3), _F32)  # what is behind is seldom as sharp as the person
    _behind(
        half, to_box, around.low, around.high, around.paints.astype(np.float64), around.panels, around.sky,
        around.rough, around.open_air, soft.astype(_F32), facing.astype(_F32),
        np.asarray(cv2.resize(shadow, half.shape[:2]), _F32), NOISE, focal / 2, taken,
    )  # fmt: skip
    cv2.resize(half, (size, size), dst=image)


_FROM_ABOVE = np.array([[0, -1, 0]], _F32)
_INWARD = np.array([[0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]], _F32)


@compiled_fast
def _shadows(
    out: Array32, to_box: Array32, balls: Array32, low: Array32, sun: Array32, focal: float, size: int
) -> None:
    """For cells of the image that see the floor: how much of the soft and of the hard light is left."""
    cells = out.shape[0]
    for i in range(cells):
        for j in range(cells):
            x = ((j + 0.5) * size / cells - 0.5 - 0.5 * size) / focal
            y = ((i + 0.5) * size / cells - 0.5 - 0.5 * size) / focal
            dx = to_box[0, 0] * x + to_box[0, 1] * y + to_box[0, 2]
            dy = to_box[1, 0] * x + to_box[1, 1] * y + to_box[1, 2]
            dz = to_box[2, 0] * x + to_box[2, 1] * y + to_box[2, 2]
            if dy >= -1e-4:
                continue
            t = low[1] / dy
            px, pz = dx * t, dz * t
            soft, hard = 1.0, 1.0
            for b in range(balls.shape[0]):
                ex, ey, ez = balls[b, 0] - px, balls[b, 1] - low[1], balls[b, 2] - pz
                r = balls[b, 3]
                far = ex * ex + ey * ey + ez * ez
                if far < 1.5:
                    soft -= 0.9 * r * r * max(ey, 0.0) / (far * np.sqrt(far) + r * r * r)
                along = ex * sun[0] + ey * sun[1] + ez * sun[2]
                if along > 0:
                    off = np.sqrt(max(far - along * along, 0.0))
                    hard = min(hard, max(0.1, min(1.0, (off - 0.6 * r) / (0.8 * r))))
            out[i, j, 0], out[i, j, 1] = max(soft, 0.25), hard


@compiled_fast
def _behind(
    image: Array32, to_box: Array32, low: Array32, high: Array32, paints: Array64, panels: Array32, sky: Array32,
    rough: float, open_air: bool, soft: Array32, facing: Array32, shadow: Array32, table: Array32, focal: float,
    taken: NDArray[np.int32],
) -> None:  # fmt: skip
    height, width = image.shape[:2]
    d, p = np.empty(3, np.float32), np.empty(3, np.float32)
    for i in range(height):
        for j in range(width):
            # A cell at the edge of what is drawn before it is drawn too: its neighbours read it.
            r, c = 2 * i, 2 * j
            r1, c1 = min(r + 3, 2 * height - 1), min(c + 3, 2 * width - 1)
            r0, c0 = max(r - 2, 0), max(c - 2, 0)
            if (
                taken[r0, c0] >= 0
                and taken[r0, c1] >= 0
                and taken[r1, c0] >= 0
                and taken[r1, c1] >= 0
                and (taken[r, c] >= 0 and taken[r + 1, c + 1] >= 0)
            ):
                continue
            x, y = (j + 0.25 - 0.5 * width) / focal, (i + 0.25 - 0.5 * height) / focal
            for k in range(3):
                d[k] = to_box[k, 0] * x + to_box[k, 1] * y + to_box[k, 2]
            nearest, side = 1e9, -1
            for k in range(3):
                if d[k] > 1e-6:
                    t = high[k] / d[k]
                elif d[k] < -1e-6:
                    t = low[k] / d[k]
                else:
                    continue
                if k == 1 and d[k] > 0 and open_air:
                    continue
                if t < nearest:
                    nearest = t
                    side = (0 if k == 1 else 2 if k == 0 else 4) + (1 if d[k] > 0 else 0)
            for k in range(3):
                p[k] = d[k] * nearest
            across = p[2] if side == 2 or side == 3 else p[0]
            up = 0.0
            if open_air and side != 0:
                up = d[1] / np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
                end = high[1] + rough * (high[1] - low[1]) * noise_at(
                    table, across * 0.013 + side * 0.21, 0.3 * side
                )
                if side < 0 or p[1] > end:
                    cloud = 0.12 * noise_at(
                        table, 0.1 * d[0] / (abs(d[1]) + 0.2) + 0.5, 0.1 * d[2] / (abs(d[1]) + 0.2)
                    )
                    share = min(max(2 * up, 0.0), 1.0)
                    for k in range(3):
                        image[i, j, k] = sky[0, k] * share + sky[1, k] * (1 - share) + cloud
                    continue
            which = max(side, 0)
            for m in range(panels.shape[0]):
                if int(panels[m, 0]) != side or across < panels[m, 1] or across > panels[m, 2]:
                    continue
                if panels[m, 3] < p[1] < panels[m, 4]:
                    which = int(panels[m, 5])
            fade = min(1.0, 0.02 * focal / max(nearest, 0.1))
            if side == 0:
                colour = paint(table, paints, which, p[0], p[2], 0.0, fade)
            else:
                colour = paint(table, paints, which, across, p[1] - low[1], 0.0, fade)
            near_floor = min(1.0, 0.75 + 0.5 * (p[1] - low[1])) if side > 1 else 1.0
            for k in range(3):
                light = (
                    soft[max(side, 0), k] * shadow[i, j, 0]
                    if side == 0
                    else soft[max(side, 0), k] * near_floor
                )
                light += facing[max(side, 0), k] * (shadow[i, j, 1] if side == 0 else 1.0)
                image[i, j, k] = colour[k] * light
