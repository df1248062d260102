"""The scene of a sample: people, their positions, camera and crop; everything but the image.

Vectorised over samples. Frame: the crop camera's (docs/reference/conventions.md), 256×256 px, centre (128, 128).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # pyright: ignore[reportMissingTypeStubs]

from dpmesh.data.synthetic.bodies import Bodies, PoseSource, draw_bodies
from dpmesh.data.synthetic.body import FastBody, matrices
from dpmesh.data.synthetic.materials import pick_each
from dpmesh.geometry import CROP
from dpmesh.render.typed import compiled
from dpmesh.skeletons import JOINTS30

SIZE = CROP
CENTRE = 128.0
FOCAL_DIAGONALS = (
    0.6,
    3.0,
)  # focal length in diagonals of the image: a telephone's wide lens to a short tele lens
CROP_DIAGONALS = (
    0.12,
    0.8,
)  # side of the crop in diagonals: a person in the distance to one who fills the image
_LOG_FOCAL, _LOG_CROP = ((float(np.log(a)), float(np.log(b))) for a, b in (FOCAL_DIAGONALS, CROP_DIAGONALS))
FLESH = 0.07  # metres between a joint and the end of the body, where a detector's box ends
FEET = 0.06  # metres between the lowest joint and the floor
NEAREST = 0.35  # metres between the camera and the nearest joint, at least
OTHERS = (0.64, 0.2, 0.09, 0.04, 0.03)
"""Probability of 0 to 4 further people: another person is in a third of the crops, a crowd in one of fourteen."""
_F32 = np.float32
Array32 = NDArray[np.float32]


def _set(*names: str) -> NDArray[np.bool_]:
    return np.array([any(joint.endswith(name) for name in names) for joint in JOINTS30.joints])


_HEAD = ("Head_top", "Nose", "Eye", "Ear", "Head", "Neck")
_UPPER = (*_HEAD, "Thorax", "Shoulder", "Elbow", "Wrist", "Hand", "Chest", "Spine", "Torso")
# What the box is drawn around: (probability, joints). The named regions are where photographers cut people; the last
# row stands for a cut anywhere, at a side of the image: `cut_anywhere`.
REGIONS = (
    (0.63, np.ones(30, bool)),
    (0.10, _set(*_UPPER, "Hip", "Pelvis")),
    (0.04, _set(*_UPPER, "Hip", "Pelvis", "Knee")),
    (0.03, _set(*_HEAD, "Shoulder", "Chest", "Thorax")),
    (0.03, _set(*_HEAD)),
    (0.02, _set("Pelvis", "Hip", "Knee", "Ankle", "Toe")),
    (0.15, np.zeros(30, bool)),
)
_REGIONS = np.stack([joints for _, joints in REGIONS])
KEPT = (0.1, 0.9)
"""Share of the 30 joints on this side of a cut anywhere: four of them at least, a head or a pair of feet."""
CUT = 0.6  # of the boxes around less than the person end at the border of the image, the rest inside it
CUT_SIDES = (0.5, 0.18, 0.16, 0.16)
"""Which side is cut off: below, above, left, right. Cameras are held so that heads are in the image."""


@dataclass(frozen=True)
class Scenes:
    """n samples: the person, where it stands, and m further people in some of them.

    focal px.  frame (n, 4): x1 y1 x2 y2 in crop px, the part of the crop that the source image covers.
    other_of (m,): in whose sample each of the others is, in ascending order.
    view (n, 3, 3): from the world, y up, to the camera.  ground (n,): height of the floor in the world.
    diagonal (n,): of the image that the crop is the middle of, crop px.
    """

    people: Bodies
    transl: Float32[NDArray[np.float32], "n 3"]
    focal: Float32[NDArray[np.float32], "n"]
    frame: Float32[NDArray[np.float32], "n 4"]
    others: Bodies
    other_transl: Float32[NDArray[np.float32], "m 3"]
    other_of: Int64[NDArray[np.int64], "m"]
    view: Float32[NDArray[np.float32], "n 3 3"]
    ground: Float32[NDArray[np.float32], "n"]
    diagonal: Float32[NDArray[np.float32], "n"]


def project(
    points: Float[NDArray[np.floating], "n k 3"], focal: Float[NDArray[np.floating], "n"]
) -> Float32[NDArray[np.float32], "n k 2"]:
    """Metres in the crop camera's frame to crop pixels. Points behind the camera are mapped as if at 5 cm."""
    depth = np.maximum(points[..., 2:], 0.05)
    return (points[..., :2] / depth * focal[:, None, None] + CENTRE).astype(_F32)


def draw_scenes(rng: np.random.Generator, n: int, bank: PoseSource, body: FastBody) -> Scenes:
    """n independent scenes."""
    view = _views(rng, n)
    people = draw_bodies(rng, bank, body, view)
    log_focal, log_crop = rng.uniform(*_LOG_FOCAL, n), rng.uniform(*_LOG_CROP, n)
    focal = (SIZE * np.exp(log_focal - log_crop)).astype(_F32)
    diagonal = (SIZE * np.exp(-log_crop)).astype(_F32)

    choice = pick_each(rng, tuple(share for share, _ in REGIONS), n)
    region = _REGIONS[choice]
    anywhere = np.flatnonzero(choice == len(REGIONS) - 1)
    if len(anywhere):
        region[anywhere] = cut_anywhere(rng, people.joints[anywhere])
    scale = rng.uniform(0.85, 1.5, n)
    shift = rng.uniform(-0.15, 0.15, (n, 2)) * rng.random((n, 1)) * SIZE  # small shifts more often
    transl = _frame_region(people.joints, region, focal, scale, shift)
    down = ((people.joints + transl[:, None]) * view[:, None, :, 1]).sum(-1).min(1)
    ground = (down - FEET).astype(_F32)

    of = np.repeat(np.arange(n), pick_each(rng, OTHERS, n))
    others = draw_bodies(rng, bank, body, view[of])
    other_transl = (
        _places_around(rng, others, transl[of], view[of], ground[of]) if len(of) else np.zeros((0, 3))
    )
    kept = others.joints[..., 2].min(1) + other_transl[:, 2] > NEAREST
    others = Bodies(*(getattr(others, item.name)[kept] for item in fields(Bodies)))
    return Scenes(
        people, transl.astype(_F32), focal, _frames(rng, people, transl, focal, region, choice),
        others, other_transl[kept].astype(_F32), of[kept], view, ground, diagonal,
    )  # fmt: skip


def _places_around(
    rng: np.random.Generator,
    others: Bodies,
    transl: Float[NDArray[np.floating], "m 3"],
    view: Float32[NDArray[np.float32], "m 3 3"],
    ground: Float32[NDArray[np.float32], "m"],
) -> Float[NDArray[np.floating], "m 3"]:
    """Where further people stand: in any direction over the floor, two of three within reach; a tenth not on it."""
    m = len(transl)
    apart = np.where(rng.random(m) < 0.65, rng.uniform(0.22, 1.0, m), rng.uniform(1.0, 4.0, m))
    angle = rng.uniform(-np.pi, np.pi, m)
    over = np.stack([apart * np.cos(angle), np.zeros(m), apart * np.sin(angle)], 1)
    place = transl + (view @ over[..., None])[..., 0]
    up = view[..., 1]
    feet = (others.joints * up[:, None]).sum(-1).min(1) + (place * up).sum(-1) - FEET
    lift = np.where(rng.random(m) < 0.9, ground - feet, rng.normal(0, 0.15, m))
    return place + lift[:, None] * up


def cut_anywhere(
    rng: np.random.Generator, joints: Float32[NDArray[np.float32], "k 30 3"]
) -> Bool[NDArray[np.bool_], "k 30"]:
    """The joints on one side of a line across the image, up to a share of them."""
    k = len(joints)
    side = pick_each(rng, CUT_SIDES, k)
    along = (
        np.where((side < 2)[:, None], joints[..., 1], joints[..., 0])
        * np.where(side % 2 == 0, 1, -1)[:, None]
    )
    rank = along.argsort(1).argsort(1)
    return np.asarray(rank < (rng.uniform(*KEPT, k) * 30)[:, None])


def _views(rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 3 3"]:
    """World (y up) to camera: mostly level, sometimes from above, a little roll."""
    pitch = np.where(rng.random(n) < 0.15, rng.uniform(10, 50, n), np.clip(rng.normal(0, 15, n), -40, 40))
    roll = np.clip(rng.normal(0, 8, n), -30, 30)
    zero = np.zeros(n)
    tilt = matrices(np.radians(np.stack([pitch, zero, zero], 1)))
    turn = matrices(np.radians(np.stack([zero, zero, roll], 1)))
    upright = np.diag([1.0, -1.0, -1.0])  # y up, facing the camera -> y down, z away from it
    view = (turn @ tilt @ upright).astype(_F32)
    anyhow = np.flatnonzero(rng.random(n) < 0.03)
    if len(anyhow):
        view[anyhow] = _any_rotations(rng, len(anyhow))
    return view


def _any_rotations(rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 3 3"]:
    """Uniform over all rotations: a normal quaternion has no preferred direction."""
    quaternions = rng.standard_normal((n, 4))
    return np.asarray(Rotation.from_quat(quaternions).as_matrix(), _F32).reshape(n, 3, 3)


def _frame_region(
    joints: Float32[NDArray[np.float32], "n 30 3"],
    region: Bool[NDArray[np.bool_], "n 30"],
    focal: Float32[NDArray[np.float32], "n"],
    scale: Float64[NDArray[np.float64], "n"],
    shift: Float64[NDArray[np.float64], "n 2"],
) -> Float64[NDArray[np.float64], "n 3"]:
    """The translation that makes the crop `scale` times the region's square box, off centre by `shift` px."""
    transl, edges = np.zeros((len(joints), 3)), np.empty((len(joints), 4))
    transl[:, 2] = focal * 1.6 * scale / SIZE
    closest = NEAREST - joints[..., 2].min(1)
    for _ in range(
        6
    ):  # perspective makes the box depend on the depth: a fixed point, reached to a pixel or so
        _nearer(joints, region, focal, scale, shift, closest, transl, edges)
    transl[:, 2] = np.maximum(transl[:, 2], closest)
    return transl


@compiled
def _nearer(
    joints: Array32, region: NDArray[np.bool_], focal: Array32, scale: NDArray[np.float64],
    shift: NDArray[np.float64], closest: Array32, transl: NDArray[np.float64], edges: NDArray[np.float64],
) -> None:  # fmt: skip
    """A step of the fixed point, in place."""
    transl[:, 2] = np.maximum(transl[:, 2], closest)
    _edges(joints, transl, region, focal, edges)
    for i in range(len(joints)):
        side = max(edges[i, 2] - edges[i, 0], edges[i, 3] - edges[i, 1])
        ratio = min(max(side * scale[i] / SIZE, 0.5), 2.0)
        for k in range(2):
            middle = (edges[i, k] + edges[i, 2 + k]) / 2
            transl[i, k] += (CENTRE + shift[i, k] - middle) / focal[i] * transl[i, 2]
        for k in range(3):
            transl[i, k] *= ratio


def _box(
    people: Bodies, transl: NDArray[np.float64], region: NDArray[np.bool_], focal: Array32
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners (n, 2) of the box a detector would draw around the region's joints, crop px."""
    edges = np.empty((len(transl), 4))
    _edges(people.joints, transl, region, focal, edges)
    return edges[:, :2], edges[:, 2:]


@compiled
def _edges(
    joints: Array32, transl: NDArray[np.float64], region: NDArray[np.bool_], focal: Array32, out: NDArray[np.float64]
) -> None:  # fmt: skip
    for i in range(len(joints)):
        depths = joints[i, :, 2] + transl[i, 2]
        flesh = np.float32(FLESH) * focal[i] / max(depths.mean(), 0.05)
        for k in range(2):
            low, high = np.inf, -np.inf
            for j in range(joints.shape[1]):
                if region[i, j]:
                    at = (joints[i, j, k] + transl[i, k]) / max(depths[j], 0.05) * focal[i] + CENTRE
                    low, high = min(low, np.float32(at)), max(high, np.float32(at))  # as `project` rounds
            out[i, k], out[i, 2 + k] = low - flesh, high + flesh


def _frames(
    rng: np.random.Generator,
    people: Bodies,
    transl: Float64[NDArray[np.float64], "n 3"],
    focal: Float32[NDArray[np.float32], "n"],
    region: Bool[NDArray[np.bool_], "n 30"],
    choice: NDArray[np.int64],
) -> Float32[NDArray[np.float32], "n 4"]:
    """Where the source image ends inside the crop: rarely, or where a truncated person's box ends."""
    n = len(transl)
    frame = np.tile(np.array([0, 0, SIZE, SIZE], np.float64), (n, 1))
    low, high = _box(people, transl, region, focal)
    edges = np.concatenate([low, high], 1) + rng.uniform(-8, 8, (n, 4))
    cut = (rng.random(n) < CUT) & (choice > 0)
    # The box of a truncated person ends at the image's border, on the sides where the body goes on.
    whole_low, whole_high = _box(people, transl, np.ones_like(region), focal)
    goes_on = np.concatenate([whole_low < low - 3, whole_high > high + 3], 1) & cut[:, None]
    frame[goes_on] = edges[goes_on]
    padded = rng.random(n) < 0.1
    where = rng.integers(0, 4, n)
    depth = rng.uniform(0.02, 0.25, n) * SIZE
    rows = np.flatnonzero(padded & ~cut)
    frame[rows, where[rows]] = np.where(where[rows] < 2, depth[rows], SIZE - depth[rows])
    frame[:, :2] = np.clip(frame[:, :2], 0, 96)
    frame[:, 2:] = np.clip(frame[:, 2:], 160, SIZE)
    return np.round(frame).astype(_F32)
