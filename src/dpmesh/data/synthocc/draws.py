"""Random numbers that are the same with every numpy: PCG64's raw stream, which numpy promises not to change, and our
own arithmetic on it (numpy does not promise the streams of Generator's distributions)."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

SEED = 5_040_001
"""Of version 1. Training seeds are small numbers."""


class Draws:
    """One stream for each key, whatever was drawn from others."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([SEED, *key]))

    @property
    def generator(self) -> np.random.Generator:
        """For data.noise, which wants one."""
        return np.random.Generator(self._bits)

    def unit(self, *shape: int) -> Float[NDArray[np.float64], "*s"]:
        """Uniform in [0, 1)."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        return (np.asarray(raw, np.uint64) >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.unit(1)[0])

    def pick(self, count: int) -> int:
        """0 .. count - 1."""
        return int(self.unit(1)[0] * count)

    def chance(self, probability: float) -> bool:
        return float(self.unit(1)[0]) < probability

    def normal(self, *shape: int) -> Float[NDArray[np.float64], "*s"]:
        """Box and Muller."""
        radius = np.sqrt(-2 * np.log(1 - self.unit(*shape)))
        return radius * np.cos(2 * np.pi * self.unit(*shape))

    def colour(
        self, low: float = 0.08, high: float = 0.95, strength: float = 0.8
    ) -> Float[NDArray[np.float64], "3"]:
        """RGB in [low, high]; strength 0 is grey."""
        grey = self.between(low, high)
        return np.clip(grey + (self.unit(3) - 0.5) * strength, low, high)
