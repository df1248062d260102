"""A floor in the camera frame, and the feet that stand on one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.skeletons import JOINTS30

FEET = tuple(JOINTS30.index(f"{side}_{part}") for side in "LR" for part in ("Ankle", "Toe"))
"""Joints that touch the ground."""
SOLE = (0.08, 0.02, 0.08, 0.02)
"""Height of each of FEET above the ground when it stands, metres."""
LEVEL = np.array([0.0, -1.0, 0.0])
"""Up, of a camera that is held level."""
LOWEST = 0.05
"""Metres above the lowest foot up to which a foot stands as well."""


@dataclass(frozen=True, eq=False)
class Floor:
    """The plane up · point + height = 0 in the camera frame, metres; `height` is the camera's above it."""

    up: Float[np.ndarray, "3"]
    """Of length 1."""
    height: float

    def heights(self, points: Float[np.ndarray, "*n 3"]) -> NDArray[np.float64]:
        """Of points above it, metres."""
        return np.asarray(np.asarray(points, np.float64) @ self.up + self.height)


def lowest_feet(
    joints: Float[np.ndarray, "*n 30 3"], up: Float[np.ndarray, "3"]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The points of the ground below FEET (*n, 4, 3), and which of them are a person's lowest (*n, 4)."""
    soles = joints[..., FEET, :] - np.asarray(SOLE)[:, None] * up
    heights = np.asarray(soles @ up, np.float64)
    return soles.astype(np.float64), heights <= heights.min(-1, keepdims=True) + LOWEST


def plane_normal(
    points: Float[np.ndarray, "n 3"], prior: Float[np.ndarray, "3"], spread: float
) -> NDArray[np.float64]:
    """Normal of the plane through points, held to `prior` in the directions in which the points are not spread.

    spread: metres, of points from which on they count more than the prior.
    """
    middle = points - np.median(points, axis=0)
    scatter = middle.T @ middle / max(len(points), 1)
    # Tilting the normal by d costs d' S d in the floor's directions; the prior costs as much as that spread.
    along = np.linalg.svd(prior[None])[2][1:]
    system = along @ scatter @ along.T + spread**2 * np.eye(2)
    tilt = -np.linalg.solve(system, along @ scatter @ prior)
    return unit(prior + tilt @ along)


def unit(vectors: Float[np.ndarray, "*n 3"]) -> NDArray[np.float64]:
    """The vectors at length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.asarray(vectors, np.float64) / np.maximum(lengths, 1e-12))
