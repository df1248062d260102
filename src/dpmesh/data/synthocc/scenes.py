"""People and objects of a case: six scenes, the same person hidden more and more.

A case is a person (pose, shape, camera, clothes) of one subset; scene 0 has nothing before it, scenes 1 to 5 hide so
many of its 17 main joints (RANGES) by the case's occluder, which grows or comes nearer. What the own body hides does
not count for the level: it depends on the pose, and the levels compare one pose.
Frame: the crop camera's (docs/reference/conventions.md), 256×256 px; "ground frame" as in occluders.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int32
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.data.synthocc.bodies import DIGITS, Figure, People
from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.occluders import STEPS, Occluder, Solid, draw_occluder
from dpmesh.data.synthocc.patterns import Array
from dpmesh.geometry import CROP
from dpmesh.render.rasterizer import rasterize
from dpmesh.skeletons import COCO17, JOINTS30

SUBSETS = ("object", "person", "truncation", "crowd")
CASES = 840
RANGES = ((0, 0), (1, 3), (4, 6), (7, 9), (10, 12), (13, 15))
"""Main joints hidden by something else than the own body, of each level."""
MAIN = np.array([j in {*COCO17.joints, "Pelvis", "Neck"} - {"L_Eye", "R_Eye"} for j in JOINTS30.joints])
"""The 17 main joints: COCO's without the eyes, and pelvis and neck."""
FLESH = 0.08  # metres from a joint to the end of the body
_CENTRE = CROP / 2
_NEAREST, _NEAREST_THING = 0.6, 0.2  # metres before the camera


@dataclass(frozen=True, eq=False)
class Ground:
    """Camera frame. origin: on the ground, under the person; right, up, near: unit; near points to the camera."""

    origin: Float[Array, "3"]
    right: Float[Array, "3"]
    up: Float[Array, "3"]
    near: Float[Array, "3"]

    def place(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Ground frame to camera frame."""
        return self.origin + points @ np.stack([self.right, self.up, self.near])


@dataclass(frozen=True, eq=False)
class Standing:
    """A figure where it stands: transl, metres."""

    figure: Figure
    transl: Float[Array, "3"]

    @property
    def vertices(self) -> Float[Array, "v 3"]:
        return self.figure.vertices + self.transl

    @property
    def joints(self) -> Float[Array, "30 3"]:
        return self.figure.joints + self.transl


@dataclass(frozen=True, eq=False)
class SynthOccScene:
    """focal: crop px. frame: x1 y1 x2 y2 px of the crop that the image covers. others: in front or anywhere.
    thing: a solid, its vertices in the camera frame, and what it came from. hidden: joints of the 30-set that others,
    the thing or the frame hide. attempt: the try that succeeded; case and attempt are the key of its appearance."""

    case: int
    attempt: int
    subset: str
    level: int
    focal: float
    frame: tuple[int, int, int, int]
    person: Standing
    ground: Ground
    others: tuple[Standing, ...] = ()
    thing: tuple[Occluder, Solid, Float[Array, "v 3"]] | None = None
    hidden: Bool[np.ndarray, "30"] | None = None

    @property
    def K(self) -> Float[Array, "3 3"]:
        return np.array([[self.focal, 0, _CENTRE], [0, self.focal, _CENTRE], [0, 0, 1]])

    def pixels(self, points: Float[Array, "n 3"]) -> Float[Array, "n 2"]:
        return points[:, :2] / np.maximum(points[:, 2:], 0.05) * self.focal + _CENTRE

    def inside(self, pixels: Float[Array, "n 2"]) -> Bool[np.ndarray, "n"]:
        x1, y1, x2, y2 = self.frame
        return np.asarray(((pixels >= [x1, y1]) & (pixels <= [x2 - 1, y2 - 1])).all(1))


def case(people: People, number: int, attempt: int = 0) -> list[SynthOccScene]:
    """The six scenes of case `number`, by level. attempt: the first that is tried (from a cache: the one that gave)."""
    subset = SUBSETS[number % len(SUBSETS)]
    while True:
        draws = Draws(number, attempt, 0)
        base = _base(people, draws, number, attempt, subset)
        if base is not None:
            ladder = {
                "object": _objects,
                "person": _people(1, 0),
                "crowd": _people(2, 2),
                "truncation": _cuts,
            }[subset]
            rungs = ladder(people, draws, base)
            if rungs is not None:
                return [replace(base, hidden=np.zeros(len(JOINTS30), bool)), *rungs]
        attempt += 1


def _base(people: People, draws: Draws, number: int, attempt: int, subset: str) -> SynthOccScene | None:
    """A person alone, whole in the image; None where the drawn one cannot be framed so."""
    pitch, roll = np.clip(draws.normal(1)[0] * 9 + 7, -12, 40), draws.normal(1)[0] * 3
    tilt = Rotation.from_euler("ZX", [roll, pitch], degrees=True).as_matrix()
    view = tilt @ np.diag([1.0, -1.0, -1.0])
    figure = people.draw(draws, view)
    focal = round(float(np.exp(draws.between(np.log(400), np.log(1600)))), DIGITS["pixels"])
    scale, shift = draws.between(1.15, 1.4), (draws.unit(2) - 0.5) * 0.1 * CROP
    transl = np.array([0, 0, focal * 2 / CROP])
    for _ in range(8):  # perspective makes the box depend on the distance: a fixed point
        low, high = _box(figure.joints + transl, focal)
        transl[:2] += (_CENTRE + shift - (low + high) / 2) / focal * transl[2]
        transl *= np.clip((high - low).max() * scale / CROP, 0.5, 2)
    transl = transl.round(DIGITS["metres"])
    if (figure.joints + transl)[:, 2].min() < _NEAREST:
        return None
    up, toward = view @ [0.0, 1.0, 0.0], np.array([0.0, 0.0, -1.0])
    near = toward - up * (up @ toward)
    near /= np.linalg.norm(near)
    standing = Standing(figure, transl)
    root = standing.joints[0]
    origin = root + up * ((standing.vertices @ up).min() - root @ up)
    ground = Ground(origin, np.cross(up, near), up, near)
    scene = SynthOccScene(number, attempt, subset, 0, focal, (0, 0, CROP, CROP), standing, ground)
    return scene if scene.inside(scene.pixels(standing.joints))[MAIN].all() else None


def _box(points: Float[Array, "n 3"], focal: float) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Corners of what a detector would draw around joints, crop px."""
    pixels = points[:, :2] / np.maximum(points[:, 2:], 0.05) * focal + _CENTRE
    flesh = FLESH * focal / max(float(points[:, 2].mean()), 0.05)
    return pixels.min(0) - flesh, pixels.max(0) + flesh


def box_of(scene: SynthOccScene) -> Float[Array, "4"]:
    """The true box of what is inside the image, hidden parts too: x1 y1 x2 y2 px."""
    joints = scene.person.joints
    low, high = _box(joints[scene.inside(scene.pixels(joints))], scene.focal)
    x1, y1, x2, y2 = scene.frame
    return np.concatenate([np.clip(low, [x1, y1], [x2, y2]), np.clip(high, [x1, y1], [x2, y2])]).round(
        DIGITS["pixels"]
    )


def covered(
    scene: SynthOccScene, vertices: Float[Array, "v 3"], faces: Int32[NDArray[np.int32], "f 3"]
) -> Bool[np.ndarray, "30"]:
    """Joints that a mesh or the frame hides."""
    joints = scene.person.joints
    pixels = scene.pixels(joints)
    depth = rasterize(vertices, faces, scene.K, (CROP, CROP)).depth
    x, y = np.clip(np.rint(pixels).astype(np.int64), 0, CROP - 1).T
    return (depth[y, x] < joints[:, 2]) | ~scene.inside(pixels)


def _ladder(tries: Iterator[SynthOccScene]) -> list[SynthOccScene] | None:
    """For each level the scene whose count is nearest the middle of its range, the first of equals; None if none is."""
    best: dict[int, tuple[float, SynthOccScene]] = {}
    for scene in tries:
        assert scene.hidden is not None
        count = int(scene.hidden[MAIN].sum())
        for level, (low, high) in enumerate(RANGES[1:], start=1):
            off = abs(count - (low + high) / 2)
            if low <= count <= high and (level not in best or off < best[level][0]):
                best[level] = (off, replace(scene, level=level))
        if len(best) == len(RANGES) - 1 and max(off for off, _ in best.values()) < 1:
            break
    return [best[level][1] for level in sorted(best)] if len(best) == len(RANGES) - 1 else None


def _objects(people: People, draws: Draws, base: SynthOccScene) -> list[SynthOccScene] | None:
    del people
    x, y, z = _spans(base.ground, base.person.vertices)
    thing = draw_occluder(draws, base.case // len(SUBSETS), y[1], max(x[1] - x[0], 0.35))
    gap, middle = draws.between(0.05, 0.5), (x[0] + x[1]) / 2
    deepest = float(thing.at(1.0).vertices[:, 2].min())

    def tries() -> Iterator[SynthOccScene]:
        for step in range(1, STEPS + 1):
            solid = thing.at(step / STEPS)
            placed = base.ground.place(solid.vertices + np.array([middle, 0, z[1] + gap - deepest])).round(5)
            if placed[:, 2].min() < _NEAREST_THING:
                return
            foot = (solid.foot[0] + middle, solid.foot[1] + z[1] + gap - deepest, solid.foot[2])
            solid = replace(solid, foot=foot)
            yield replace(base, thing=(thing, solid, placed), hidden=covered(base, placed, solid.faces))

    return _ladder(tries())


def _people(front: int, around: int) -> Callable[[People, Draws, SynthOccScene], list[SynthOccScene] | None]:
    """Others who come before the person from the sides, and some at the sides and behind who hide nothing."""

    def ladder(people: People, draws: Draws, base: SynthOccScene) -> list[SynthOccScene] | None:
        view = np.stack([base.ground.right, base.ground.up, base.ground.near], 1)
        x, _, z = _spans(base.ground, base.person.vertices)
        crowd = []
        for i in range(around):
            side, depth = (1 - 2 * (i % 2)) * draws.between(0.7, 1.5), -draws.between(0.6, 2.0)
            crowd.append(_stand(base.ground, people.draw(draws, view), side, z[0] + depth, rear=False))
        comers = [people.draw(draws, view) for _ in range(front)]
        first = 1.0 if draws.chance(0.5) else -1.0
        room = float(-base.ground.place(np.array([[0.0, 0, z[1]]]))[0] @ base.ground.near) - _NEAREST
        gaps = [[share * room + 0.05 + 0.25 * i for i in range(front)] for share in (0.05, 0.25, 0.5)]

        def tries() -> Iterator[SynthOccScene]:
            for gap in gaps:
                for step in range(14):
                    aside = (1 - step / 13) * (x[1] - x[0] + 0.8)
                    ahead = [
                        _stand(
                            base.ground,
                            one,
                            first * (1 - 2 * i) * (aside + 0.12 * (front - 1)),
                            z[1] + gap[i],
                            rear=True,
                        )
                        for i, one in enumerate(comers)
                    ]
                    if min(float(one.vertices[:, 2].min()) for one in ahead) < _NEAREST_THING:
                        break
                    vertices = np.concatenate(
                        [one.vertices for one in ahead]
                    )  # the crowd is behind: it hides nothing
                    faces = np.concatenate([people.faces + len(people.rest) * i for i in range(front)])
                    hidden = covered(base, vertices, faces.astype(np.int32))
                    yield replace(base, others=(*ahead, *crowd), hidden=hidden)

        return _ladder(tries())

    return ladder


def _stand(ground: Ground, figure: Figure, side: float, depth: float, *, rear: bool) -> Standing:
    """On the ground; its rear (else its front) `depth` nearer to the camera than the person's root."""
    x, y, z = _spans(ground, figure.vertices)
    shift = np.array([side - (x[0] + x[1]) / 2, -y[0], depth - (z[0] if rear else z[1])])
    return Standing(
        figure, (shift @ np.stack([ground.right, ground.up, ground.near])).round(DIGITS["metres"])
    )


def _spans(ground: Ground, vertices: Float[Array, "v 3"]) -> list[tuple[float, float]]:
    """Extent along right, up and near, from the ground's origin."""
    points = (vertices - ground.origin) @ np.stack([ground.right, ground.up, ground.near], 1)
    return [(float(low), float(high)) for low, high in zip(points.min(0), points.max(0), strict=True)]


def _cuts(people: People, draws: Draws, base: SynthOccScene) -> list[SynthOccScene] | None:
    """The image ends somewhere across the person, and the crop is drawn around what is left."""
    del people, draws
    side = (1, 1, 1, 0, 2, 3)[
        base.case // len(SUBSETS) % 6
    ]  # a half at the bottom, a sixth at each other edge

    def tries() -> Iterator[SynthOccScene]:
        for count in range(1, RANGES[-1][1] + 1):
            scene = _cut(base, side, count)
            if scene is not None:
                yield scene

    return _ladder(tries())


def _cut(base: SynthOccScene, side: int, count: int) -> SynthOccScene | None:
    """`count` main joints beyond one side. side: 0 left, 1 bottom, 2 right, 3 top."""
    axis, sign = side % 2, 1 if side in (1, 2) else -1
    along = np.sort(base.pixels(base.person.joints)[MAIN, axis] * sign)
    left = base.pixels(base.person.joints)[:, axis] * sign <= (along[-count - 1] + along[-count]) / 2
    joints = base.person.joints[left]
    low, high = _box(joints, base.focal)
    middle, zoom = (low + high) / 2, CROP / (1.25 * float((high - low).max()))
    transl = base.person.transl.copy()
    transl[:2] -= (middle - _CENTRE) / base.focal * float(joints[:, 2].mean())
    person = Standing(base.person.figure, transl.round(DIGITS["metres"]))
    origin = base.ground.origin + person.transl - base.person.transl
    focal = round(base.focal * zoom, DIGITS["pixels"])
    scene = replace(base, focal=focal, person=person, ground=replace(base.ground, origin=origin))
    order = np.sort(scene.pixels(person.joints)[MAIN, axis] * sign)
    edge = int(np.floor(sign * (order[-count - 1] + order[-count]) / 2))
    frame = [0, 0, CROP, CROP]
    frame[axis + (2 if sign > 0 else 0)] = edge
    if order[-count] - order[-count - 1] < 4 or not CROP / 3 < (edge if sign > 0 else CROP - edge) <= CROP:
        return None
    scene = replace(scene, frame=tuple(frame))
    return replace(scene, hidden=~scene.inside(scene.pixels(person.joints)))
