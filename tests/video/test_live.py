"""The one-euro filter: still things do not tremble, moving ones are not late, and no angle is filtered by component."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpmesh.video import live
from dpmesh.video.one_euro import Cutoff, PointFilter, RotationFilter

FPS = 30.0


def test_the_published_recursion() -> None:
    """Casiez et al. 2012, equations 1 to 6, written out for one number."""
    cutoff, rng = Cutoff(1.2, 0.7, 1.0), np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=40))
    filtered, got = PointFilter(cutoff), []
    smooth = speed = 0.0
    for i, value in enumerate(values):
        got.append(filtered(np.array([[value]]), 1 / FPS)[0, 0])
        if i == 0:
            smooth = value
            continue
        alpha = 1 / (1 + FPS / (2 * np.pi * cutoff.speed))
        speed = alpha * (value - smooth) * FPS + (1 - alpha) * speed
        alpha = 1 / (1 + FPS / (2 * np.pi * (cutoff.least + cutoff.slope * abs(speed))))
        smooth = alpha * value + (1 - alpha) * smooth
        assert got[-1] == pytest.approx(smooth)


def test_turns_about_one_axis_are_filtered_like_numbers() -> None:
    """Also across 180 degrees, where the axis-angle vector jumps."""
    cutoff = Cutoff(2.0, 1.0)
    angles = np.linspace(0, 9, 60) + 0.05 * np.random.default_rng(1).normal(size=60)
    axis = np.array([1.0, 2, 2]) / 3
    turns, points = RotationFilter(cutoff), PointFilter(cutoff)
    for angle in angles:
        turned = turns(Rotation.from_rotvec([angle * axis]).as_matrix(), 1 / FPS)
        wanted = points(np.array([[angle]]), 1 / FPS)[0, 0]
        np.testing.assert_allclose(turned[0], Rotation.from_rotvec(wanted * axis).as_matrix(), atol=1e-7)


@pytest.mark.parametrize(
    ("cutoff", "speed", "noise"),
    [
        (live.ROTATIONS, 3.0, 0.02),
        (live.PLACE, 0.3, 0.001),
        (live.DEPTH, 0.3, 0.01),
        (live.KEYPOINTS, 0.5, 0.004),
    ],
)  # of a limb that swings; of somebody who walks, five metres away; of keypoints of a walking person
def test_late_by_at_most_two_frames_and_still_when_at_rest(
    cutoff: Cutoff, speed: float, noise: float
) -> None:
    moving = PointFilter(cutoff)
    for i in range(60):
        value = speed * i / FPS
        got = moving(np.array([[value]]), 1 / FPS)[0, 0]
    assert (value - got) / speed * FPS <= 2
    resting, rng = PointFilter(cutoff), np.random.default_rng(2)
    steps = [resting(rng.normal(scale=noise, size=(50, 1)), 1 / FPS) for _ in range(90)]
    assert np.diff(steps[30:], axis=0).std() < 0.65 * np.sqrt(2) * noise


def test_keypoints_that_were_hidden_begin_anew() -> None:
    filtered = PointFilter(Cutoff(0.5, 0.0))
    for x in (0.0, 0.0, 10.0):
        values = np.array([[x, 0.0], [x, 0.0]])
        got = filtered(values, 1 / FPS)
        if x:
            filtered.reset(np.array([True, False]), values)
    assert got[0, 0] < 2
    got = filtered(np.array([[10.0, 0], [10.0, 0]]), 1 / FPS)
    assert got[0, 0] == 10 and got[1, 0] < 3
