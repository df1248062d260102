"""Similarity alignment of point sets (Umeyama 1991), as PA-MPJPE needs it."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


def procrustes(
    moved: Float[NDArray[np.floating], "b n 3"], onto: Float[NDArray[np.floating], "b n 3"]
) -> Float[NDArray[np.float64], "b n 3"]:
    """`moved` after the rotation, translation and positive scale that bring it nearest to `onto`.

    Never a reflection. float64 throughout; a set of coincident points is only translated. A set with a number that
    is not finite (or too large to be squared), on either side, comes out as NaN and leaves the others alone.
    """
    a, b = moved.astype(np.float64), onto.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        a_mean, b_mean = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
        a, b = a - a_mean, b - b_mean
        covariance, variance = np.swapaxes(a, 1, 2) @ b, (a**2).sum((1, 2))
        usable = np.isfinite(covariance).all((1, 2)) & np.isfinite(variance)
    u, s, vt = np.linalg.svd(np.where(usable[:, None, None], covariance, 0.0))
    sign = np.sign(np.linalg.det(u @ vt))
    s[:, 2] *= sign
    u[:, :, 2] *= sign[:, None]
    scale = np.divide(s.sum(1), variance, out=np.ones_like(variance), where=usable & (variance > 1e-18))
    a[~usable] = np.nan
    return scale[:, None, None] * (a @ (u @ vt)) + b_mean
