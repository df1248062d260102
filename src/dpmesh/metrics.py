"""MPJPE, PA-MPJPE, MPVE and PCK in millimetres, and the calibration of a predicted sigma.

Errors are float64 arrays with a row for each person. A person with a number that is not finite is a failure: all errors
are NaN. `mean_of` averages over the other people and counts the failures; PCK counts a failure's joints as missed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.regressor.uncertainty import DEVIATION, TAILS

Points = Float[NDArray[np.floating], "b n 3"]
PerPerson = Float[NDArray[np.float64], " b"]
PerPoint = Float[NDArray[np.float64], "b n"]
MILLIMETRES = 1000.0
"""In a metre."""
_CACHED = 30_000
"""Points processed at a time. Meshes of a whole batch do not fit the processor's cache and take 2.5 times as long."""


def procrustes(source: Points, target: Points) -> Float[NDArray[np.float64], "b n 3"]:
    """`source` after the similarity transform that brings it nearest to `target` (Umeyama 1991), in float64.

    Rotation, translation and positive scale, never a reflection. A set of coincident points is only translated. A set
    with a number that is not finite (or too large to be squared), in source or target, becomes NaN; the others are not
    affected.
    """
    a, b = source.astype(np.float64), target.astype(np.float64)
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


def distances(
    predicted: Points, truth: Points, root_offset: Float[NDArray[np.floating], "b 3"] | None = None
) -> PerPoint:
    """Distances in millimetres of points in metres; all of a person's are NaN where one is not finite.

    root_offset: predicted root minus true root, in metres, where the caller has not subtracted the roots.
    """
    errors = np.empty(predicted.shape[:2])
    step = max(1, _CACHED // max(predicted.shape[1], 1))
    for start in range(0, len(predicted), step):
        part = slice(start, start + step)
        off = np.subtract(predicted[part], truth[part], dtype=np.float64)
        if root_offset is not None:
            off -= root_offset[part, None]
        with np.errstate(over="ignore", invalid="ignore"):
            errors[part] = np.sqrt(
                np.einsum("bnc,bnc->bn", off, off)
            )  # several times faster than linalg.norm
    errors *= MILLIMETRES
    errors[~np.isfinite(errors.sum(1))] = np.nan
    return errors


def across_and_along(
    predicted: Points, truth: Points, line: Float[np.ndarray, "b 3"]
) -> tuple[PerPerson, PerPerson]:
    """Mean sizes in millimetres of the parts of the errors across and along a line (a direction for each person)."""
    off = MILLIMETRES * np.subtract(predicted, truth, dtype=np.float64)
    along = np.einsum("bnc,bc->bn", off, line / np.linalg.norm(line, axis=1, keepdims=True))
    with np.errstate(invalid="ignore"):
        across = np.sqrt(np.maximum((off**2).sum(2) - along**2, 0.0))
    return across.mean(1), np.abs(along).mean(1)


def aligned_distances(predicted: Points, truth: Points) -> PerPoint:
    """As `distances`, after a similarity alignment of each prediction to its truth."""
    return distances(procrustes(predicted, truth), truth)


def mpjpe(predicted: Points, truth: Points) -> PerPerson:
    """Mean joint distance in millimetres. Joints in metres, relative to a root that the caller has subtracted."""
    return distances(predicted, truth).mean(1)


def pa_mpjpe(predicted: Points, truth: Points) -> PerPerson:
    """Mean joint distance in millimetres after a similarity alignment of the prediction to the truth."""
    return aligned_distances(predicted, truth).mean(1)


def mpve(
    predicted: Points, truth: Points, root_offset: Float[NDArray[np.floating], "b 3"] | None = None
) -> PerPerson:
    """Mean vertex distance in millimetres. Arguments as `distances`."""
    return distances(predicted, truth, root_offset).mean(1)


@dataclass(frozen=True)
class Mean:
    """Mean and median of the finite values, None without any; `count` of them, and `failures`, the others."""

    mean: float | None
    median: float | None
    count: int
    failures: int


def mean_of(values: Float[NDArray[np.floating], "*n"]) -> Mean:
    """Mean, median and counts of the values, in their unit."""
    finite = values[np.isfinite(values)].astype(np.float64)
    failures = int(values.size - finite.size)
    if not finite.size:
        return Mean(None, None, 0, failures)
    return Mean(float(finite.mean()), float(np.median(finite)), int(finite.size), failures)


def pck(
    errors: Float[NDArray[np.floating], "*n"], thresholds: Float[NDArray[np.floating], " t"]
) -> Float[NDArray[np.float64], " t"]:
    """Share of errors of at most each threshold; NaN counts as missed. NaN without any error."""
    flat = np.sort(np.where(np.isnan(errors), np.inf, errors), axis=None)
    if not flat.size:
        return np.full(len(thresholds), np.nan)
    return np.searchsorted(flat, thresholds, side="right") / flat.size


NOMINAL = np.arange(1, 20) / 20
"""Nominal probabilities of `calibration_error`: 5 % to 95 %."""


def rank_correlation(
    sigma: Float[NDArray[np.floating], "*n"], errors: Float[NDArray[np.floating], "*n"]
) -> float:
    """Spearman's rank correlation, over the pairs with a finite error. NaN where all sigmas or all errors are equal."""
    from scipy.stats import spearmanr  # pyright: ignore

    known = np.isfinite(errors)
    a, b = sigma[known], errors[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)  # pyright: ignore


def coverage(
    sigma: Float[NDArray[np.floating], "*n"],
    errors: Float[NDArray[np.floating], "*n"],
    nominal: Float[NDArray[np.floating], " q"] = NOMINAL,
) -> Float[NDArray[np.float64], " q"]:
    """Share of the errors inside the ball around the prediction that should contain them with probability `nominal`
    under the error model of regressor/uncertainty.py. Errors that are not finite do not count.

    sigma, errors (lengths): in the same unit. Of a Student t in three dimensions, length² / (3 scale²) is distributed
    as Fisher's F(3, TAILS).
    """
    from scipy.stats import f  # pyright: ignore

    known = np.isfinite(errors) & (sigma > 0)
    ratio = (errors[known] / (sigma[known] / DEVIATION)) ** 2 / 3
    limits = np.asarray(f.ppf(nominal, 3, TAILS))  # pyright: ignore
    return (ratio[None] <= limits[:, None]).mean(1)


def calibration_error(
    sigma: Float[NDArray[np.floating], "*n"], errors: Float[NDArray[np.floating], "*n"]
) -> float:
    """Expected calibration error: mean of |coverage - nominal| over NOMINAL."""
    return float(np.abs(coverage(sigma, errors) - NOMINAL).mean())
