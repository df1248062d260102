"""The one-euro filter (Casiez, Roussel and Vogel, CHI 2012) for points, and for rotations on SO(3).

A low-pass filter of first order whose cutoff grows with speed: still things do not tremble, fast ones do not lag. Of
something that moves steadily the output is 1 / (2 π cutoff) seconds late.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class Cutoff:
    """least: Hz, of what does not move. slope: Hz for each unit a second. speed: Hz, cutoff of the speed itself."""

    least: float
    slope: float
    speed: float = 1.0

    def share(self, speed: Float[np.ndarray, " n"], seconds: float) -> Float[np.ndarray, " n"]:
        """Of the way to the newest value that the output goes in this time."""
        return _share(self.least + self.slope * speed, seconds)


def _share(hz: NDArray[np.float64] | float, seconds: float) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + 1 / (2 * np.pi * np.asarray(hz) * seconds)))


class PointFilter:
    """n vectors of d numbers, each with its own cutoff."""

    def __init__(self, cutoff: Cutoff) -> None:
        self.cutoff = cutoff
        self.value: NDArray[np.float64] | None = None
        self.speed: NDArray[np.float64] | None = None

    def __call__(self, values: Float[np.ndarray, "n d"], seconds: float) -> Float[np.ndarray, "n d"]:
        """seconds: since the values before, more than 0; not used for the first ones."""
        if self.value is None or self.speed is None:
            self.value, self.speed = np.array(values, np.float64), np.zeros_like(values, np.float64)
            return self.value.copy()
        change = values - self.value
        self.speed = self.speed + _share(self.cutoff.speed, seconds) * (change / seconds - self.speed)
        share = self.cutoff.share(np.linalg.norm(self.speed, axis=-1), seconds)
        self.value = self.value + share[:, None] * change
        return self.value.copy()

    def reset(self, rows: NDArray[np.bool_], values: Float[np.ndarray, "n d"]) -> None:
        """Begin anew with these values in some rows."""
        if self.value is not None and self.speed is not None:
            self.value[rows], self.speed[rows] = values[rows], 0.0


class RotationFilter:
    """n rotations, moved along the shortest arcs; speed is angular, radians a second."""

    def __init__(self, cutoff: Cutoff) -> None:
        self.cutoff = cutoff
        self.value: NDArray[np.float64] | None = None
        self.speed: NDArray[np.float64] | None = None

    def __call__(self, matrices: Float[np.ndarray, "n 3 3"], seconds: float) -> Float[np.ndarray, "n 3 3"]:
        """seconds: as of PointFilter."""
        if self.value is None or self.speed is None:
            self.value, self.speed = np.array(matrices, np.float64), np.zeros((len(matrices), 3))
            return self.value.copy()
        change = Rotation.from_matrix(self.value.swapaxes(1, 2) @ matrices).as_rotvec()
        speed = self.speed + _share(self.cutoff.speed, seconds) * (change / seconds - self.speed)
        share = self.cutoff.share(np.linalg.norm(speed, axis=-1), seconds)
        value = np.asarray(self.value @ Rotation.from_rotvec(share[:, None] * change).as_matrix())
        self.value, self.speed = value, speed
        return value.copy()
