"""Which feet stand: decided over a whole track by Viterbi's algorithm.

A frame has one of four states: no foot stands, the left, the right, both. A standing foot is slow and is the lower one;
a person who is not in the air stands on one of them; and a state lasts. A foot stands on its heel, its toes or both.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from dpmesh.geometry.floor import FEET, SOLE
from dpmesh.video.feet import in_image, in_space, runs
from dpmesh.video.tracks import Ground, Tracks

RATE = 25.0
"""Frames a second to which the costs belong: they are paid over time."""
SLOW_IN_IMAGE, SLOW_IN_SPACE = 0.35, 0.2
"""Metres a second at which standing costs log 2: across the line of sight, before the translations are solved with the
standing feet; and in space, after that."""
SWINGS = 1.5, 1.0
"""Cost of each foot that does not stand, at these two times."""
IN_AIR = 3.0
"""Cost of neither standing."""
CHANGE = 1.5
"""Cost of a foot's taking off or coming down."""
LOWER, ABOVE = 0.06, 0.12
"""Metres above the other foot, and above the floor, at which standing costs 1."""
PART = 0.05
"""Metres that heel or toes may be above the other of the two and stand as well."""
SURE = 0.1
"""Metres: a foot's speed counts in full up to this sigma."""
SHORTEST = 3
"""Frames."""
_STANDS = np.array([[False, False], [True, False], [False, True], [True, True]])
_MOST = 4.0
"""Of the costs of heights."""


def contacts(
    tracks: Tracks, rows: NDArray[np.int64], ground: Ground, solved: bool = False
) -> Bool[np.ndarray, "t 4"]:
    """Which of FEET stand. ground: heights are above it. solved: the translations are already those of feet.planted."""
    count = len(rows)
    if count < SHORTEST:
        return np.zeros((count, len(FEET)), bool)
    feet, time = tracks.joints3d[rows][:, FEET].astype(np.float64), tracks.time[rows]
    sigma = np.nan_to_num(tracks.joint_sigma[rows][:, FEET].astype(np.float64), nan=2 * SURE)
    if solved:
        moves, sure = np.log1p((in_space(feet, time) / SLOW_IN_SPACE) ** 2), np.ones(sigma.shape)
    else:
        sure = np.clip((SURE / np.maximum(sigma, 1e-3)) ** 2, 0.1, 1)
        moves = np.log1p((in_image(feet, time) / SLOW_IN_IMAGE) ** 2) * sure
    heights = (ground.heights(feet) - np.asarray(SOLE)).reshape(count, 2, 2)  # (t, side, heel and toes)
    lowest = heights.min(2)
    down = heights - lowest[..., None] < PART
    stands = np.where(down, moves.reshape(count, 2, 2), np.inf).min(2)
    stands += np.minimum(((lowest - lowest.min(1, keepdims=True)) / LOWER) ** 2, _MOST)
    stands += np.minimum((np.maximum(lowest, 0) / ABOVE) ** 2, _MOST)
    swings = SWINGS[solved] * sure.reshape(count, 2, 2).mean(2)
    costs = np.where(_STANDS, stands[:, None], swings[:, None]).sum(2)
    costs[:, 0] += IN_AIR
    passed = np.maximum(np.gradient(time), 1e-3)
    touching = (_STANDS[cheapest(costs * RATE * passed[:, None])][..., None] & down).reshape(count, len(FEET))
    for foot in range(len(FEET)):
        for start, end in runs(touching[:, foot]):
            touching[start:end, foot] = end - start >= SHORTEST
    return touching


def cheapest(costs: Float[np.ndarray, "t 4"]) -> Int64[np.ndarray, " t"]:
    """The states of least cost altogether; each foot that changes costs CHANGE."""
    change = CHANGE * (_STANDS[:, None] != _STANDS[None]).sum(2)
    total, before = costs[0], np.zeros(costs.shape, np.int64)
    for t in range(1, len(costs)):
        table = total[:, None] + change
        before[t] = table.argmin(0)
        total = table.min(0) + costs[t]
    states = np.zeros(len(costs), np.int64)
    states[-1] = total.argmin()
    for t in range(len(costs) - 1, 0, -1):
        states[t - 1] = before[t, states[t]]
    return states
