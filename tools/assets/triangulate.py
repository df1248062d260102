"""Joints of one person from several calibrated cameras and several 2D detectors, robustly.

Each joint of each frame is triangulated from the pair of views that most of the others agree with, then refined over
the views that agree (Cauchy weights, Gauss-Newton on pixels). A joint is measured where at least `CAMERAS` cameras
agree within `GATE` pixels. Over time the joints are smoothed by a robust quadratic fit in a window.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GATE = 15.0
"""Pixels; at 4 m and a focal length of 1680 px, 36 mm."""
CAMERAS = 3
SCALE = 4.0
"""Of the Cauchy weights, pixels."""
CONFIDENCE = 0.2
WINDOW = 4
"""Frames before and after, at 60 Hz."""
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class View:
    """One detector in one camera. P: 3×4, world to pixels. points: (f, j, 3), x, y, confidence."""

    camera: int
    P: Array
    points: Array


@dataclass(frozen=True, eq=False)
class Joints:
    """joints: (f, j, 3), metres, world. measured: (f, j). residual: (f, j), px, the root mean square over the views
    that agree. cameras: (f, j), how many of those have one."""

    joints: Array
    measured: NDArray[np.bool_]
    residual: Array
    cameras: NDArray[np.int64]


def triangulate(views: list[View]) -> Joints:
    """One person's joints from all views."""
    points = np.stack([view.points for view in views], 2)  # (f, j, v, 3)
    frames, count, _, _ = points.shape
    P = np.stack([view.P for view in views])
    camera = np.array([view.camera for view in views])
    flat = points.reshape(frames * count, len(views), 3)
    solid, agree = triangulate_flat(flat, P, camera, GATE)
    off = _residuals(solid, flat[..., :2], P)
    cameras = np.sum([agree[:, camera == one].any(1) for one in np.unique(camera)], axis=0)
    with np.errstate(invalid="ignore"):
        residual = np.sqrt((off**2 * agree).sum(1) / agree.sum(1))
    shape = (frames, count)
    return Joints(
        solid.reshape(*shape, 3),
        (cameras >= CAMERAS).reshape(shape),
        residual.reshape(shape),
        cameras.reshape(shape),
    )


def triangulate_flat(
    points: Array, P: Array, camera: NDArray[np.int64], gate: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Points (n, v, 3: x, y, confidence) of v views with matrices (v, 3, 4): (n, 3) metres, and (n, v) which agree."""
    weight = np.where(points[..., 2] >= CONFIDENCE, points[..., 2], 0.0)
    solid = _agreed(points[..., :2], weight, P, camera, gate)
    for _ in range(10):
        solid = _refined(solid, points[..., :2], weight, P, gate)
    return solid, (_residuals(solid, points[..., :2], P) < gate) & (weight > 0)


def projected_with(solid: Array, points: Array, weight: Array, P: Array) -> Array:
    """Where points (n, 3) lie in each view (n, v, 2) after they have been fitted anew to it."""
    for _ in range(3):
        solid = _refined(solid, points, weight, P, np.inf)
    image = np.einsum("vij,nj->nvi", P[:, :, :3], solid) + P[None, :, :, 3]
    return image[..., :2] / image[..., 2:]


def _agreed(points: Array, weight: Array, P: Array, camera: NDArray[np.int64], gate: float) -> Array:
    """(n, 3): of all pairs of views of two cameras, the point with the largest weight of views within `gate`."""
    best, score = np.zeros((len(points), 3)), np.full(len(points), -1.0)
    for a in range(len(P)):
        for b in range(a + 1, len(P)):
            if camera[a] == camera[b]:
                continue
            solid = _linear(points[:, [a, b]], P[[a, b]])
            off = _residuals(solid, points, P)
            pair = np.minimum(weight[:, a], weight[:, b]) > 0
            votes = np.where(pair, (weight * (off < gate) * (1 - off / (2 * gate))).sum(1), -1.0)
            better = votes > score
            best[better], score[better] = solid[better], votes[better]
    return best


def _linear(points: Array, P: Array) -> Array:
    """(n, v, 2) to (n, 3), by the direct linear transform."""
    rows = points[..., :, None] * P[None, :, 2:3] - P[None, :, :2]  # (n, v, 2, 4)
    rows = rows.reshape(len(points), -1, 4)
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    last = np.linalg.svd(rows)[2][:, -1]
    return last[:, :3] / np.where(np.abs(last[:, 3:]) < 1e-12, 1e-12, last[:, 3:])


def project(solid: Array, P: Array) -> Array:
    """(..., 3) metres, world, to (..., 2) pixels."""
    image = solid @ P[:, :3].T + P[:, 3]
    return image[..., :2] / image[..., 2:]


def _residuals(solid: Array, points: Array, P: Array) -> Array:
    image = np.einsum("vij,nj->nvi", P[:, :, :3], solid) + P[None, :, :, 3]
    off = np.linalg.norm(image[..., :2] / image[..., 2:] - points, axis=-1)
    return np.where(image[..., 2] > 0, np.nan_to_num(off, nan=1e6), 1e6)


def _refined(solid: Array, points: Array, weight: Array, P: Array, gate: float) -> Array:
    """One Gauss-Newton step on the weighted pixel errors."""
    image = np.einsum("vij,nj->nvi", P[:, :, :3], solid) + P[None, :, :, 3]
    flat = image[..., :2] / image[..., 2:]
    error = flat - points
    off = np.linalg.norm(error, axis=-1)
    robust = weight / (1 + (off / SCALE) ** 2) * (off < 2 * gate)
    slope = (P[None, :, :2, :3] - flat[..., None] * P[None, :, 2:3, :3]) / image[..., 2:, None]
    normal = np.einsum("nv,nvki,nvkj->nij", robust, slope, slope) + 1e-6 * np.eye(3)
    step = np.linalg.solve(normal, np.einsum("nv,nvki,nvk->ni", robust, slope, error)[..., None])[..., 0]
    return solid - np.clip(np.nan_to_num(step), -0.1, 0.1)


def smooth(joints: Joints) -> Joints:
    """Each joint over time: a quadratic in the window of each frame, with Cauchy weights (scale 10 mm).

    A joint is measured where it was in the middle frame, or in frames on both sides of it within the window.
    """
    frames = len(joints.joints)
    out, measured = joints.joints.copy(), joints.measured.copy()
    for frame in range(frames):
        near = np.arange(max(0, frame - WINDOW), min(frames, frame + WINDOW + 1))
        time = (near - frame) / WINDOW
        basis = np.stack([np.ones(len(near)), time, time**2], 1)
        for joint in range(out.shape[1]):
            known = joints.measured[near, joint]
            sides = known[near <= frame].any() and known[near >= frame].any()
            measured[frame, joint] = sides and known.sum() > basis.shape[1]
            if not measured[frame, joint]:
                continue
            values, weight = joints.joints[near, joint], known.astype(float)
            for _ in range(5):
                normal = (basis * weight[:, None]).T @ basis + 1e-9 * np.eye(3)
                fit = np.linalg.solve(normal, (basis * weight[:, None]).T @ values)
                off = np.linalg.norm(basis @ fit - values, axis=1)
                weight = known / (1 + (off / 0.01) ** 2)
            out[frame, joint] = fit[0]
    return Joints(out, measured, joints.residual, joints.cameras)


def bones(joints: Joints, pairs: list[tuple[int, int]]) -> Array:
    """(b, 2): mean and standard deviation over the frames of each bone's length, metres."""
    rows: list[tuple[float, float]] = []
    for a, b in pairs:
        both = joints.measured[:, a] & joints.measured[:, b]
        length = np.linalg.norm(joints.joints[both, a] - joints.joints[both, b], axis=1)
        rows.append((float(length.mean()), float(length.std())) if both.any() else (np.nan, np.nan))
    return np.array(rows)
