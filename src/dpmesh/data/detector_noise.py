"""A model of the shipped detector's keypoints (inference/top_down.py), fitted to what it says of known people.

Above the confidence threshold its joints lie closer to the truth than PoseFix's errors have it, and its failures belong
together: a person is read well, badly or not at all, with left and right exchanged, or as another person who stands
near. Half of the people are read as those on photographs, half as rendered ones. The figures that the rates are fitted
to: `python -m benchmarks.accuracy.keypoint_noise` (dev/training_log.md).

All points are in pixels of the crop, joints in COCO-17 order.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray

from dpmesh.geometry import CROP
from dpmesh.skeletons import COCO17, COCO_SIGMAS

_F32 = np.float32
_FLIP = np.array(COCO17.flip)
_RAYLEIGH = float(np.sqrt(2 * np.log(2)))  # median length of a plane normal vector
_KINDS = ("Nose", "Eye", "Ear", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
_OF_KIND = np.array([next(k for k, kind in enumerate(_KINDS) if kind in joint) for joint in COCO17.joints])
_FACE, _ARM, _LEG = _OF_KIND < 3, (_OF_KIND >= 3) & (_OF_KIND < 6), _OF_KIND >= 6


class Reading(NamedTuple):
    """How people of one sort are read. Pairs: of a visible and of a hidden joint.

    given: log odds of a middling person's joint to be above the threshold; person: how much one standard deviation of
    the person's quality adds to it.  error: median distance, in units of sigma·sqrt(area); spread, sharper: of its
    logarithm, standard deviation within a person, and what one standard deviation of the quality takes off.  exchanged:
    probability that left and right of the whole person, of the arms, of the legs are exchanged; partner: that a joint
    lies at its partner's place.  other: probability that someone near is read in the person's place; others: that a
    joint is that of someone near.
    """

    given: tuple[float, float]
    person: float
    error: tuple[float, float]
    spread: float
    sharper: float
    exchanged: tuple[float, float, float]
    partner: tuple[float, float]
    other: float
    others: tuple[float, float]


PHOTOGRAPHED = Reading(
    (2.8, -0.3), 1.4, (0.17, 0.55), 0.3, 0.3, (0.01, 0.005, 0.03), (0.0, 0.02), 0.03, (0.0, 0.08)
)
RENDERED = Reading(
    (0.6, -1.15), 3.6, (0.5, 1.3), 0.5, 0.4, (0.045, 0.02, 0.02), (0.015, 0.08), 0.1, (0.04, 0.2)
)
LIKE_PHOTOGRAPHS = 0.5
"""Share of the people who are read as on photographs."""
_MORE_GIVEN = np.array([0.8, 0.8, 0.6, 0.1, -0.4, -0.9, 0.1, -0.4, -0.8])[_OF_KIND]
"""Added to the log odds of each joint."""
_FACES = np.where(_FACE, 2.0, 1.0)
"""Factor on the errors: faces have small sigmas."""


def detected(
    rng: np.random.Generator,
    points: Float[NDArray[np.floating], "n 17 2"],
    inside: Bool[NDArray[np.bool_], "n 17"],
    hidden: Bool[NDArray[np.bool_], "n 17"],
    area: Float[NDArray[np.floating], " n"],
    near: Float[NDArray[np.floating], "n k 17 2"],
    near_flags: Float[NDArray[np.floating], "n k 17"],
    like_photographs: float = LIKE_PHOTOGRAPHS,
) -> tuple[Float32[NDArray[np.float32], "n 17 2"], Float32[NDArray[np.float32], "n 17"]]:
    """Keypoints as the detector gives them, and which it gives; the others are (0, 0) with flag 0.

    inside: the true joint lies inside the image; one outside is never given.  hidden: something covers it.  area: px²
    of the true joints' box.  near: joints of people whose boxes overlap the person's, near_flags: which are inside.
    like_photographs: share of the people who are read as on photographs, the others as rendered ones.
    """
    n = len(points)
    photographed = rng.random(n) < like_photographs
    quality = rng.standard_normal(n)

    def rates(name: str) -> NDArray[np.float64]:
        """Of each person, "n" or "n m"."""
        a, b = (np.asarray(getattr(reading, name), np.float64) for reading in (PHOTOGRAPHED, RENDERED))
        return np.where(photographed.reshape(n, *[1] * a.ndim), a, b)

    def by_state(name: str) -> NDArray[np.float64]:
        of = rates(name)
        return np.where(hidden, of[:, 1:], of[:, :1])

    odds = by_state("given") + (rates("person") * quality)[:, None] + _MORE_GIVEN
    given = rng.random((n, 17)) < 1 / (1 + np.exp(-odds))

    mirrored = rng.random((n, 3)) < rates("exchanged")
    exchanged = mirrored[:, :1] ^ (mirrored[:, 1:2] & _ARM) ^ (mirrored[:, 2:] & _LEG)
    exchanged ^= rng.random((n, 17)) < by_state("partner")
    target = np.where(exchanged[..., None], points[:, _FLIP], points)
    there = np.where(exchanged, inside[:, _FLIP], inside)

    there_is = np.asarray(near_flags.any(-1))
    chosen = np.arange(n), np.where(there_is, rng.random(there_is.shape), -1.0).argmax(1)  # one of those near
    theirs = (rng.random((n, 1)) < rates("other")[:, None]) | (rng.random((n, 17)) < by_state("others"))
    theirs &= there_is.any(1, keepdims=True)
    target = np.where(theirs[..., None], near[chosen], target)
    there = np.where(theirs, near_flags[chosen] > 0, there)

    size = by_state("error") * np.exp(rates("spread")[:, None] * rng.standard_normal((n, 17)))
    size *= np.exp(-rates("sharper") * quality)[:, None] * _FACES / _RAYLEIGH
    size *= np.array(COCO_SIGMAS) * np.sqrt(area)[:, None]
    moved = target + rng.standard_normal((n, 17, 2)) * size[..., None]
    given &= there & inside & ((moved >= 0) & (moved < CROP)).all(-1)
    return np.where(given[..., None], moved, 0).astype(_F32), given.astype(_F32)
