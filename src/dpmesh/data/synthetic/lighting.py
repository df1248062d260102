"""Light from all around as second-order spherical harmonics, and a sun or lamp with a hard edge.

No photographed environment (HDRI) can be shipped, so environments are made of a few lobes: sky, ground bounce,
windows, lamps, a flash. A lobe of colour c from direction d gives a surface of normal n the clamped cosine's
expansion to second order, c (1/4 + t/2 + 15/32 (t² - 1/3)) with t = n·d (Ramamoorthi and Hanrahan 2001).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import math
from functools import partial

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.data.synthetic.materials import between, pick

_F32 = np.float32
Array32 = NDArray[np.float32]
KINDS = ("overcast", "sun", "window", "lamps", "flash", "backlight")
SHARES = (0.2, 0.26, 0.2, 0.2, 0.06, 0.08)
"""Out of doors and in rooms about evenly; backlight (the sun behind, as in examples/park.jpg) and flash are rare."""


class Light:
    """harmonics (3, 10): per channel the constant, the linear and the six quadratic terms; direction of the hard
    light (towards it, camera frame), its colour; sky: above and at the horizon."""

    def __init__(self, rng: np.random.Generator, view: Float32[Array32, "3 3"]) -> None:
        """view: world, y up, to camera."""
        u, self.kind = partial(between, rng), KINDS[pick(rng, SHARES)]
        self.harmonics: Array32 = np.zeros((3, 10), _F32)
        up = view[:, 1]
        warm = rng.normal(0, 0.07)  # the white balance: reddish to bluish, and a little green or magenta
        self.cast = np.array([1 + warm, 1 + rng.normal(0, 0.03), 1 - warm])
        sky, ground = np.array([0.9, 0.98, 1.1]), np.array([1.0, 0.95, 0.85])
        self.direction = self._towards(rng, view, "front")
        hard = 0.0
        self.add_lobe(up, sky * u(0.25, 0.6))
        self.add_lobe(-up, ground * u(0.1, 0.4))
        if self.kind == "overcast":
            self.add_lobe(up, sky * u(0.3, 0.6))
        elif self.kind == "sun":
            hard = u(0.35, 0.85)
            self.direction = self._towards(rng, view, "any")
        elif self.kind == "window":
            self.add_lobe(self._towards(rng, view, "side"), sky * u(0.5, 1.1))
        elif self.kind == "lamps":
            for _ in range(rng.integers(1, 4)):
                self.add_lobe(self._towards(rng, view, "front"), ground * u(0.15, 0.5))
            hard = u(0, 0.4)
        elif self.kind == "flash":
            self.direction, hard = np.array([0, -0.1, -0.995]), u(0.4, 0.8)
        else:
            self.direction, hard = self._towards(rng, view, "behind"), u(0.5, 1.0)
        self._constant(u(0.1, 0.35))
        self.direction = np.asarray(self.direction, _F32)
        self.hard: Array32 = (hard * self.cast * (1 + np.array([0.08, 0, -0.1]) * u(0, 1.5))).astype(_F32)

    def _towards(
        self, rng: np.random.Generator, view: Float32[Array32, "3 3"], where: str
    ) -> NDArray[np.floating]:
        """A unit direction in the camera frame, above the horizon."""
        mean = {"front": np.pi, "any": between(rng, -np.pi, np.pi), "side": (-1, 1)[rng.integers(2)] * np.pi / 2,
                "behind": 0.0}[where]  # fmt: skip
        around, height = rng.normal(mean, 0.7), math.radians(between(rng, 8, 30 if where == "side" else 75))
        flat = np.array([math.sin(around), 0, math.cos(around)])  # 0 is straight ahead of the camera
        level = flat - (flat @ view[:, 1]) * view[:, 1]
        level /= max(math.sqrt(level @ level), 1e-3)
        return level * math.cos(height) + view[:, 1] * math.sin(height)

    def _constant(self, level: float) -> None:
        self.harmonics[:, 0] += (level * self.cast).astype(_F32)

    def add_lobe(self, d: NDArray[np.floating], strength: NDArray[np.floating]) -> None:
        """Add soft light from the unit direction d (camera frame), strength (3,) a channel: a clamped cosine."""
        x, y, z = d
        k = 15 / 32
        terms = [0.25 - k / 3, x / 2, y / 2, z / 2, k * x * x, k * y * y, k * z * z, 2 * k * x * y, 2 * k * x * z,
                 2 * k * y * z]  # fmt: skip
        self.harmonics += ((strength * self.cast)[:, None] * np.array(terms)).astype(_F32)

    def on(self, normals: Float32[Array32, "n 3"]) -> Float32[Array32, "n 3"]:
        """Colours of the soft light on surfaces of these normals."""
        x, y, z = normals.T
        terms = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], 1)
        return np.asarray(terms @ self.harmonics.T, _F32)
