"""Metrics against closed forms and a numerical optimiser."""

import numpy as np
import pytest

from dpmesh.metrics import NOMINAL, calibration_error, coverage, mpjpe, pa_mpjpe, procrustes, rank_correlation
from dpmesh.regressor.uncertainty import DEVIATION, TAILS


def points(seed: int = 0, people: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(people, 14, 3))


def turn(axis: str, angle: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler(axis, angle).as_matrix()


def test_a_shift_of_one_centimetre_is_ten_millimetres():
    truth = points()
    np.testing.assert_allclose(mpjpe(truth + np.array([0.006, 0.0, 0.008]), truth), 10.0)


def test_any_similarity_is_aligned_away():
    truth = points()
    moved = 1.7 * truth @ turn("y", 2.0).T @ turn("x", 0.7).T + [3, -2, 8]
    np.testing.assert_allclose(pa_mpjpe(moved, truth), 0, atol=1e-9)
    assert mpjpe(moved, truth).min() > 1000


def test_a_mirrored_pose_is_not():
    truth = points()
    assert pa_mpjpe(truth * [-1, 1, 1], truth).min() > 50


@pytest.mark.parametrize("mirrored", [False, True])
def test_against_a_numerical_optimiser(mirrored: bool):
    from scipy.optimize import minimize
    from scipy.spatial.transform import Rotation

    predicted, truth = points(1, 1), points(2, 1)
    if mirrored:  # the best orthogonal matrix is a reflection, which must not be taken, nor its scale
        predicted = truth * [-1, 1, 1] + 0.1 * predicted

    def residual(x: np.ndarray) -> float:
        moved = np.exp(x[3]) * Rotation.from_rotvec(x[:3]).apply(predicted[0]) + x[4:]
        return float(((moved - truth[0]) ** 2).sum())

    starts = np.random.default_rng(0).normal(size=(12, 7))
    best = min(minimize(residual, start).fun for start in starts)
    ours = float(((procrustes(predicted, truth) - truth) ** 2).sum())
    assert ours == pytest.approx(best, rel=1e-6)


def test_coincident_points_do_not_break():
    truth = points(0, 1)
    aligned = procrustes(np.zeros_like(truth), truth)
    assert np.isfinite(aligned).all()
    np.testing.assert_allclose(aligned[0], np.repeat(truth.mean(1), 14, 0), atol=1e-12)


def student(scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lengths of errors drawn from the error model."""
    normal = rng.standard_normal((*scale.shape, 3)) * scale[..., None]
    return np.linalg.norm(normal * np.sqrt(TAILS / rng.chisquare(TAILS, scale.shape))[..., None], axis=-1)


def test_sigma_that_is_right_is_calibrated_and_ranks():
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(-2.5, 0.8, 40_000))
    errors = student(scale, rng)
    sigma = DEVIATION * scale
    assert calibration_error(sigma, errors) < 0.005
    assert np.sqrt((errors**2 / sigma**2).mean() / 3) == pytest.approx(1, abs=0.1)
    assert 0.5 < rank_correlation(sigma, errors) < 0.9
    assert rank_correlation(errors**3, errors) == pytest.approx(1)
    assert rank_correlation(-errors, errors) == pytest.approx(-1)
    wide, narrow = (coverage(sigma * by, errors) for by in (3.0, 1 / 3))
    assert (wide > NOMINAL).all() and (narrow < NOMINAL).all()
    assert calibration_error(sigma * 3, errors) == pytest.approx(np.mean(wide - NOMINAL))
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))
    errors[:100] = np.nan  # a failure is no pair
    assert calibration_error(sigma, errors) < 0.005 and np.isfinite(rank_correlation(sigma, errors))
