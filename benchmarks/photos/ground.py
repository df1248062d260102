"""Fits one floor plane to the feet in an image (or in all images of a still camera); heights above it.

A single image does not show how the camera is tilted. So the plane may tilt, at a cost. Any two people fit some plane:
the test is sharp only for three people or more, or for several images of one camera.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PITCH, ROLL = np.tan(np.deg2rad(15.0)), np.tan(np.deg2rad(5.0))
"""One sigma of the floor's slope along z and along x: people tilt a camera more than they turn it."""
FOOT = 0.1
"""Metres, one sigma of a foot's height."""


@dataclass(frozen=True)
class Ground:
    """The plane y = height + slopes · (x, z); camera frame, metres, y down. height is below the camera."""

    height: float
    slopes: tuple[float, float]

    def above(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """How far each point is above the floor along its normal, metres; negative is below."""
        a, b = self.slopes
        floor = self.height + points[:, [0, 2]].astype(np.float64) @ np.array([a, b])
        return (floor - points[:, 1]) / np.sqrt(1 + a * a + b * b)


def fit_ground(feet: Float[np.ndarray, "n 3"]) -> Ground:
    """Least squares with the slopes pulled towards level (`PITCH`, `ROLL`), three rounds of Huber's weights.

    feet: the lowest point of each person, metres, camera frame; at least one, all finite.
    """
    x = np.column_stack([np.ones(len(feet)), feet[:, 0], feet[:, 2]]).astype(np.float64)
    y, prior = feet[:, 1].astype(np.float64), np.diag([0.0, (FOOT / ROLL) ** 2, (FOOT / PITCH) ** 2])
    plane = np.linalg.solve(x.T @ x + prior, x.T @ y)
    for _ in range(3):
        weight = np.minimum(1.0, 2 * FOOT / np.maximum(np.abs(y - x @ plane), 1e-9))
        plane = np.linalg.solve(x.T @ (weight[:, None] * x) + prior, x.T @ (weight * y))
    return Ground(float(plane[0]), (float(plane[1]), float(plane[2])))
