"""A camera that moves, among people who move."""

import cv2
import numpy as np
import pytest

from dpmesh.video.camera import MOVED, StillCamera, camera_motion

RANDOM = np.random.default_rng(0)
WORLD = cv2.GaussianBlur(RANDOM.integers(0, 256, (400, 600), np.uint8), (0, 0), 2.5)
WORLD = cv2.normalize(WORLD, None, 0, 255, cv2.NORM_MINMAX)  # pyright: ignore[reportCallIssue, reportArgumentType]


def view(x: float, y: float, person: float | None = None) -> np.ndarray:
    """320×240 of the world from (x, y); a person of a texture of their own at that column."""
    image = cv2.warpAffine(WORLD, np.array([[1.0, 0, -x], [0, 1, -y]]), (320, 240))
    if person is not None:
        image[40:220, round(person) : round(person) + 70] = WORLD[200:380, 300:370]
    return image


def test_the_background_decides() -> None:
    boxes = [np.array([60.0, 40, 130, 220]), np.array([90.0, 40, 160, 220])]
    assert camera_motion(view(50, 50, 60), view(50, 50, 90), boxes) < 0.05
    assert camera_motion(view(50, 50, 60), view(53.0, 54.0, 90), boxes) == pytest.approx(5, abs=0.1)
    assert np.isnan(camera_motion(np.zeros((240, 320), np.uint8), view(0, 0), []))
    assert np.isnan(camera_motion(view(0, 0), view(0, 0), [np.array([0.0, 0, 320, 240])]))


@pytest.mark.parametrize(("pan", "moves"), [(0.0, False), (0.1, True), (1.0, True)])
def test_a_slow_pan_adds_up(pan: float, moves: bool) -> None:
    """pan: pixels a frame, of which a single step of 0.1 would be lost among the noise."""
    camera = StillCamera()
    for frame in range(60):
        grey = view(50 + pan * frame, 50, 60 + frame).astype(np.float64)
        noisy = np.clip(grey + RANDOM.normal(scale=4, size=grey.shape), 0, 255).astype(np.uint8)
        box = np.array([60.0 + frame, 40, 130 + frame, 220])
        camera.add(np.repeat(noisy[..., None], 3, 2), [box], frame / 25)
    assert camera.moved == moves


def test_noise_on_a_plain_wall_is_no_motion() -> None:
    wall = cv2.GaussianBlur(RANDOM.normal(128, 60, (270, 480)), (0, 0), 6) + np.linspace(-20, 20, 480)
    first, second = (
        np.clip(wall + RANDOM.normal(scale=7, size=wall.shape), 0, 255).astype(np.uint8) for _ in range(2)
    )
    assert camera_motion(first, second, []) < MOVED * np.hypot(270, 480)


def test_something_that_passes_is_not_the_camera() -> None:
    """Something of half the image, which is no person."""
    first, second = view(50, 50), view(50, 50)
    first[:, 20:180], second[:, 30:190] = WORLD[100:340, 400:560], WORLD[100:340, 400:560]
    assert camera_motion(first, second, []) < 0.1
