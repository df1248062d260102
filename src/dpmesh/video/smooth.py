"""Motion smoothed over a track, offline: zero phase, weighted by each joint's sigma, rotations on SO(3).

A Whittaker smoother (Eilers, Analytical Chemistry 2003): the series x that minimises
Σ w_t (x_t - y_t)² + λ Σ (x_{t-1} - 2 x_t + x_{t+1})². Where w = 1, a sine of f Hz keeps 1 / (1 + λ (2 sin(π f / fps))⁴)
of its height; λ is set by the frequency that keeps half. Rotation matrices are smoothed by element and projected back
to the nearest rotation (the chordal mean), so that no angle is ever wrapped or filtered by component.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded

HALF_HZ = 6.0
"""Frequency of which half the height is kept, of rotations, at weight 1."""
TRANSL_HALF_HZ = 4.0
DEPTH_HALF_HZ = 1.2
"""Depth is read from size alone, so it trembles more than it moves."""


def stiffness(half_hz: float, fps: float) -> float:
    """λ at which a sine of half_hz keeps half of its height."""
    return 1.0 / (2 * np.sin(np.pi * min(half_hz / fps, 0.5))) ** 4


def whittaker(
    values: Float[np.ndarray, "t d"], weights: Float[np.ndarray, " t"], stiff: float
) -> Float[np.ndarray, "t d"]:
    """The smoothed series; a weight of 0 is a gap, which is filled. Needs a positive weight in two places (in one for a
    single row)."""
    count = len(values)
    if count < 3:
        return np.asarray(values, np.float64)
    bands = np.zeros((3, count))  # the upper bands of W + λ D'D, for solveh_banded
    bands[2] = weights + 1e-9
    second = np.array([1.0, -2.0, 1.0])
    for shift in range(3):
        for a in range(3 - shift):
            at = slice(a + shift, a + shift + count - 2)
            bands[2 - shift, at] += stiff * second[a] * second[a + shift]
    return solveh_banded(bands, weights[:, None] * values)


def smooth_rotations(
    matrices: Float[np.ndarray, "t j 3 3"], weights: Float[np.ndarray, "t j"], stiff: float
) -> Float[np.ndarray, "t j 3 3"]:
    """Each joint's rotations over time."""
    out = np.empty_like(matrices, dtype=np.float64)
    for joint in range(matrices.shape[1]):
        flat = whittaker(matrices[:, joint].reshape(len(matrices), 9), weights[:, joint], stiff)
        out[:, joint] = nearest_rotation(flat.reshape(-1, 3, 3))
    return out


def nearest_rotation(matrices: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """In the Frobenius norm (orthogonal Procrustes with determinant 1)."""
    left, _, right = np.linalg.svd(matrices)
    sign = np.ones((len(matrices), 3))
    sign[:, 2] = np.linalg.det(left @ right)
    return (left * sign[:, None]) @ right


def place_in_image(
    joints: Float[np.ndarray, "t k 3"],
    pixels: Float[np.ndarray, "t k 2"],
    weights: Float[np.ndarray, "t k"],
    K: Float[np.ndarray, "3 3"],
    start: Float[np.ndarray, "t 3"],
    fps: float,
) -> Float[np.ndarray, "t 3"]:
    """Translations that put joints (metres, about the pelvis) onto pixels, smooth in time.

    Reprojection is made linear in the translation by multiplying with the depth of `start`; depth is smoothed harder
    than the rest, and the rest is then solved for the smoothed depth, so that the body stays on the image.
    weights: of each joint, 1 / px², 0 where its pixels are not known.
    """
    focal, centre = K[[0, 1], [0, 1]], K[:2, 2]
    rays = (pixels - centre) / focal
    here = start.astype(np.float64).copy()
    seen = weights > 0
    known = seen.sum(1) >= 2
    rays = np.where(seen[..., None], rays, 0.0)
    for _ in range(3):
        depth = np.maximum(joints[..., 2] + here[:, None, 2], 0.1)
        w = np.where(seen, weights, 0.0) * (focal.mean() / depth) ** 2
        free = _solve_frames(joints, rays, w, known, here)
        z = whittaker(
            np.log(np.maximum(free[:, 2:], 0.1)), known.astype(float), stiffness(DEPTH_HALF_HZ, fps)
        )
        here[:, 2] = np.exp(z[:, 0])
        # x and y at this depth: a weighted mean of each joint's own.
        total = np.maximum(w.sum(1), 1e-12)[:, None]
        flat = rays * (joints[..., 2:] + here[:, None, 2:]) - joints[..., :2]
        xy = (w[..., None] * flat).sum(1) / total
        here[:, :2] = whittaker(xy, known.astype(float), stiffness(TRANSL_HALF_HZ, fps))
    return here


def _solve_frames(
    joints: Float[np.ndarray, "t k 3"],
    rays: Float[np.ndarray, "t k 2"],
    weights: Float[np.ndarray, "t k"],
    known: Bool[np.ndarray, " t"],
    start: Float[np.ndarray, "t 3"],
) -> Float[np.ndarray, "t 3"]:
    """Each frame's own translation by weighted least squares: X + tx - ray (Z + tz) = 0; `start` where not known."""
    out = start.astype(np.float64).copy()
    for t in np.flatnonzero(known):
        w = np.sqrt(weights[t])
        rows = np.zeros((2 * len(w), 3))
        rows[0::2, 0], rows[1::2, 1] = w, w
        rows[0::2, 2], rows[1::2, 2] = -w * rays[t, :, 0], -w * rays[t, :, 1]
        right = np.empty(2 * len(w))
        right[0::2] = w * (rays[t, :, 0] * joints[t, :, 2] - joints[t, :, 0])
        right[1::2] = w * (rays[t, :, 1] * joints[t, :, 2] - joints[t, :, 1])
        out[t] = np.linalg.lstsq(rows, right, rcond=None)[0]
    return out


def weighted_median(
    values: Float[np.ndarray, "t d"], weights: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " d"]:
    """Of each column: where half of the weight lies below."""
    order = np.argsort(values, axis=0)
    total = np.cumsum(weights[order], axis=0)
    at = (total >= 0.5 * total[-1]).argmax(0)
    return np.take_along_axis(np.take_along_axis(values, order, 0), at[None], 0)[0]
