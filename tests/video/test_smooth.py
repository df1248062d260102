"""The smoother against a dense solver and its frequency response; rotations on SO(3); bodies kept on the image."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpmesh.video.smooth import (
    nearest_rotation,
    place_in_image,
    smooth_rotations,
    stiffness,
    weighted_median,
    whittaker,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("order", [2, 3])
def test_whittaker_solves_its_equations(order: int) -> None:
    values, weights, stiff = RANDOM.normal(size=(30, 4)), RANDOM.uniform(0, 2, 30), 7.0
    second = np.diff(np.eye(30), order, axis=0)
    wanted = np.linalg.solve(np.diag(weights) + stiff * second.T @ second, weights[:, None] * values)
    np.testing.assert_allclose(whittaker(values, weights, stiff, order), wanted, atol=1e-6)


@pytest.mark.parametrize("hz", [1.0, 3.0, 6.0, 10.0])
def test_the_frequency_response(hz: float) -> None:
    fps = 30.0
    wave = np.sin(2 * np.pi * hz * np.arange(600) / fps)[:, None]
    kept = whittaker(wave, np.ones(600), stiffness(6.0, fps))[200:400]
    gain = 1 / (1 + stiffness(6.0, fps) * (2 * np.sin(np.pi * hz / fps)) ** 4)
    np.testing.assert_allclose(kept, gain * wave[200:400], atol=1e-3)  # no delay either
    if hz == 6:
        assert gain == pytest.approx(0.5)


def test_a_gap_of_a_line_is_filled_by_the_line() -> None:
    line = np.linspace(0, 5, 40)[:, None]
    weights = np.ones(40)
    weights[10:25] = 0
    broken = np.where(weights[:, None] > 0, line, 99.0)
    np.testing.assert_allclose(whittaker(broken, weights, 3.0), line, atol=1e-4)


def test_rotations_across_half_a_turn() -> None:
    """Axis-angle jumps from π to -π there; the rotations do not."""
    angles = np.linspace(2.5, 3.8, 60)
    turns = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_matrix()[:, None]
    smooth = smooth_rotations(turns, np.ones((60, 1)), 30.0)
    apart = (Rotation.from_matrix(smooth[:, 0]).inv() * Rotation.from_matrix(turns[:, 0])).magnitude()
    assert apart.max() < 1e-3


def swing(hz: float, height: float, noise: float = 0.0) -> tuple[np.ndarray, Rotation]:
    """Matrices of a joint that swings about one axis for four seconds at 30 frames a second, and without noise."""
    angles = height * np.sin(2 * np.pi * hz * np.arange(120) / 30)[:, None] * [0.6, 0.8, 0.0]
    true = Rotation.from_rotvec(angles)
    noisy = true * Rotation.from_rotvec(np.random.default_rng(2).normal(scale=noise, size=(120, 3)))
    return noisy.as_matrix()[:, None], true


def test_outliers_count_little_and_noise_goes() -> None:
    turns, true = swing(0.7, 0.6, noise=0.05)
    clean = smooth_rotations(turns, np.ones((120, 1)), 30.0)
    for frame in (30, 31, 119):  # a pair, and the end, where a smoother without weights runs away
        turns[frame, 0] = (Rotation.from_rotvec([0, 0, 1.5]) * true[frame]).as_matrix()
    got = smooth_rotations(turns, np.ones((120, 1)), 30.0)
    assert (Rotation.from_matrix(got[:, 0]).inv() * Rotation.from_matrix(clean[:, 0])).magnitude()[
        :-3
    ].max() < 0.35
    assert (Rotation.from_matrix(got[:, 0]).inv() * true).magnitude().mean() < 0.05


def test_what_turns_fast_keeps_its_height() -> None:
    """1.8 Hz, six radians a second: what is damped at rest (half of 1.75 Hz goes) passes in a limb. At rest, and in the
    root, it does not."""

    def height(hz: float, size: float, joint: int) -> float:
        turns = swing(hz, size)[0].repeat(2, 1)
        got = smooth_rotations(turns, np.ones((120, 2)), 30.0)[15:-15, joint]
        return float(Rotation.from_matrix(got).magnitude().max()) / size

    assert height(1.8, 0.6, 1) > 0.75
    assert height(1.8, 0.1, 1) < 0.6 and height(1.8, 0.1, 0) < 0.3
    assert height(4.0, 0.02, 1) < 0.2


def test_nearest_rotation_is_a_rotation_and_the_nearest() -> None:
    noisy = Rotation.random(50, random_state=1).as_matrix() + 0.2 * RANDOM.normal(size=(50, 3, 3))
    out = nearest_rotation(noisy)
    np.testing.assert_allclose(np.linalg.det(out), 1)
    others = out @ Rotation.from_rotvec(0.05 * RANDOM.normal(size=(50, 3))).as_matrix()
    assert (
        np.linalg.norm(out - noisy, axis=(1, 2)) <= np.linalg.norm(others - noisy, axis=(1, 2)) + 1e-12
    ).all()


def test_bodies_stay_on_the_image_while_their_depth_is_smoothed() -> None:
    count, fps = 90, 30.0
    K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])
    joints = RANDOM.normal(scale=0.4, size=(1, 30, 3)).repeat(count, 0)
    path = np.column_stack([np.linspace(-1, 1, count), np.zeros(count), np.linspace(4, 6, count)])
    points = joints + path[:, None]
    pixels = points[..., :2] / points[..., 2:] * 800 + [320, 240]
    start = path * RANDOM.uniform(0.8, 1.25, (count, 1))  # the depth of a single image trembles
    noisy = pixels + RANDOM.normal(scale=1.0, size=pixels.shape)
    got = place_in_image(joints, noisy, np.ones((count, 30)), K, start, fps)
    assert np.abs(got - path)[:, 2].mean() < 0.03
    again = joints + got[:, None]
    drawn = again[..., :2] / again[..., 2:] * 800 + [320, 240]
    assert np.linalg.norm(drawn - pixels, axis=-1).mean() < 1.5


def test_a_gap_is_crossed_in_a_straight_line() -> None:
    """Without any weight in the gap the curve would leave on its last frames' trembling slope."""
    count = 80
    K = np.array([[400.0, 0, 200], [0, 400, 150], [0, 0, 1]])
    joints = np.random.default_rng(3).normal(scale=0.4, size=(1, 30, 3)).repeat(count, 0)
    path = np.column_stack([np.linspace(-0.5, 0.5, count), np.zeros(count), np.full(count, 5.0)])
    points = joints + path[:, None]
    pixels = points[..., :2] / points[..., 2:] * 400 + [200, 150]
    pixels += np.random.default_rng(4).normal(scale=2.0, size=(count, 1, 2))
    seen = np.ones((count, 30))
    seen[25:50] = 0
    start = path * np.random.default_rng(5).uniform(0.9, 1.1, (count, 1))
    start[25:50] = np.linspace(start[24], start[50], 27)[1:-1]
    got = place_in_image(joints, pixels, seen, K, start, 25.0)
    assert np.abs(got - path)[25:50, :2].max() < 0.06 and np.abs(got - path)[25:50, 2].max() < 0.3


def test_weighted_median() -> None:
    values = np.array([[1.0], [2.0], [100.0]])
    assert weighted_median(values, np.ones(3)) == 2
    assert weighted_median(values, np.array([1.0, 1.0, 5.0])) == 100
