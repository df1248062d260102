"""The image of a scene: ground and wall or sky, people in clothes, the thing, a camera's faults. No JPEG: a grey
level of difference would become more than one."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dpmesh.data.synthocc.bodies import Outfit, People
from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.patterns import Array, Pattern, draw_pattern, fractal
from dpmesh.data.synthocc.scenes import Ground, SynthOccScene
from dpmesh.geometry import CROP
from dpmesh.render.rasterizer import Raster, interpolate, rasterize

LAMP, OUTFITS, CAMERA, WORLD = 1, 2, 3, 4
"""Third number of the keys of a case's draws (0: scenes.py); the people's outfits are OUTFITS + 10, ... A case has one
camera, with one grain, so that its images differ only by what hides the person."""


def draw_case(people: People, scenes: list[SynthOccScene]) -> UInt8[np.ndarray, "6 256 256 3"]:
    """RGB of a case's scenes, black outside the frame. The surroundings are drawn once for each camera."""
    made: tuple[SynthOccScene, Surroundings] | None = None
    images = []
    for scene in scenes:
        if made is None or scene.ground is not made[0].ground:
            draws = Draws(scene.case, scene.attempt, WORLD)
            made = (scene, surroundings(draws, scene.ground, scene.focal, (CROP, CROP)))
        images.append(_draw(people, scene, made[1]))
    return np.stack(images)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """image without shadows; where the ground is visible, and its points from the ground's origin, camera frame."""

    image: Float[Array, "h w 3"]
    on_ground: Bool[np.ndarray, "h w"]
    points: Float[Array, "n 3"]


@dataclass(frozen=True, eq=False)
class Lamp:
    """direction: to the light, camera frame, of length 1."""

    direction: Float[Array, "3"]
    ambient: float
    strength: float

    @classmethod
    def draw(cls, draws: Draws, ground: Ground) -> "Lamp":
        direction = draws.normal(3) * 0.5 + ground.up + 0.4 * ground.near
        direction /= np.linalg.norm(direction)
        ambient = draws.between(0.45, 0.7)
        return cls(direction, ambient, draws.between(0.35, 1.15 - ambient))


@dataclass(frozen=True, eq=False)
class Painted:
    """A mesh, camera frame; coloured by a person's outfit, or by a pattern over `own` coordinates."""

    vertices: Float[Array, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    own: Float[Array, "v 3"]
    colour: Outfit | Pattern


def _draw(people: People, scene: SynthOccScene, around: Surroundings) -> UInt8[np.ndarray, "256 256 3"]:
    key = (scene.case, scene.attempt)
    lamp = Lamp.draw(Draws(*key, LAMP), scene.ground)
    bodies = [one.vertices for one in (scene.person, *scene.others)]
    meshes = [
        Painted(v, people.faces, people.rest, people.dress(Draws(*key, OUTFITS + 10 + i)))
        for i, v in enumerate(bodies)
    ]
    if scene.thing is not None:
        occluder, solid, placed = scene.thing
        meshes.append(Painted(placed, solid.faces, solid.vertices, occluder.pattern))
    image = around.image.copy()
    foot = None if scene.thing is None else scene.thing[1].foot
    image[around.on_ground] *= shadows(scene.ground, around.points, bodies, foot)[:, None]
    paint(image, meshes, scene.K, lamp, scene.ground)
    return photograph(Draws(*key, CAMERA), image, scene.frame)


def paint(
    image: Float[Array, "h w 3"], meshes: list[Painted], K: Float[Array, "3 3"], lamp: Lamp, ground: Ground
) -> None:
    """Draw the meshes into the image."""
    starts = np.cumsum([0] + [len(one.vertices) for one in meshes])
    firsts = np.cumsum([0] + [len(one.faces) for one in meshes])
    vertices = np.concatenate([one.vertices for one in meshes])
    faces = np.concatenate([one.faces + s for one, s in zip(meshes, starts[:-1], strict=True)])
    faces = faces.astype(np.int32)
    raster = rasterize(vertices, faces, K, image.shape[:2])
    normals = np.concatenate([_normals(one.vertices, one.faces) for one in meshes])
    own = np.concatenate([one.own for one in meshes])
    at = interpolate(raster, faces, np.concatenate([own, normals], 1)).astype(np.float64)
    normal = at[..., 3:] / np.maximum(np.linalg.norm(at[..., 3:], axis=-1, keepdims=True), 1e-9)
    facing = np.maximum(normal @ lamp.direction, 0)
    for one, first in zip(meshes, firsts[:-1], strict=True):
        if not isinstance(one.colour, Outfit):  # its inside, where there is one, is lit as its outside
            within = (raster.face >= first) & (raster.face < first + len(one.faces))
            facing = np.where(within, np.abs(normal @ lamp.direction), facing)
    level = lamp.ambient * (0.9 + 0.1 * (normal @ ground.up)) + lamp.strength * facing
    for one, first in zip(meshes, firsts[:-1], strict=True):
        mine = (raster.face >= first) & (raster.face < first + len(one.faces))
        if isinstance(one.colour, Outfit):
            colour = _clothes(one.colour, raster, mine, int(first), at[mine][:, :3])
        else:
            colour = one.colour(at[mine][:, :3])
        image[mine] = colour * level[mine][:, None]


def own_depth(people: People, scene: SynthOccScene) -> Float[np.ndarray, "h w"]:
    """Of the person's surface alone, metres; inf elsewhere."""
    return rasterize(scene.person.vertices, people.faces, scene.K, (CROP, CROP)).depth


def _clothes(
    outfit: Outfit, raster: Raster, mine: Bool[np.ndarray, "h w"], first: int, rest: Float[Array, "n 3"]
) -> Float[Array, "n 3"]:
    group = outfit.group[raster.face[mine] - first]
    out = np.zeros_like(rest)
    for number, pattern in enumerate(outfit.patterns):
        here = group == number
        out[here] = pattern(rest[here])
    return out


def _normals(vertices: Float[Array, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[Array, "v 3"]:
    """Area-weighted, outward for counter-clockwise faces; not of unit length."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    return np.stack(
        [sum(np.bincount(faces[:, i], cross[:, k], len(vertices)) for i in range(3)) for k in range(3)], 1
    )


def surroundings(draws: Draws, ground: Ground, focal: float, size: tuple[int, int]) -> Surroundings:
    """Every pixel's ray ends on the ground, on a wall behind the person, or in the sky. size: (h, w)."""
    floor, wall = (draw_pattern(draws, s, 0.3) for s in (draws.between(0.2, 0.9), draws.between(0.25, 1.2)))
    outdoors, behind = draws.chance(0.45), draws.between(1.0, 4.0)
    sky = _sky(draws)
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack([(x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)], -1).reshape(-1, 3)
    rise, run = rays @ ground.up, -(rays @ ground.near)
    with np.errstate(divide="ignore", invalid="ignore"):
        down = np.where(rise < -1e-6, (ground.origin @ ground.up) / rise, np.inf)
        back = np.where(run > 1e-6, (behind - ground.origin @ ground.near) / run, np.inf)
    if outdoors:
        back[:] = np.inf
    out, below = sky(rays, ground.up), np.zeros((0, 3))
    on_floor, on_wall = np.isfinite(down) & (down <= back), np.isfinite(back) & (back < down)
    for where, far, pattern, axes in (
        (on_floor, down, floor, (ground.right, ground.near)),
        (on_wall, back, wall, (ground.right, ground.up)),
    ):
        points = rays[where] * far[where][:, None] - ground.origin
        flat = np.stack([points @ axes[0], points @ axes[1]], 1)
        colour = pattern(flat)
        # Patterns finer than the pixels fade into their mean.
        fade = np.clip(12 / np.maximum(far[where], 1e-6), 0, 1)[:, None]
        colour = colour * fade + colour.mean(0, keepdims=True) * (1 - fade) if len(colour) else colour
        light = 1 + 0.25 * (fractal(flat * 0.4, 5, 2) - 0.5)
        if pattern is floor:
            below = points
        out[where] = colour * light[:, None] * 0.85
    return Surroundings(out.reshape(height, width, 3), on_floor.reshape(size), below)


def shadows(
    ground: Ground,
    points: Float[Array, "n 3"],
    bodies: list[Float[Array, "v 3"]],
    foot: tuple[float, float, float] | None,
) -> Float[Array, "n"]:
    """Soft, where feet and things meet the ground. points: on the ground, from its origin, camera frame. foot: of an
    occluder (occluders.Solid)."""
    out = np.ones(len(points))
    flat = np.stack([points @ ground.right, points @ ground.near], 1)
    spots = []
    for vertices in bodies:
        low = vertices - ground.origin
        touching = low[(low @ ground.up) < 0.12]
        spots += [(touching @ ground.right, touching @ ground.near)]
    for x, z in spots:
        if len(x):
            for part in np.array_split(np.argsort(x, kind="stable"), 2):  # a foot each, as a rule
                centre = np.array([x[part].mean(), z[part].mean()])
                out *= 1 - 0.55 * np.exp(-((flat - centre) ** 2).sum(1) / (2 * 0.13**2))
    if foot is not None:
        x, z, radius = foot
        out *= 1 - 0.5 * np.exp(-((((flat - [x, z]) ** 2).sum(1)) / (2 * (0.8 * radius) ** 2)))
    return out


def _sky(draws: Draws) -> Callable[[Array, Array], Array]:
    """Hills, a skyline or a cloudy sky: a function of the rays' directions."""
    kind, salt = draws.pick(3), draws.pick(2**31)
    top, low, dark = np.array([0.45, 0.65, 0.92]), draws.colour(0.55, 0.95, 0.2), draws.colour(0.1, 0.5, 0.4)
    clouds = draws.between(0.2, 0.9)

    def sky(rays: Float[Array, "n 3"], up: Float[Array, "3"]) -> Float[Array, "n 3"]:
        height = rays @ up
        across = rays[:, :1]
        out = low + (top - low) * np.clip(height * 2, 0, 1)[:, None]
        white = np.clip(fractal(np.stack([across[:, 0] * 3, height * 8], 1), salt, 4) - 1 + clouds, 0, 1)
        out = out + (1 - out) * white[:, None]
        if kind == 0:
            return out
        for layer in range(3):
            shade = dark + (low - dark) * (2 - layer) * 0.3
            if kind == 1:
                line = 0.22 * fractal(across * (2 + layer), salt + 7 + layer, 4) * (1.2 - 0.3 * layer)
            else:
                block = np.floor(across * (9 + 4 * layer))
                line = (0.05 + 0.3 * fractal(block + 0.5, salt + 7 + layer, 1)) * (1.2 - 0.3 * layer)
            below = height < line
            colour = np.broadcast_to(shade, out.shape).copy()
            if kind == 2:  # windows
                lit = ((across[:, 0] * 60) % 1 < 0.5) & ((height * 45) % 1 < 0.5)
                colour[lit] = colour[lit] * 0.6 + 0.3
            out = np.where(below[:, None], colour, out)
        return out

    return sky


def photograph(
    draws: Draws, image: Float[Array, "h w 3"], frame: tuple[int, int, int, int], grains: Draws | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A lens's blur, exposure, grain; rounded to grey levels. grains: of a frame of a video."""
    sigma, exposure, cast = draws.between(0.5, 0.95), draws.between(0.75, 1.2), 1 + draws.normal(3) * 0.03
    blurred = cv2.GaussianBlur(np.clip(image, 0, 1.3), (0, 0), sigma).astype(np.float64)
    strength = draws.between(0.002, 0.02) if grains is not None else None
    grain = (grains or draws).normal(*image.shape[:2])[..., None]
    grain = grain * (draws.between(0.002, 0.02) if strength is None else strength)
    levels = np.rint(np.clip(blurred * exposure * cast + grain, 0, 1) * 255).astype(np.uint8)
    out = np.zeros_like(levels)
    x1, y1, x2, y2 = frame
    out[y1:y2, x1:x2] = levels[y1:y2, x1:x2]
    return out
