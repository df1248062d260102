"""The cameras: projection, the crop camera's exactness at its middle, and the translation that fits."""

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.geometry.camera import crop_focal, crop_rotation, intrinsics, project, solve_translation
from dpmesh.geometry.crop import Crop

K = intrinsics(900.0, (720, 1280))
CROPS = [Crop(384.0, 104.0, 512.0), Crop(900.0, -100.0, 400.0), Crop(-50.0, 400.0, 300.0)]


def test_intrinsics_and_projection() -> None:
    np.testing.assert_allclose(
        project(np.array([[0.0, 0, 3], [1, 0, 2], [0, -1, 2]]), K), [[640, 360], [1090, 360], [640, -90]]
    )


@pytest.mark.parametrize("crop", CROPS)
def test_axis_of_the_crop_camera_goes_through_the_crop_middle(crop: Crop) -> None:
    R = crop_rotation(K, crop)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    pixel = project(R @ np.array([0.0, 0.0, 4.0]), K)
    np.testing.assert_allclose(crop.to_crop(pixel), [128, 128], atol=1e-9)
    axis = np.cross([0, 0, 1], R[:, 2])  # the smallest rotation: its axis is across, so it leaves no roll
    np.testing.assert_allclose(R @ axis, axis, atol=1e-12)


@pytest.mark.parametrize("crop", CROPS)
def test_crop_focal_keeps_areas_at_the_middle(crop: Crop) -> None:
    """The map (crop camera's pixel -> image -> crop pixel) has Jacobian determinant 1 at the middle."""
    R, focal = crop_rotation(K, crop), crop_focal(K, crop)

    def through_image(u: float, v: float) -> np.ndarray:
        return crop.to_crop(project(R @ np.array([u / focal, v / focal, 1.0]), K))

    h = 1e-3
    jacobian = np.stack(
        [through_image(h, 0) - through_image(-h, 0), through_image(0, h) - through_image(0, -h)]
    ) / (2 * h)
    assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-6)


def test_crop_focal_on_the_axis_is_the_zoom() -> None:
    assert crop_focal(K, Crop(512.0, 232.0, 256.0)) == pytest.approx(900)
    assert crop_focal(K, Crop(384.0, 104.0, 512.0)) == pytest.approx(450)


def test_solve_translation_finds_the_truth_and_obeys_weights() -> None:
    rng = np.random.default_rng(0)
    points, truth = rng.normal(0, 0.4, (30, 3)), np.array([-0.7, 0.4, 5.3])
    pixels = project(points + truth, K)
    np.testing.assert_allclose(solve_translation(points, pixels, K, np.ones(30)), truth, atol=1e-9)
    pixels[:10] += 300
    weights = np.where(np.arange(30) < 10, 0.0, 1.0)
    np.testing.assert_allclose(solve_translation(points, pixels, K, weights), truth, atol=1e-9)
    noisy = solve_translation(points, pixels, K, np.ones(30))
    assert np.abs(noisy - truth).max() > 0.1


def test_solve_translation_minimises_its_residual() -> None:
    rng = np.random.default_rng(1)
    points, weights = rng.normal(0, 0.4, (12, 3)), rng.uniform(0.1, 1, 12)
    pixels = project(points + np.array([0.2, 0.1, 4]), K) + rng.normal(0, 8, (12, 2))

    def residual(t: np.ndarray) -> float:
        p = points + t
        rays = (pixels - K[:2, 2]) / 900
        return float((weights[:, None] * (p[:, :2] - rays * p[:, 2:]) ** 2).sum())

    t = solve_translation(points, pixels, K, weights)
    assert all(residual(t) < residual(t + d) for d in np.vstack([np.eye(3), -np.eye(3)]) * 1e-3)


@pytest.mark.parametrize("weights", [np.zeros(4), np.array([1.0, 0, 0, 0])])
def test_too_few_points_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(InputError):
        solve_translation(np.ones((4, 3)), np.ones((4, 2)), K, weights)


def test_one_pixel_or_a_body_behind_is_refused() -> None:
    points = np.random.default_rng(2).normal(0, 0.4, (9, 3))
    with pytest.raises(InputError):
        solve_translation(points, np.full((9, 2), 300.0), K, np.ones(9))
    mirrored = 2 * K[:2, 2] - project(points + np.array([0.0, 0, 4]), K)
    with pytest.raises(InputError):
        solve_translation(points, mirrored, K, np.ones(9))


@pytest.mark.parametrize(
    "K",
    [
        np.zeros((3, 3)),
        np.diag([0.0, 900, 1]),
        np.diag([-900.0, 900, 1]),
        np.diag([np.nan, 900, 1]),
        np.diag([np.inf, 900, 1]),
        np.diag([900.0, 900, 0]),
        np.ones((3, 3)),
        np.diag([1e-300, 1e-300, 1]) + np.array([[0, 0, 640], [0, 0, 360], [0, 0, 0]]),
        np.diag([1e300, 1e300, 1]),
    ],
)
def test_an_invalid_camera_is_refused(K: np.ndarray) -> None:
    points = np.random.default_rng(0).normal(0, 0.4, (30, 3))
    with pytest.raises(InputError):
        crop_focal(K, CROPS[0])
    if K[0, 0] != 1e300:  # a direction is still one
        with pytest.raises(InputError):
            crop_rotation(K, CROPS[1])
    with pytest.raises(InputError):
        solve_translation(points, np.zeros((30, 2)), K, np.ones(30))


@pytest.mark.parametrize("crop", [Crop(1e300, 0.0, 100.0), Crop(0.0, 0.0, 1e-300), Crop(0.0, -1e12, 1e12)])
def test_a_crop_outside_of_every_view_is_refused(crop: Crop) -> None:
    with pytest.raises(InputError):
        crop_focal(K, crop)
