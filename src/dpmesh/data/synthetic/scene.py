"""Who stands where, and what the camera's crop frames: everything about a sample but its picture.

Vectorised over samples. Frame: the crop camera's (docs/conventions.md), 256×256 px, centre (128, 128).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # pyright: ignore[reportMissingTypeStubs]

from dpmesh.data.synthetic.body import FastBody, matrices
from dpmesh.geometry import CROP
from dpmesh.skeletons import JOINTS30

SIZE = CROP
CENTRE = 128.0
FOCAL = (300.0, 3000.0)  # crop px, log-uniform
FLESH = 0.07  # metres between a joint and the end of the body, where a detector's box ends
NEAREST = 0.35  # metres between the camera and the nearest joint, at least
_F32 = np.float32


def _set(*names: str) -> NDArray[np.bool_]:
    return np.array([any(joint.endswith(name) for name in names) for joint in JOINTS30.joints])


_HEAD = ("Head_top", "Nose", "Eye", "Ear", "Head", "Neck")
_UPPER = (*_HEAD, "Thorax", "Shoulder", "Elbow", "Wrist", "Hand", "Chest", "Spine", "Torso")
# What the box is drawn around: (probability, joints).
REGIONS = (
    (0.75, np.ones(30, bool)),
    (0.12, _set(*_UPPER, "Hip", "Pelvis")),
    (0.05, _set(*_UPPER, "Hip", "Pelvis", "Knee")),
    (0.03, _set(*_HEAD, "Shoulder", "Chest", "Thorax")),
    (0.02, _set("Pelvis", "Hip", "Knee", "Ankle", "Toe")),
    (0.015, np.array([not joint.startswith("L_") for joint in JOINTS30.joints])),
    (0.015, np.array([not joint.startswith("R_") for joint in JOINTS30.joints])),
)


@runtime_checkable
class PoseSource(Protocol):
    """Gives body poses: axis-angle (n, 24, 3), joint 0 in a y-up world. data.poses.PoseBank is one."""

    def sample(self, rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 24 3"]: ...


@dataclass(frozen=True)
class Bodies:
    """n posed people. pose: axis-angle, row 0 global_orient; joints (30-set), coco: metres, transl 0."""

    pose: Float32[NDArray[np.float32], "n 24 3"]
    rotations: Float32[NDArray[np.float32], "n 24 3 3"]
    betas: Float32[NDArray[np.float32], "n 10"]
    joints: Float32[NDArray[np.float32], "n 30 3"]
    coco: Float32[NDArray[np.float32], "n 17 3"]


@dataclass(frozen=True)
class Scenes:
    """n samples: the person, where it stands, and a second person in some of them.

    focal px.  frame (n, 4): x1 y1 x2 y2 in crop px, the part of the crop that the source picture covers.
    has_other: whether there is a second person (`others` holds one for every sample all the same).
    view (n, 3, 3): from the world, y up, to the camera.
    """

    people: Bodies
    transl: Float32[NDArray[np.float32], "n 3"]
    focal: Float32[NDArray[np.float32], "n"]
    frame: Float32[NDArray[np.float32], "n 4"]
    others: Bodies
    other_transl: Float32[NDArray[np.float32], "n 3"]
    has_other: Bool[NDArray[np.bool_], "n"]
    view: Float32[NDArray[np.float32], "n 3 3"]


def project(
    points: Float[NDArray[np.floating], "n k 3"], focal: Float[NDArray[np.floating], "n"]
) -> Float32[NDArray[np.float32], "n k 2"]:
    """Metres in the crop camera's frame to crop pixels. Points behind the camera are mapped as if at 5 cm."""
    depth = np.maximum(points[..., 2:], 0.05)
    return (points[..., :2] / depth * focal[:, None, None] + CENTRE).astype(_F32)


def draw_scenes(rng: np.random.Generator, n: int, bank: PoseSource, body: FastBody) -> Scenes:
    """n independent scenes."""
    view = _views(rng, n)
    people, others = _draw_bodies(rng, bank, body, view), _draw_bodies(rng, bank, body, view)
    focal = np.exp(rng.uniform(np.log(FOCAL[0]), np.log(FOCAL[1]), n)).astype(_F32)

    choice = rng.choice(len(REGIONS), n, p=[p for p, _ in REGIONS])
    region = np.stack([joints for _, joints in REGIONS])[choice]
    scale = rng.uniform(0.85, 1.5, n)
    shift = rng.uniform(-0.15, 0.15, (n, 2)) * rng.random((n, 1)) * SIZE  # small shifts more often
    transl = _frame_region(people.joints, region, focal, scale, shift)

    # The second person: beside and a little before or behind, on about the same ground.
    side = rng.choice([-1.0, 1.0], (n, 2))
    apart = np.stack([rng.uniform(0.2, 0.9, n), rng.normal(0, 0.08, n), rng.uniform(0.25, 1.2, n)], 1)
    apart[:, [0, 2]] *= side
    other_transl = transl + apart
    near = others.joints[..., 2].min(1) + other_transl[:, 2]
    has_other = (rng.random(n) < 0.3) & (near > NEAREST)
    return Scenes(
        people, transl.astype(_F32), focal, _frames(rng, people, transl, focal, region, choice),
        others, other_transl.astype(_F32), has_other, view,
    )  # fmt: skip


def _views(rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 3 3"]:
    """World (y up) to camera: mostly level, sometimes from above, a little roll."""
    pitch = np.where(rng.random(n) < 0.15, rng.uniform(10, 50, n), np.clip(rng.normal(0, 15, n), -40, 40))
    roll = np.clip(rng.normal(0, 8, n), -30, 30)
    zero = np.zeros(n)
    tilt = matrices(np.radians(np.stack([pitch, zero, zero], 1)))
    turn = matrices(np.radians(np.stack([zero, zero, roll], 1)))
    upright = np.diag([1.0, -1.0, -1.0])  # y up, facing the camera -> y down, z away from it
    view = (turn @ tilt @ upright).astype(_F32)
    anyhow = rng.random(n) < 0.03
    view[anyhow] = _any_rotations(rng, int(anyhow.sum()))
    return view


def _any_rotations(rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 3 3"]:
    """Uniform over all rotations: a normal quaternion has no preferred direction."""
    quaternions = rng.standard_normal((n, 4))
    return np.asarray(Rotation.from_quat(quaternions).as_matrix(), _F32).reshape(n, 3, 3)


def _axis_angle(rotations: Float32[NDArray[np.float32], "n 3 3"]) -> Float32[NDArray[np.float32], "n 3"]:
    return np.asarray(Rotation.from_matrix(rotations).as_rotvec(), _F32)


def _draw_bodies(
    rng: np.random.Generator, bank: PoseSource, body: FastBody, view: Float32[NDArray[np.float32], "n 3 3"]
) -> Bodies:
    n = len(view)
    pose = np.array(bank.sample(rng, n), _F32)
    betas = np.clip(rng.standard_normal((n, 10)), -2.5, 2.5).astype(_F32)
    yaw = np.zeros((n, 3))
    yaw[:, 1] = rng.uniform(-np.pi, np.pi, n)
    rotations = matrices(pose)
    rotations[:, 0] = view @ matrices(yaw) @ rotations[:, 0]
    pose[:, 0] = _axis_angle(rotations[:, 0])
    joints, coco = body.joints(betas, rotations)
    return Bodies(pose, rotations, betas, joints, coco)


def _frame_region(
    joints: Float32[NDArray[np.float32], "n 30 3"],
    region: Bool[NDArray[np.bool_], "n 30"],
    focal: Float[NDArray[np.floating], "n"],
    scale: Float[NDArray[np.floating], "n"],
    shift: Float[NDArray[np.floating], "n 2"],
) -> Float[NDArray[np.floating], "n 3"]:
    """The translation that makes the crop `scale` times the region's square box, off centre by `shift` px."""
    transl = np.zeros((len(joints), 3))
    transl[:, 2] = focal * 1.6 * scale / SIZE
    closest = NEAREST - joints[..., 2].min(1)
    for _ in range(
        6
    ):  # perspective makes the box depend on the depth: a fixed point, reached to a pixel or so
        transl[:, 2] = np.maximum(transl[:, 2], closest)
        low, high = _box(joints + transl[:, None], region, focal)
        side = (high - low).max(1)
        ratio = np.clip(side * scale / SIZE, 0.5, 2)
        middle = (low + high) / 2
        transl[:, :2] += (CENTRE + shift - middle) / focal[:, None] * transl[:, 2:]
        transl *= ratio[:, None]
    transl[:, 2] = np.maximum(transl[:, 2], closest)
    return transl


def _box(
    points: Float[NDArray[np.floating], "n 30 3"],
    region: Bool[NDArray[np.bool_], "n 30"],
    focal: Float[NDArray[np.floating], "n"],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners (n, 2) of the box a detector would draw around the region's joints, crop px."""
    pixels = project(points, focal).astype(np.float64)
    flesh = (FLESH * focal / np.maximum(points[..., 2].mean(1), 0.05))[:, None]
    low = np.where(region[..., None], pixels, np.inf).min(1) - flesh
    high = np.where(region[..., None], pixels, -np.inf).max(1) + flesh
    return low, high


def _frames(
    rng: np.random.Generator,
    people: Bodies,
    transl: Float[NDArray[np.floating], "n 3"],
    focal: Float[NDArray[np.floating], "n"],
    region: Bool[NDArray[np.bool_], "n 30"],
    choice: NDArray[np.int64],
) -> Float32[NDArray[np.float32], "n 4"]:
    """Where the source picture ends inside the crop: rarely, or where a truncated person's box ends."""
    n = len(transl)
    frame = np.tile(np.array([0, 0, SIZE, SIZE], np.float64), (n, 1))
    low, high = _box(people.joints + transl[:, None], region, focal)
    edges = np.concatenate([low, high], 1) + rng.uniform(-8, 8, (n, 4))
    cut = (rng.random(n) < 0.4) & (choice > 0)
    # The box of a truncated person ends at the picture's border, on the sides where the body goes on.
    whole_low, whole_high = _box(people.joints + transl[:, None], np.ones_like(region), focal)
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
