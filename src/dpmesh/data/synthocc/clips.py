"""Clips: two people in recorded motion before a camera that stands still. They cross, one passes behind a pillar, or
something passes before them. The truth of each frame, and its checksum.

Clip k is of kind KINDS[k % 3]. Camera frame as for pictures; "ground frame" as in occluders.py. key: of the draws; the
frozen set's is KEY, and others are for tuning.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from dpmesh.data.synthocc.bodies import DIGITS, People
from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.motion import FRAMES, Motion, Window, recorded, windows
from dpmesh.data.synthocc.occluders import FAMILIES, Occluder, Solid, draw_occluder
from dpmesh.data.synthocc.patterns import Array
from dpmesh.data.synthocc.scenes import MAIN, Ground
from dpmesh.render.rasterizer import rasterize

KINDS = ("crossing", "pillar", "passing")
CLIPS = 60
PEOPLE = 2
"""Of a clip."""
KEY = 2026
HEIGHT, WIDTH = 288, 384
WALKERS = ("amc:03_",)
"""Recordings of people who walk."""
LEFT_OUT = ("expmap:train_directing_traffic_1",)
"""Its markers tremble."""
_FAR = {"crossing": 0.7, "pillar": 0.95}
"""Metres that a walker goes at least."""
_MOTION, _PLACE = 5, 6
"""Last number of the keys of a clip's draws, beside drawing.py's."""


@dataclass(frozen=True, eq=False)
class Clip:
    """People: first axis. vertices, joints (30-set), coco: metres, camera frame. contacts: of motion.FEET. hidden: of
    the 30-set, by the other person, the occluder or the frame. things: the occluder in each frame."""

    number: int
    key: int
    kind: str
    focal: float
    ground: Ground
    vertices: Float[Array, "p t v 3"]
    joints: Float[Array, "p t 30 3"]
    coco: Float[Array, "p t 17 3"]
    contacts: Bool[np.ndarray, "p t 4"]
    hidden: Bool[np.ndarray, "p t 30"]
    thing: Occluder | None = None
    things: tuple[Solid, ...] = ()

    @property
    def K(self) -> Float[Array, "3 3"]:
        return np.array([[self.focal, 0, WIDTH / 2], [0, self.focal, HEIGHT / 2], [0, 0, 1]])

    @property
    def shown(self) -> Float[Array, "p t"]:
        """Share of the main joints that are not hidden."""
        return 1 - self.hidden[..., MAIN].mean(-1)

    def pixels(self, points: Float[Array, "*n 3"]) -> Float[Array, "*n 2"]:
        return points[..., :2] / np.maximum(points[..., 2:], 0.05) * self.focal + [WIDTH / 2, HEIGHT / 2]


def clip(people: People, number: int, key: int = KEY) -> Clip:
    """Clip `number`."""
    kind = KINDS[number % len(KINDS)]
    draws = Draws(number, key, _PLACE)
    distance, height = draws.between(4.2, 6.5), draws.between(1.0, 2.3)
    focal = round(WIDTH * distance / draws.between(3.4, 4.2), DIGITS["pixels"])
    pitch = np.arctan2(height - 0.9, distance)
    view = Rotation.from_euler("X", pitch).as_matrix() @ np.diag([1.0, -1.0, -1.0])
    origin = view @ [0.0, -height, -distance]
    ground = Ground(origin, *(np.ascontiguousarray(view[:, k]) for k in range(3)))
    motions = _motions(people, number, key, kind)
    places = _places(draws, kind, motions)
    thing, things = _things(draws, kind, number)
    moved = [_stand(ground, motion, place) for motion, place in zip(motions, places, strict=True)]
    made = Clip(
        number,
        key,
        kind,
        focal,
        ground,
        np.stack([one.vertices for one in moved]),
        np.stack([one.joints for one in moved]).round(DIGITS["metres"]),
        np.stack([one.coco for one in moved]),
        np.stack([one.contacts for one in moved]),
        np.zeros((PEOPLE, FRAMES, 30), bool),
        thing,
        things,
    )
    return replace(made, hidden=_hidden(people, made))


def _motions(people: People, number: int, key: int, kind: str) -> list[Motion]:
    usable = [one for one in windows() if not one.name.startswith(LEFT_OUT)]
    walking = [one for one in usable if one.name.startswith(WALKERS)]
    walkers = {"crossing": 2, "pillar": 1, "passing": 0}[kind]
    out: list[Motion] = []
    for person in range(PEOPLE):
        draws = Draws(number, key, _MOTION, person)
        direction = 1.0 if person == 0 else -1.0
        while True:
            window: Window = (
                walking[draws.pick(len(walking))] if person < walkers else usable[draws.pick(len(usable))]
            )
            betas, mirrored = np.clip(draws.normal(10), -2, 2).round(DIGITS["betas"]), draws.chance(0.5)
            turn = draws.between(-np.pi, np.pi)
            motion = recorded(people, window, betas, mirrored, turn)
            far = float(np.linalg.norm(motion.travel))
            if person >= walkers and far < 0.6:
                break
            if person < walkers and far > _FAR[kind]:  # turned to walk across the picture
                heading = np.arctan2(-motion.travel[1], motion.travel[0])
                wanted = (0.0 if direction > 0 else np.pi) + draws.between(-0.35, 0.35)
                motion = recorded(people, window, betas, mirrored, turn + wanted - heading)
                break
        out.append(motion)
    return out


def _places(draws: Draws, kind: str, motions: list[Motion]) -> list[Float[Array, "3"]]:
    """Where the ground frame's origin is moved to for each person: their middles are put at x and z."""
    if kind == "crossing":
        nearer = 1.0 if draws.chance(0.5) else -1.0
        gap = draws.between(0.45, 0.8)
        spots = [(draws.between(-0.1, 0.1), nearer * gap / 2), (draws.between(-0.1, 0.1), -nearer * gap / 2)]
    elif kind == "pillar":
        side = 1.0 if draws.chance(0.5) else -1.0
        spots = [(0.0, -0.2), (side * draws.between(1.0, 1.3), draws.between(-0.3, 0.3))]
    else:
        spots = [
            (-draws.between(0.45, 0.9), draws.between(-0.3, 0.2)),
            (draws.between(0.45, 0.9), draws.between(-0.3, 0.2)),
        ]
    middles = [(m.joints[:, 0].min(0) + m.joints[:, 0].max(0)) / 2 for m in motions]
    return [
        np.array([x - middle[0], 0.0, z - middle[2]]).round(DIGITS["metres"])
        for (x, z), middle in zip(spots, middles, strict=True)
    ]


def _things(draws: Draws, kind: str, number: int) -> tuple[Occluder | None, tuple[Solid, ...]]:
    if kind == "crossing":
        return None, ()
    family = "column" if kind == "pillar" else ("barrel", "hedge", "fir", "boulder")[number // len(KINDS) % 4]
    height = draws.between(1.6, 1.9)
    width = draws.between(0.36, 0.48) if kind == "pillar" else draws.between(0.6, 0.75)
    thing = draw_occluder(draws, FAMILIES.index(family), height, width)
    solid = thing.at(1.0)
    ahead = 0.4 + draws.between(0.0, 0.3) - float(solid.vertices[:, 2].min())
    if kind == "pillar":
        path = np.zeros(FRAMES)
    else:
        path = np.linspace(-1, 1, FRAMES) * draws.between(2.2, 2.6) * (1.0 if draws.chance(0.5) else -1.0)
    return thing, tuple(
        Solid(
            (solid.vertices + np.array([x, 0.0, ahead])).round(5),
            solid.faces,
            (solid.foot[0] + x, solid.foot[1] + ahead, solid.foot[2]),
        )
        for x in path
    )


def _stand(ground: Ground, motion: Motion, place: Float[Array, "3"]) -> Motion:
    def placed(points: Float[Array, "t n 3"]) -> Float[Array, "t n 3"]:
        return ground.place((points + place).reshape(-1, 3)).reshape(points.shape)

    return replace(
        motion,
        vertices=placed(motion.vertices).round(5),
        joints=placed(motion.joints),
        coco=placed(motion.coco),
    )


def _hidden(people: People, made: Clip) -> Bool[np.ndarray, "p t 30"]:
    out = np.zeros((PEOPLE, FRAMES, 30), bool)
    for person in range(PEOPLE):
        pixels = made.pixels(made.joints[person])
        inside = np.asarray(((pixels >= 0) & (pixels <= [WIDTH - 1, HEIGHT - 1])).all(-1))
        for t in range(FRAMES):
            meshes = [(made.vertices[1 - person, t], people.faces)]
            if made.things:
                meshes.append((made.ground.place(made.things[t].vertices), made.things[t].faces))
            raster = None
            for vertices, faces in meshes:
                raster = rasterize(vertices, faces, made.K, (HEIGHT, WIDTH), onto=raster)
            assert raster is not None
            x, y = np.clip(np.rint(pixels[t]).astype(np.int64), 0, [WIDTH - 1, HEIGHT - 1]).T
            out[person, t] = (raster.depth[y, x] < made.joints[person, t, :, 2]) | ~inside[t]
    return out


def checksum(clips: Iterable[Clip]) -> str:
    """SHA-256 over the truth: whole multiples of its steps, little-endian."""
    digest = hashlib.sha256()
    for one in clips:
        digest.update(f"{one.number} {one.kind}".encode())
        for values, digits in (
            (np.array(one.focal), DIGITS["pixels"]),
            (one.joints, DIGITS["metres"]),
            (one.contacts, 0),
            (one.hidden, 0),
        ):
            digest.update(np.rint(values.astype(np.float64) * 10.0**digits).astype("<i8").tobytes())
    return digest.hexdigest()
