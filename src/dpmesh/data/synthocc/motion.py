"""Recorded motion of held-out clips, on the ground: the pose bank's 10 frames a second made 25, and where the body is.

The bank has no translations. They follow from the feet: the lowest part of the body touches the ground, and what is low
does not slide. World frame: y up, the ground at y = 0, metres; the body starts at x = z = 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from dpmesh.data.poses import PoseBank, mirror
from dpmesh.data.synthocc.bodies import DIGITS, People
from dpmesh.data.synthocc.patterns import Array
from dpmesh.skeletons import JOINTS30

FPS, BANK_FPS = 25, 10
FRAMES = 60
"""Of a clip: 2.4 seconds."""
_RECORDED = FRAMES * BANK_FPS // FPS + 2
"""Frames of the bank that a clip is made from: one more at either end."""
_FASTEST = 1.2
"""Radians from one recorded frame to the next; more is a cut in the recording."""
FEET = tuple(JOINTS30.index(f"{side}_{part}") for side in "LR" for part in ("Ankle", "Toe"))
SOLE = np.array([0.08, 0.02, 0.08, 0.02])
"""Height of each of FEET above the ground when it stands, metres."""
_STANDS, _NEAR = 0.1, 0.04
"""Metres a second, and metres above that height, of a foot in contact."""
_LOW = 0.015
"""Metres: how sharply the lowest foot holds the body."""


@dataclass(frozen=True, eq=False)
class Window:
    """Frames [start, start + _RECORDED) of a recorded clip."""

    name: str
    start: int
    poses: Float[np.ndarray, "n 24 3"]


@dataclass(frozen=True, eq=False)
class Motion:
    """A body over FRAMES frames. vertices, joints (30-set), coco: world frame, metres; contacts: of FEET."""

    vertices: Float[Array, "t v 3"]
    joints: Float[Array, "t 30 3"]
    coco: Float[Array, "t 17 3"]
    contacts: Bool[np.ndarray, "t 4"]

    @property
    def travel(self) -> Float[Array, "2"]:
        """From the first to the last frame along the ground: x, z."""
        return (self.joints[-1, 0] - self.joints[0, 0])[[0, 2]]


def windows() -> list[Window]:
    """All windows of the held-out clips without a cut, half a second apart."""
    bank = PoseBank.load("test")
    out: list[Window] = []
    first = 0
    for name, length in zip(bank.names, bank.lens, strict=True):
        poses = bank.poses[first : first + length]
        first += length
        for start in range(0, length - _RECORDED + 1, BANK_FPS // 2):
            part = poses[start : start + _RECORDED].astype(np.float64)
            turns = Rotation.from_rotvec(part.reshape(-1, 3)).as_matrix().reshape(_RECORDED, 24, 3, 3)
            steps = np.einsum("tjab,tjab->tj", turns[1:], turns[:-1])
            if steps.min() > 1 + 2 * np.cos(_FASTEST):
                out.append(Window(name, start, part))
    return out


def recorded(
    people: People, window: Window, betas: Float[Array, "10"], mirrored: bool, turn: float
) -> Motion:
    """The motion of a body of that shape, turned about the vertical by `turn` radians."""
    poses = mirror(window.poses.astype(np.float32)).astype(np.float64) if mirrored else window.poses
    matrices = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(len(poses), 24, 3, 3)
    matrices[:, 0] = Rotation.from_rotvec([0.0, turn, 0.0]).as_matrix() @ matrices[:, 0]
    between = _between(matrices)
    vectors = Rotation.from_matrix(between.reshape(-1, 3, 3)).as_rotvec().reshape(FRAMES, 24, 3)
    vertices, joints, coco = people.moving(vectors.round(DIGITS["pose"]), betas)
    path = _path(joints, vertices[..., 1].min(1))[:, None]
    return Motion(vertices + path, joints + path, coco + path, _contacts(joints + path))


def _between(matrices: Float[Array, "n j 3 3"]) -> Float[Array, "t j 3 3"]:
    """Catmull and Rom's spline of the matrices, and the nearest rotations."""
    at = 1 + np.arange(FRAMES) * BANK_FPS / FPS
    before = at.astype(np.int64)
    u = (at - before)[:, None, None, None]
    p = [matrices[np.minimum(before + k, len(matrices) - 1)] for k in (-1, 0, 1, 2)]
    blended = p[1] + 0.5 * u * (
        p[2] - p[0] + u * (2 * p[0] - 5 * p[1] + 4 * p[2] - p[3] + u * (3 * (p[1] - p[2]) + p[3] - p[0]))
    )
    left, _, right = np.linalg.svd(blended)
    left[..., 2] *= np.linalg.det(left @ right)[..., None]
    return left @ right


def _path(joints: Float[Array, "t 30 3"], lowest: Float[Array, " t"]) -> Float[Array, "t 3"]:
    """Translations by which low feet stand still and the lowest vertex touches the ground, smoothed."""
    feet = joints[:, FEET]
    height = feet[..., 1] - SOLE - lowest[:, None]
    weight = np.exp(-np.clip(height, 0, 0.3) / _LOW)
    pair = weight[1:] * weight[:-1]
    step = -(pair[..., None] * np.diff(feet, axis=0)).sum(1) / pair.sum(1)[:, None]
    path = np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)])
    path[:, 1] = -lowest
    padded = np.concatenate([path[:1], path[:1], path, path[-1:], path[-1:]])
    smooth = sum(share / 16 * padded[k : k + len(path)] for k, share in enumerate((1, 4, 6, 4, 1)))
    path[:, 1] = np.asarray(smooth)[:, 1]
    path -= [*path[0, [0]], 0.0, *path[0, [2]]]
    return path.round(DIGITS["metres"])


def _contacts(joints: Float[Array, "t 30 3"]) -> Bool[np.ndarray, "t 4"]:
    """Feet that are low and hardly move, before and after the frame."""
    feet = joints.round(DIGITS["metres"])[:, FEET]
    speed = np.linalg.norm(np.diff(feet, axis=0), axis=-1) * FPS
    slow = np.minimum(np.concatenate([speed[:1], speed]), np.concatenate([speed, speed[-1:]])) < _STANDS
    return slow & (feet[..., 1] - SOLE < _NEAR)
