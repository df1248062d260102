"""A model of a 2D pose detector: noisy keypoints from ground-truth joints.

`posefix` draws errors with the statistics that PoseFix measured (Moon et al., CVPR 2019), by the rules with
which 3DCrowdNet, JOTR and DPMesh train; `detector_like` then decides which joints are reported at all.
All points are in pixels of the crop, joints in COCO-17 order.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int8
from numpy.typing import NDArray

from dpmesh.render.typed import compiled
from dpmesh.skeletons import COCO17, COCO_SIGMAS, JOINTS30, convert

JITTER, MISS, INVERSION, SWAP, GOOD, GONE = range(6)
"""Kinds of error. GONE: no proposal of any kind was accepted, the joint is (0, 0) with flag 0."""

RADIUS_85, RADIUS_50, RADIUS_10 = (2 * float(np.sqrt(2 * np.log(1 / s))) for s in (0.85, 0.5, 0.1))
"""Distance, in units of sigma·sqrt(area), at which the object-keypoint similarity is 0.85, 0.5 and 0.1."""

_GROUPS = (
    ["nose"] + ["face"] * 4 + ["shoulder"] * 2 + ["arm"] * 4 + ["hip"] * 2 + ["knee"] * 2 + ["ankle"] * 2
)
# jitter with n <= 10 and more; miss with n <= 5, <= 10 and more; inversion; swap normal and crowded
_TABLE = {
    "nose": (0.15, 0.10, 0.15, 0.10, 0.02, 0.01, 0.01, 0.02),
    "face": (0.20, 0.15, 0.15, 0.10, 0.02, 0.01, 0.01, 0.02),
    "shoulder": (0.20, 0.15, 0.20, 0.13, 0.05, 0.03, 0.06, 0.15),
    "arm": (0.20, 0.15, 0.25, 0.15, 0.10, 0.03, 0.06, 0.15),
    "hip": (0.25, 0.20, 0.25, 0.15, 0.10, 0.06, 0.03, 0.10),
    "knee": (0.15, 0.10, 0.25, 0.15, 0.10, 0.06, 0.03, 0.10),
    "ankle": (0.15, 0.10, 0.20, 0.13, 0.05, 0.06, 0.03, 0.10),
}
_RATES = np.array([_TABLE[group] for group in _GROUPS])
_SIGMAS = np.array(COCO_SIGMAS)
_MIRROR = np.array([m if m != j else -1 for j, m in enumerate(COCO17.flip)], np.int64)  # the nose has none


class Noisy(NamedTuple):
    """points (n, 17, 2) px; flags (n, 17) 1 where there is a point; kind (n, 17) of the error."""

    points: Float32[NDArray[np.float32], "n 17 2"]
    flags: Float32[NDArray[np.float32], "n 17"]
    kind: Int8[NDArray[np.int8], "n 17"]


def posefix(
    rng: np.random.Generator,
    points: Float[NDArray[np.floating], "n 17 2"],
    flags: Float[NDArray[np.floating], "n 17"],
    area: Float[NDArray[np.floating], " n"],
    neighbours: Float[NDArray[np.floating], "n k 17 2"],
    neighbour_flags: Float[NDArray[np.floating], "n k 17"],
    in_place: bool = True,
) -> Noisy:
    """Jitter, miss, inversion (left for right), swap (another's joint) or a good estimate for every joint.

    flags > 0: labelled joints; they are counted and decide whether a left-right partner can be taken for
    the joint. A joint without label gets a point too.  area: px² of the person's annotated box, not of the labelled
    joints' extent (which is smaller, and nothing for one joint).  neighbours: people whose annotated boxes overlap
    the person's by an IoU of 0.1 or more; one without any flag > 0 is padding.

    in_place: as published, a right joint meets its left partner where noise has put it (the left one of a pair
    comes first); else both meet the true one.

    The published code draws hundreds of proposals around every candidate position, keeps the accepted, then
    picks kind and proposal at random. Picking the kind first and proposing until one is accepted has the
    same distribution; a kind that exhausts its proposals is unavailable and another is picked, in proportion.
    """
    truth = np.ascontiguousarray(points, dtype=np.float64)
    out = truth.copy()
    kind = np.zeros(flags.shape, np.int8)
    _posefix(
        rng, out if in_place else truth, out, np.ascontiguousarray(flags, dtype=np.float64),
        np.ascontiguousarray(area, dtype=np.float64),
        np.ascontiguousarray(neighbours, dtype=np.float64),
        np.ascontiguousarray(neighbour_flags, dtype=np.float64),
        kind, _RATES, _SIGMAS, _MIRROR,
    )  # fmt: skip
    return Noisy(out.astype(np.float32), (kind != GONE).astype(np.float32), kind)


def detector_like(
    rng: np.random.Generator,
    points: Float[NDArray[np.floating], "n 17 2"],
    flags: Float[NDArray[np.floating], "n 17"],
    hidden: Bool[NDArray[np.bool_], "n 17"],
    inside: Bool[NDArray[np.bool_], "n 17"],
    area: Float[NDArray[np.floating], " n"],
    drop_hidden: float = 0.5,
    drop_any: float = 0.1,
) -> tuple[Float32[NDArray[np.float32], "n 17 2"], Float32[NDArray[np.float32], "n 17"]]:
    """Leave out joints as a detector does, and place the hidden ones worse.

    hidden: something covers the true joint; such a joint is dropped with probability `drop_hidden`, else
    moved by a normal error of the size of its 0.85 similarity radius.  inside: the true joint lies inside the
    image; one outside is dropped, as is one whose reported point falls outside the crop. Any joint is
    dropped with probability `drop_any`. Dropped joints are (0, 0) with flag 0.
    """
    guess = rng.standard_normal(points.shape) * (RADIUS_85 * _SIGMAS * np.sqrt(area)[:, None])[..., None]
    moved = np.where(hidden[..., None], points + guess, points)
    chance = np.where(hidden, 1 - (1 - drop_hidden) * (1 - drop_any), drop_any)
    visible = (flags > 0) & inside & (rng.random(flags.shape) >= chance)
    visible &= ((moved >= 0) & (moved < 256)).all(-1)
    return np.where(visible[..., None], moved, 0).astype(np.float32), visible.astype(np.float32)


def joints30_of(
    points: Float32[NDArray[np.float32], "n 17 2"], flags: Float32[NDArray[np.float32], "n 17"]
) -> tuple[Float32[NDArray[np.float32], "n 30 2"], Float32[NDArray[np.float32], "n 30"]]:
    """Detected COCO-17 joints as the model's input: by name, Pelvis and Neck as middles, the rest unseen."""
    full = convert(np.concatenate([points, flags[..., None]], -1), COCO17, JOINTS30)
    return full[..., :2] * full[..., 2:], full[..., 2]


@compiled
def _farther(
    x: float, y: float, candidates: NDArray[np.float64], count: int, skip: int, only: int, limit: float
) -> bool:
    """Is (x, y) farther than `limit` from the first `count` candidates (`skip` apart; or from `only`)?"""
    for c in range(count):
        if c == skip or (only >= 0 and c != only):
            continue
        if (x - candidates[c, 0]) ** 2 + (y - candidates[c, 1]) ** 2 <= limit * limit:
            return False
    return True


@compiled
def _posefix(
    rng: np.random.Generator,
    partners: NDArray[np.float64],
    points: NDArray[np.float64],
    flags: NDArray[np.float64],
    area: NDArray[np.float64],
    neighbours: NDArray[np.float64],
    neighbour_flags: NDArray[np.float64],
    kind: NDArray[np.int8],
    rates: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    mirror: NDArray[np.int64],
) -> None:
    people, joints = flags.shape
    others = neighbours.shape[1]
    candidates = np.empty(
        (2 + 2 * others, 2)
    )  # G, then S of every neighbour, then I, then SI of every neighbour
    p = np.empty(5)
    for i in range(people):
        labelled = (flags[i] > 0).sum()
        overlapping = 0
        for k in range(others):
            overlapping += 1 if (neighbour_flags[i, k] > 0).any() else 0
        crowded = (labelled <= 10 and overlapping > 0) or (labelled <= 15 and overlapping >= 3)
        for j in range(
            joints
        ):  # in order; where partners is points, a right joint meets its left one's noise
            m = mirror[j]
            candidates[0] = points[i, j]
            count = 1
            for k in range(others):
                if neighbour_flags[i, k, j] > 0:
                    candidates[count] = neighbours[i, k, j]
                    count += 1
            partner = -1
            if m >= 0 and flags[i, m] > 0:
                partner = count
                candidates[count] = partners[i, m]
                count += 1
            swapped_from = count
            for k in range(others):
                if m >= 0 and neighbour_flags[i, k, m] > 0:
                    candidates[count] = neighbours[i, k, m]
                    count += 1
            # Kept as published: with no own partner the first neighbour's partner takes its place for swaps.
            repel = partner if partner >= 0 else (swapped_from if count > swapped_from else -1)
            swaps = count - 1 - (1 if repel >= 0 else 0)

            p[0] = rates[j, 0] if labelled <= 10 else rates[j, 1]
            p[1] = rates[j, 2] if labelled <= 5 else (rates[j, 3] if labelled <= 10 else rates[j, 4])
            p[2] = rates[j, 5]
            p[3] = rates[j, 7] if crowded else rates[j, 6]
            p[4] = 1 - p[0] - p[1] - p[2] - p[3]
            if partner < 0:
                p[2] = 0.0
            if swaps == 0:
                p[3] = 0.0
            scale = sigmas[j] * np.sqrt(area[i])
            d85, d50, d10 = RADIUS_85 * scale, RADIUS_50 * scale, RADIUS_10 * scale
            placed = False
            while not placed and p.sum() > 0:
                u = rng.random() * p.sum()
                t = 0
                while t < 4 and (u >= p[t] or p[t] == 0):
                    u -= p[t]
                    t += 1
                tries = 125 if t == 4 else (2000 * count if t == 1 else (500 * swaps if t == 3 else 500))
                for _ in range(tries):
                    centre = 0
                    low, high = 0.0, d50
                    if t == 0:
                        low = d85
                    elif t == 1:  # the own position four times as often as each other candidate
                        low, high = d50, d10
                        pick = rng.random() * (3 + count)
                        centre = 0 if pick < 4 else int(pick) - 3
                    elif t == 2:
                        centre = partner
                    elif t == 3:
                        centre = 1 + int(rng.random() * swaps)
                        if repel >= 0 and centre >= repel:
                            centre += 1
                    else:
                        high = d85
                    r = low + (high - low) * rng.random()
                    angle = 2 * np.pi * rng.random()
                    x, y = (
                        candidates[centre, 0] + r * np.cos(angle),
                        candidates[centre, 1] + r * np.sin(angle),
                    )
                    if t == 3:
                        placed = _farther(x, y, candidates, count, -1, 0, r) and (
                            repel < 0 or _farther(x, y, candidates, count, -1, repel, r)
                        )
                    else:
                        placed = _farther(x, y, candidates, count, centre, -1, d50 if t == 1 else r)
                    if placed:
                        points[i, j, 0], points[i, j, 1] = x, y
                        kind[i, j] = t
                        break
                p[t] = 0.0
            if not placed:
                points[i, j, 0], points[i, j, 1] = 0.0, 0.0
                kind[i, j] = GONE
