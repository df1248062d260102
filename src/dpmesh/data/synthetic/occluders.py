"""Objects in front of a person or around: furniture of primitives, a limb of a person nearby, flat shapes.

SynthOcc keeps barrels, hedges, firs, columns, screens, balloons and boulders for itself; none is here.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from functools import cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray

from dpmesh.data.synthetic.materials import cloth, pick, skin, surface
from dpmesh.data.synthetic.primitives import Mesh, cuboids, join, thing, turned
from dpmesh.data.synthetic.textures import cloud

_F32 = np.float32
Array32 = NDArray[np.float32]
Boxes = list[tuple[list[float | int], list[float | int]]]
"""Centre and size of each, metres, y up, on the floor at y = 0."""


def _crate(rng: np.random.Generator) -> Boxes:
    w, h, d = rng.uniform(0.25, 1.1, 3)
    stack: Boxes = [([0, h / 2, 0], [w, h, d])]
    if rng.random() < 0.4:
        v, k = rng.uniform(0.5, 1.0, 2)
        stack.append(([rng.normal(0, 0.05), h + v * h / 2, 0], [w * k, v * h, d * k]))
    return stack


def _table(rng: np.random.Generator) -> Boxes:
    w, d, h, leg = rng.uniform((0.6, 0.5, 0.45, 0.03), (2.0, 0.9, 1.0, 0.08))
    legs: Boxes = [
        ([x * (w - leg) / 2, h / 2, z * (d - leg) / 2], [leg, h, leg]) for x in (-1, 1) for z in (-1, 1)
    ]
    on: Boxes = []
    for _ in range(rng.integers(0, 4)):
        a = rng.uniform((0.05, 0.05, 0.05), (0.35, 0.4, 0.3))
        on.append(([rng.uniform(-0.4, 0.4) * w, h + a[1] / 2, rng.uniform(-0.3, 0.3) * d], list(a)))
    return [([0, h, 0], [w, rng.uniform(0.02, 0.08), d]), *legs, *on]


def _chair(rng: np.random.Generator) -> Boxes:
    w, h, back = rng.uniform((0.4, 0.4, 0.3), (0.6, 0.5, 0.6))
    legs: Boxes = [([x * w * 0.45, h / 2, z * w * 0.45], [0.04, h, 0.04]) for x in (-1, 1) for z in (-1, 1)]
    return [([0, h, 0], [w, 0.05, w]), ([0, h + back / 2, -w / 2], [w, back, 0.05]), *legs]


def _sofa(rng: np.random.Generator) -> Boxes:
    w, d, h, arm = rng.uniform((0.8, 0.7, 0.35, 0.12), (2.2, 1.0, 0.48, 0.25))
    high = rng.uniform(0.75, 1.0)
    return [
        ([0, h / 2, 0], [w, h, d]), ([0, high / 2, -d / 2], [w, high, 0.2]),
        ([-w / 2, (h + 0.2) / 2, 0], [arm, h + 0.2, d]), ([w / 2, (h + 0.2) / 2, 0], [arm, h + 0.2, d]),
    ]  # fmt: skip


def _shelf(rng: np.random.Generator) -> Boxes:
    w, h, d = rng.uniform((0.5, 0.9, 0.25), (1.4, 2.1, 0.5))
    boards: Boxes = [([0, y, 0], [w, 0.03, d]) for y in np.linspace(0.05, h, int(rng.integers(3, 6)))]
    sides: Boxes = [([x * w / 2, h / 2, 0], [0.03, h, d]) for x in (-1, 1)]
    goods: Boxes = []
    for (_, y, _), _ in boards[:-1]:
        a = rng.uniform((0.1, 0.1, 0.1), (0.5, 0.3, 0.3))
        goods.append(([rng.uniform(-0.3, 0.3) * w, y + a[1] / 2, 0], list(a)))
    return [*boards, *sides, *goods]


def _counter(rng: np.random.Generator) -> Boxes:
    w, h, d = rng.uniform((1.0, 0.7, 0.1), (3.0, 1.25, 0.6))
    return [([0, h / 2, 0], [w, h, d]), ([0, h, 0], [w + 0.08, 0.04, d + 0.08])]


def _fence(rng: np.random.Generator) -> Boxes:
    step, h = rng.uniform(0.12, 0.4), rng.uniform(0.8, 1.5)
    bars: Boxes = [([x * step, h / 2, 0], [rng.uniform(0.02, 0.08), h, 0.03]) for x in range(-6, 7)]
    return [*bars, *[([0.0, y * h, 0.03], [13 * step, 0.06, 0.03]) for y in (0.2, 0.85)]]


def _post(rng: np.random.Generator) -> Boxes:
    return [([0, 1.5, 0], [rng.uniform(0.06, 0.4), 3.5, rng.uniform(0.06, 0.4)])]


def _vehicle(rng: np.random.Generator) -> Boxes:
    w, h, cabin = rng.uniform((2.4, 0.55, 0.4), (4.2, 0.8, 0.6))
    wheels: Boxes = [([x * w * 0.33, 0.3, z * 0.8], [0.6, 0.6, 0.2]) for x in (-1, 1) for z in (-1, 1)]
    return [
        ([0, 0.25 + h / 2, 0], [w, h, 1.6]),
        ([0, 0.25 + h + cabin / 2, 0], [w * 0.55, cabin, 1.4]),
        *wheels,
    ]


_KINDS = (_crate, _table, _chair, _sofa, _shelf, _counter, _fence, _post, _vehicle)
_BEFORE = (0.2, 0.17, 0.15, 0.1, 0.05, 0.13, 0.06, 0.1, 0.04)
"""How often each kind is what hides: low ones mostly, as in rooms and streets; fences hide nothing for long."""


_SHAPES = 24  # of each kind, made once and painted again each time


@cache
def _shapes() -> tuple[tuple[tuple[tuple[Array32, NDArray[np.int32], Array32], ...], ...], ...]:
    """For each kind pieces, each of one or two parts (of one material each): vertices, faces, normals."""
    rng, out = np.random.default_rng(5), []
    for kind in _KINDS:
        pieces = []
        for _ in range(_SHAPES):
            parts = kind(rng)
            split = len(parts) if rng.random() < 0.6 else int(rng.integers(1, len(parts) + 1))
            some = [group for group in (parts[:split], parts[split:]) if group]
            pieces.append(
                tuple(cuboids(np.array(group, _F32)[:, 0], np.array(group, _F32)[:, 1]) for group in some)
            )
        out.append(tuple(pieces))
    return tuple(out)


def furniture(rng: np.random.Generator, shares: tuple[float, ...] = _BEFORE) -> Mesh:
    """A piece on the floor at the origin, turned about y at random; world, y up. Two materials at most."""
    parts = _shapes()[pick(rng, shares)][int(rng.random() * _SHAPES)]
    angle = rng.uniform(-np.pi, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], _F32)
    scale = _F32(rng.uniform(0.85, 1.2))
    meshes = [thing(vertices * scale, faces, normals, surface(rng)) for vertices, faces, normals in parts]
    return join(meshes).moved(turn, np.zeros(3, _F32))


def put_before(
    rng: np.random.Generator,
    mesh: Mesh,
    view: Float32[Array32, "3 3"],
    before: Float32[Array32, "3"],
    ground: float,
) -> Mesh:
    """Furniture between the camera and the point `before` (camera frame), on the floor where it can.

    ground: height of the floor in the world. Where the line of sight passes over the piece it is lifted, as if on
    something else, until it reaches the point.
    """
    turned_ = mesh.moved(view, np.zeros(3, _F32))
    depth = before[2] - rng.uniform(0.12, 0.7) - float(turned_.vertices[:, 2].max())
    depth = max(depth, 0.3 - float(turned_.vertices[:, 2].min()))
    place = before * _F32(depth / before[2])
    place[:2] += rng.normal(0, 0.1, 2)
    height = float(view[:, 1] @ place)
    top = float(mesh.vertices[:, 1].max())
    bottom = min(max(ground, height - 0.95 * top), height - 0.15 * top)
    return turned_.moved(np.eye(3, dtype=_F32), (place + view[:, 1] * _F32(bottom - height)).astype(_F32))


def limb(rng: np.random.Generator, before: Float32[Array32, "3"], focal: float, size: int) -> Mesh:
    """Another person's arm that reaches from outside the image in front of a point: sleeve or bare, with a hand."""
    depth = before[2] * rng.uniform(0.45, 0.92)
    tip = before * _F32(depth / before[2]) + np.array([*rng.normal(0, 0.1, 2), 0], _F32)
    angle, scale = rng.uniform(0, 2 * np.pi), depth * size / focal  # metres across the crop there
    away = np.array([np.cos(angle), np.sin(angle), rng.normal(0, 0.3)])
    length, r = max(0.75, 1.2 * scale), rng.uniform(0.9, 1.3)
    heights = np.array([-0.1, -0.06, 0.0, 0.08, 0.1, 0.3, 0.55, length])
    radii = r * np.array([0.012, 0.035, 0.045, 0.03, 0.03, 0.042, 0.055, 0.07])
    vertices, faces = turned(heights, radii, radii * 0.8, 10)
    axis = away / np.linalg.norm(away)
    side = np.cross(axis, [0.1, 0.2, 1.0])
    side /= np.linalg.norm(side)
    turn = np.stack([side, axis, np.cross(side, axis)], 1).astype(_F32)
    bare = skin(rng, np.full(3, 9, _F32), np.full(3, 9, _F32))
    sleeve = cloth(rng) if rng.random() < 0.7 else bare
    mesh = thing(vertices, faces, vertices * np.array([1, 0, 1], _F32), bare)
    cut = np.array([[0, -1, 0, rng.uniform(0.08, 0.3)], *[[0, 0, 0, 1]] * 3], _F32)
    worn = Mesh(
        mesh.vertices, mesh.faces, mesh.normals, mesh.place, mesh.outfit, np.array([0, 2], np.int32),
        np.stack([cut, mesh.regions[0]]), np.stack([bare, sleeve]),
    )  # fmt: skip
    return worn.moved(turn, tip.astype(_F32))


def flat_shape(
    rng: np.random.Generator, size: int, centre: tuple[float, float], extent: float
) -> Bool[NDArray[np.bool_], "s s"]:
    """A rectangle, ellipse, polygon, stroke or blot around `centre` (x, y px), of about `extent` px."""
    mask = np.zeros((size, size), np.uint8)
    x, y = centre
    w, h = extent * rng.uniform(0.3, 1.0, 2)
    kind = rng.integers(5)
    if kind == 0:
        turn = rng.choice([0.0, rng.uniform(0, 180)])
        points = cv2.boxPoints(((x, y), (w, h), turn))
        cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    elif kind == 1:
        cv2.ellipse(
            mask, (int(x), int(y)), (int(w / 2) + 1, int(h / 2) + 1), rng.uniform(0, 180), 0, 360, 1, -1
        )
    elif kind == 2:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        radius = rng.uniform(0.3, 0.7, len(angles))
        points = np.stack([x + w * radius * np.cos(angles), y + h * radius * np.sin(angles)], 1)
        cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    elif kind == 3:  # a pole, a branch, another person's arm
        d = rng.normal(0, 1, 2) * extent
        cv2.line(
            mask, (int(x - d[0]), int(y - d[1])), (int(x + d[0]), int(y + d[1])), 1, int(rng.integers(3, 26))
        )
    else:
        field = cloud(rng, size, int(rng.integers(4, 12)), 1)[..., 0]
        axis = np.arange(size)
        near = ((axis - x) / max(w, 1)) ** 2 + ((axis[:, None] - y) / max(h, 1)) ** 2
        mask = (field * 0.6 > near - 0.3).astype(np.uint8)
    return mask.astype(bool)
