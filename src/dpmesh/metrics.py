"""MPJPE, PA-MPJPE, MPVE and PCK; millimetres, float64, one row for each person.

A person with a number that is not finite has NaN for every error: a failure. Nothing here drops one. Means are taken
over the others by `mean_of`, which gives the count of failures beside; PCK counts a failure's joints as missed.

And how well a model's sigma (model.Prediction.joint_sigma) tells the errors: in one unit, whatever it is.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.geometry.align import procrustes
from dpmesh.regressor.uncertainty import DEVIATION, TAILS

Points = Float[NDArray[np.floating], "b n 3"]
PerPerson = Float[NDArray[np.float64], " b"]
PerPoint = Float[NDArray[np.float64], "b n"]
MILLIMETRES = 1000.0
_CACHED = 30_000
"""Points at a time: meshes of a whole batch would leave the processor's cache, at two and a half times the cost."""


def distances(
    predicted: Points, truth: Points, between: Float[NDArray[np.floating], "b 3"] | None = None
) -> PerPoint:
    """Distance of every point given in metres; all of a person's are NaN where one is not finite.

    between: the predicted root less the true one, where the caller has not subtracted them.
    """
    found = np.empty(predicted.shape[:2])
    step = max(1, _CACHED // max(predicted.shape[1], 1))
    for start in range(0, len(predicted), step):
        part = slice(start, start + step)
        off = np.subtract(predicted[part], truth[part], dtype=np.float64)
        if between is not None:
            off -= between[part, None]
        with np.errstate(over="ignore", invalid="ignore"):
            found[part] = np.sqrt(np.einsum("bnc,bnc->bn", off, off))  # several times faster than linalg.norm
    found *= MILLIMETRES
    found[~np.isfinite(found.sum(1))] = np.nan
    return found


def aligned_distances(predicted: Points, truth: Points) -> PerPoint:
    """The same after a similarity alignment of each prediction onto its truth."""
    return distances(procrustes(predicted, truth), truth)


def mpjpe(predicted: Points, truth: Points) -> PerPerson:
    """Mean distance of joints given in metres, each set relative to a root that the caller has subtracted."""
    return distances(predicted, truth).mean(1)


def pa_mpjpe(predicted: Points, truth: Points) -> PerPerson:
    """Mean distance after a similarity alignment of the prediction onto the truth."""
    return aligned_distances(predicted, truth).mean(1)


def mpve(
    predicted: Points, truth: Points, between: Float[NDArray[np.floating], "b 3"] | None = None
) -> PerPerson:
    """Mean distance of vertices given in metres, relative to roots: subtracted by the caller, or as in `distances`."""
    return distances(predicted, truth, between).mean(1)


@dataclass(frozen=True)
class Mean:
    """Mean and median of the finite values; `failures` counts the others. None where no value is finite."""

    mean: float | None
    median: float | None
    count: int
    failures: int


def mean_of(values: Float[NDArray[np.floating], "*n"]) -> Mean:
    finite = values[np.isfinite(values)].astype(np.float64)
    failures = int(values.size - finite.size)
    if not finite.size:
        return Mean(None, None, 0, failures)
    return Mean(float(finite.mean()), float(np.median(finite)), int(finite.size), failures)


def pck(
    errors: Float[NDArray[np.floating], "*n"], thresholds: Float[NDArray[np.floating], " t"]
) -> Float[NDArray[np.float64], " t"]:
    """Share of joints that are at most so many millimetres off; NaN counts as missed. NaN without any joint."""
    flat = np.sort(np.where(np.isnan(errors), np.inf, errors), axis=None)
    if not flat.size:
        return np.full(len(thresholds), np.nan)
    return np.searchsorted(flat, thresholds, side="right") / flat.size


NOMINAL = np.arange(1, 20) / 20
"""Probabilities at which coverage is compared: 5 % to 95 %."""


def rank_correlation(
    sigma: Float[NDArray[np.floating], "*n"], errors: Float[NDArray[np.floating], "*n"]
) -> float:
    """Spearman's, over the pairs with an error that is finite. NaN where all of one side are equal."""
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
    """Share of the errors (lengths) that lie in the ball about the answer which the model of the error
    (regressor/uncertainty.py) says to hold them with probability `nominal`. Errors that are not finite do not count.

    Of a Student t in three dimensions, length² / (3 scale²) is distributed as Fisher's F(3, TAILS).
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
