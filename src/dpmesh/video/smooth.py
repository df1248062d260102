"""Motion smoothed over a track, offline: zero phase, weighted by each joint's sigma, rotations on SO(3).

A Whittaker smoother (Eilers, Analytical Chemistry 2003): the series x that minimises
Σ w_t (x_t - y_t)² + λ Σ (Dᵏ x)_t², with k-th differences Dᵏ. Where w = 1, a sine of f Hz keeps
1 / (1 + λ (2 sin(π f / fps))²ᵏ) of its height; λ is set by the frequency that keeps half. Rotation matrices are
smoothed by element and projected back to the nearest rotation (the chordal mean), so that no angle is ever wrapped or
filtered by component. Frames that stand out from those around them (Hampel's rule) count little; a joint that turns
fast is smoothed less than one that rests.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import solveh_banded

ROOT_HALF_HZ, HALF_HZ = 1.25, 1.75
"""Frequency of which half the height is kept, of the body's and its limbs' rotations at rest, at weight 1."""
FIRST_HALF_HZ = 3.0
"""The same where a joint's speed is first read."""
ORDER = 3
"""Of the differences, of rotations."""
FAST, MOST_FAST, AROUND = 1.5, 32.0, 0.15
"""Radians a second from which the weight of a turning joint grows, with the square of its speed; the most it grows by;
and the seconds before and after over which the square is averaged."""
LEAST = 0.05
"""Weight of an outlier: without any, the ends of a series run away."""
ALONE, WINDOW, STEADY = 2.0, 0.1, 0.03
"""A frame is an outlier beyond ALONE robust deviations from the median of WINDOW seconds before and after; a deviation
is at least STEADY radians."""
TRANSL_HALF_HZ = 4.0
DEPTH_HALF_HZ = 1.2
"""Depth is read from size alone, so it trembles more than it moves."""


def stiffness(half_hz: float, fps: float, order: int = 2) -> float:
    """λ at which a sine of half_hz keeps half of its height."""
    return 1.0 / (2 * np.sin(np.pi * min(half_hz / fps, 0.5))) ** (2 * order)


def whittaker(
    values: Float[np.ndarray, "t d"], weights: Float[np.ndarray, " t"], stiff: float, order: int = 2
) -> Float[np.ndarray, "t d"]:
    """The smoothed series; a weight of 0 is a gap, which is filled. Needs a positive weight in two places (in one for a
    single row). order: of the differences; fewer for a short series."""
    count = len(values)
    order = min(order, count - 1)
    if order < 2:
        return np.asarray(values, np.float64)
    difference = np.diff(np.eye(order + 1), order, axis=0)[0]
    bands = np.zeros((order + 1, count))  # the upper bands of W + λ D'D, for solveh_banded
    bands[order] = weights + 1e-9
    for shift in range(order + 1):
        for a in range(order + 1 - shift):
            at = slice(a + shift, a + shift + count - order)
            bands[order - shift, at] += stiff * difference[a] * difference[a + shift]
    return solveh_banded(bands, weights[:, None] * values)


def smooth_rotations(
    matrices: Float[np.ndarray, "t j 3 3"], weights: Float[np.ndarray, "t j"], fps: float
) -> Float[np.ndarray, "t j 3 3"]:
    """Each joint's rotations over time; joint 0 is the root."""
    out = np.empty_like(matrices, dtype=np.float64)
    reach = max(1, round(AROUND * fps))
    for joint in range(matrices.shape[1]):
        half_hz = HALF_HZ if joint else ROOT_HALF_HZ
        flat = matrices[:, joint].reshape(len(matrices), 9).astype(np.float64)
        weight = np.maximum(weights[:, joint] * _typical(flat, fps), LEAST)
        faster, turns = np.ones(len(flat)), matrices[:, joint]
        for hz in (FIRST_HALF_HZ, half_hz, half_hz, half_hz):
            stiff = stiffness(hz, fps, ORDER)
            turns = nearest_rotation(whittaker(flat, weight * faster, stiff, ORDER).reshape(-1, 3, 3))
            speed = np.linalg.norm(np.gradient(turns.reshape(-1, 9), axis=0), axis=1) * fps / np.sqrt(2)
            around = sliding_window_view(np.pad(speed, reach, mode="edge"), 2 * reach + 1)
            faster = np.clip((around**2).mean(1) / FAST**2, 1, MOST_FAST)  # where it turns back, too
        out[:, joint] = turns
    return out


def _typical(flat: Float[np.ndarray, "t 9"], fps: float) -> Float[np.ndarray, " t"]:
    """Weights in (0, 1] of rotation matrices: near 0 for one that stands out from those around it."""
    reach = max(2, round(WINDOW * fps))
    off = np.linalg.norm(flat - _median(flat, reach), axis=1) / np.sqrt(2)  # about radians
    deviation = np.maximum(1.4826 * _median(off[:, None], reach)[:, 0], STEADY)
    return 1 / (1 + (off / (ALONE * deviation)) ** 4)


def _median(values: Float[np.ndarray, "t d"], reach: int) -> Float[np.ndarray, "t d"]:
    """Of each frame and `reach` frames before and after it."""
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="reflect")  # an end that stands out is one of many
    return np.median(sliding_window_view(padded, 2 * reach + 1, axis=0), axis=-1)


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
    at, frames, even = np.flatnonzero(known), np.arange(len(known)), np.ones(len(known))
    if not len(at):
        return here
    for _ in range(3):
        depth = np.maximum(joints[..., 2] + here[:, None, 2], 0.1)
        w = np.where(seen, weights, 0.0) * (focal.mean() / depth) ** 2
        free = _solve_frames(joints, rays, w, known, here)
        # Gaps are straight lines: without data of its own a gap would go on as steeply as the depth trembles before it.
        far = np.log(np.maximum(free[at, 2:], 0.1))
        far = _median(far, max(2, round(WINDOW * fps))) if len(at) > 2 else far
        line = np.interp(frames, at, far[:, 0])[:, None]
        here[:, 2] = np.exp(whittaker(line, even, stiffness(DEPTH_HALF_HZ, fps))[:, 0])
        # x and y at this depth: a weighted mean of each joint's own.
        total = np.maximum(w.sum(1), 1e-12)[:, None]
        flat = rays * (joints[..., 2:] + here[:, None, 2:]) - joints[..., :2]
        xy = (w[..., None] * flat).sum(1) / total
        xy = np.stack([np.interp(frames, at, xy[at, axis]) for axis in (0, 1)], 1)
        here[:, :2] = whittaker(xy, even, stiffness(TRANSL_HALF_HZ, fps))
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
