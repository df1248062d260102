"""Random posed people: captured poses, drawn shapes, any heading, without self-collisions."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.data.synthetic.body import FastBody, matrices, rotvecs
from dpmesh.data.synthetic.self_collision import tangled

_F32 = np.float32
REDRAWN = 3
"""Times that bodies which collide with themselves are drawn again: of 4 % (2 % as recorded) few are left."""


@runtime_checkable
class PoseSource(Protocol):
    """Body poses: axis-angle (n, 24, 3), joint 0 in a y-up world. data.poses.PoseBank is one."""

    def sample(self, rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 24 3"]: ...


@dataclass(frozen=True)
class Bodies:
    """n posed people. pose: axis-angle, row 0 global_orient; joints (30-set), coco: metres, transl 0."""

    pose: Float32[NDArray[np.float32], "n 24 3"]
    rotations: Float32[NDArray[np.float32], "n 24 3 3"]
    betas: Float32[NDArray[np.float32], "n 10"]
    joints: Float32[NDArray[np.float32], "n 30 3"]
    coco: Float32[NDArray[np.float32], "n 17 3"]


def draw_bodies(
    rng: np.random.Generator, bank: PoseSource, body: FastBody, view: Float32[NDArray[np.float32], "n 3 3"]
) -> Bodies:
    """Random people, oriented in the camera frame of each view. Bodies that collide with themselves are drawn again.

    view: rotations from the world, y up, to the camera.
    """
    n = len(view)
    if not n:
        return Bodies(
            *(np.zeros((0, *shape), _F32) for shape in ((24, 3), (24, 3, 3), (10,), (30, 3), (17, 3)))
        )
    pose, betas, rotations, both = _any_bodies(rng, bank, body, view)
    for _ in range(REDRAWN):
        rows = np.flatnonzero(tangled(both[:, :30]))
        if not len(rows):
            break
        pose[rows], betas[rows], rotations[rows], both[rows] = _any_bodies(rng, bank, body, view[rows])
    return Bodies(pose, rotations, betas, both[:, :30], both[:, 30:])


def _any_bodies(
    rng: np.random.Generator, bank: PoseSource, body: FastBody, view: Float32[NDArray[np.float32], "n 3 3"]
) -> tuple[NDArray[np.float32], ...]:
    """pose, betas, rotations, and the 30 and 17 joints concatenated."""
    n = len(view)
    pose, betas = np.array(bank.sample(rng, n), _F32), draw_betas(rng, n)
    yaw = np.zeros((n, 3))
    yaw[:, 1] = rng.uniform(-np.pi, np.pi, n)
    rotations = matrices(pose)
    rotations[:, 0] = view @ matrices(yaw) @ rotations[:, 0]
    pose[:, 0] = rotvecs(rotations[:, 0])
    return pose, betas, rotations, np.concatenate(body.joints(betas, rotations), 1)


def draw_betas(rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 10"]:
    """Shapes: men and women, the young and small, wider than the free body's own population (docs/reference/body.md).

    A standard normal is that population, whose mean shape is a slim woman.
    Component 0 is height (and a man's build above), 1 the build of a man (+) or woman (-), 2 weight, 3 girth: below
    -2 the waist is thinner than any person's, so the component is cut there.
    """
    betas = rng.standard_normal((n, 10)) * SPREAD
    betas[:, :2] += np.where(rng.random(n) < 0.5, 1.0, -1.0)[:, None] * SEX
    young = rng.random(n) < YOUNG
    betas[young, 0] = rng.uniform(-4.5, -2.2, int(young.sum()))
    return np.clip(betas, LEAST, MOST).astype(_F32)


SPREAD = np.array([1.1, 1.1, 1.3, 1.2, 1, 1, 1, 1, 1, 1])
SEX = np.array([0.45, 0.8])
YOUNG = (
    0.08  # 1.3 to 1.5 m tall with a large head: as near to a child of ten as ten components of adults come
)
LEAST = np.array([-4.5, -3, -2.5, -1.8, -2.5, -2.5, -2.5, -2.5, -2.5, -2.5])
MOST = np.array([3, 3, 3, 3.2, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5])
