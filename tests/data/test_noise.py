"""PoseFix noise against its table (a large sample with a fixed seed), and what a detector leaves out."""

import numpy as np
import pytest

from dpmesh.data.noise import (
    GONE,
    GOOD,
    INVERSION,
    JITTER,
    MISS,
    RADIUS_10,
    RADIUS_50,
    RADIUS_85,
    SWAP,
    detector_like,
    joints30_of,
    posefix,
)
from dpmesh.skeletons import COCO17, COCO_SIGMAS, JOINTS30

N = 8000
FAR = np.stack(
    [np.arange(17) % 5 * 3000.0, np.arange(17) // 5 * 3000.0], 1
)  # so far apart that nothing is refused
AREA = 100.0 * 100.0
D85, D50, D10 = (r * np.array(COCO_SIGMAS) * 100 for r in (RADIUS_85, RADIUS_50, RADIUS_10))

# The specification's table: jitter n<=10, >10; miss n<=5, 6-10, >10; inversion; swap, crowded.
NOSE, EYE, SHOULDER, WRIST, HIP, KNEE, ANKLE = 0, 2, 5, 10, 11, 14, 15
TABLE = {
    NOSE: (0.15, 0.10, 0.15, 0.10, 0.02, 0.01, 0.01, 0.02),
    EYE: (0.20, 0.15, 0.15, 0.10, 0.02, 0.01, 0.01, 0.02),
    SHOULDER: (0.20, 0.15, 0.20, 0.13, 0.05, 0.03, 0.06, 0.15),
    WRIST: (0.20, 0.15, 0.25, 0.15, 0.10, 0.03, 0.06, 0.15),
    HIP: (0.25, 0.20, 0.25, 0.15, 0.10, 0.06, 0.03, 0.10),
    KNEE: (0.15, 0.10, 0.25, 0.15, 0.10, 0.06, 0.03, 0.10),
    ANKLE: (0.15, 0.10, 0.20, 0.13, 0.05, 0.06, 0.03, 0.10),
}


def draw(labelled: int, others: int, seed: int = 0):
    flags = np.zeros((N, 17), np.float32)
    flags[:, list(TABLE)] = 1  # the joints tested, their partners, then others
    order = [*TABLE, *(COCO17.flip[j] for j in TABLE if COCO17.flip[j] not in TABLE)]
    order += [j for j in range(17) if j not in order]
    flags[:] = 0
    flags[:, order[:labelled]] = 1
    points = np.tile(FAR, (N, 1, 1)).astype(np.float32)
    neighbours = np.stack([FAR + 100000.0 * (k + 1) for k in range(others)] or [FAR])[None].repeat(N, 0)
    near = np.full((N, max(others, 1), 17), float(others > 0), np.float32)
    return (
        points,
        flags,
        posefix(np.random.default_rng(seed), points, flags, np.full(N, AREA), neighbours, near),
    )


@pytest.mark.parametrize(("labelled", "others"), [(17, 0), (17, 1), (15, 3), (10, 1), (9, 0), (4, 0)])
def test_error_kinds_have_the_rates_of_the_table(labelled: int, others: int) -> None:
    _, flags, noisy = draw(labelled, others)
    crowded = (labelled <= 10 and others > 0) or (labelled <= 15 and others >= 3)
    for joint, row in TABLE.items():
        wanted = np.zeros(5)
        wanted[JITTER] = row[0] if labelled <= 10 else row[1]
        wanted[MISS] = row[2] if labelled <= 5 else row[3] if labelled <= 10 else row[4]
        wanted[INVERSION], wanted[SWAP] = row[5], row[7] if crowded else row[6]
        wanted[GOOD] = 1 - wanted.sum()
        partner = COCO17.flip[joint]
        if partner == joint or not flags[0, partner]:
            wanted[INVERSION] = 0
        if not others:
            wanted[SWAP] = 0
        wanted /= wanted.sum()
        rates = np.bincount(noisy.kind[:, joint], minlength=6) / N
        assert rates[GONE] == 0
        slack = 4.5 * np.sqrt(wanted * (1 - wanted) / N) + 1e-9
        assert (np.abs(rates[:5] - wanted) <= slack).all(), (COCO17.joints[joint], rates, wanted)


def test_radii_are_uniform_between_the_similarities() -> None:
    points, _, noisy = draw(17, 1)
    off = np.linalg.norm(noisy.points - points, axis=-1)
    for kind, low, high in ((JITTER, D85, D50), (GOOD, 0 * D85, D85)):
        share = ((off - low) / (high - low))[noisy.kind == kind]
        assert share.min() > -1e-3 and share.max() < 1 + 1e-3
        assert abs(share.mean() - 0.5) < 0.02 and abs((share < 0.25).mean() - 0.25) < 0.02
    for joint in TABLE:  # a miss starts from the joint itself, its partner, or the neighbour's two
        missed = noisy.kind[:, joint] == MISS
        own = off[missed, joint] < D10[joint] * 1.001
        candidates = 3.0 if joint != NOSE else 1.0  # next to the own position, with a weight of 1/4 each
        assert abs(own.mean() - 1 / (1 + candidates / 4)) < 6 * np.sqrt(0.25 / missed.sum())
        assert off[missed, joint][own].min() > D50[joint] * 0.999
    swapped = noisy.kind == SWAP
    assert (noisy.points[swapped] > 50000).all()


def test_an_inverted_joint_lies_at_its_noised_partner() -> None:
    points, _, noisy = draw(17, 0)
    for right in (EYE, 6, WRIST, 12, KNEE, 16):
        left = COCO17.flip[right]
        rows = noisy.kind[:, right] == INVERSION
        to_noised = np.linalg.norm(noisy.points[rows, right] - noisy.points[rows, left], axis=-1)
        assert rows.sum() > 20 and to_noised.max() < D50[right] * 1.001
    rows = noisy.kind[:, HIP] == INVERSION  # the left one comes first and uses the clean right one
    assert np.linalg.norm(noisy.points[rows, HIP] - points[rows, 12], axis=-1).max() < D50[HIP] * 1.001


def test_a_refused_proposal_is_drawn_again() -> None:
    points = np.tile(FAR, (N, 1, 1)).astype(np.float32)
    points[:, 12] = points[:, HIP] + np.float32([1.1 * D85[HIP], 0])  # the partner inside the jitter ring
    none = np.zeros((N, 1, 17), np.float32)
    noisy = posefix(
        np.random.default_rng(0),
        points,
        np.ones((N, 17), np.float32),
        np.full(N, AREA),
        none[..., None] + points[:, None],
        none,
    )
    moved = noisy.points[:, HIP] - points[:, HIP]
    jitter = noisy.kind[:, HIP] == JITTER
    own, partner = (
        np.linalg.norm(moved, axis=-1),
        np.linalg.norm(noisy.points[:, HIP] - points[:, 12], axis=-1),
    )
    assert jitter.sum() > 500 and (own[jitter] < partner[jitter]).all()


def test_where_nothing_is_possible_the_joint_is_gone() -> None:
    # Two people shrunk to one spot: no proposal is nearer to its own centre than to another candidate.
    points = np.full((20, 17, 2), 50, np.float32)
    ones = np.ones((20, 17), np.float32)
    noisy = posefix(np.random.default_rng(0), points, ones, np.zeros(20), points[:, None], ones[:, None])
    assert (noisy.kind[:, NOSE] == GONE).all()
    assert (noisy.points[:, NOSE] == 0).all() and (noisy.flags[:, NOSE] == 0).all()
    assert ((noisy.kind == GONE) == (noisy.flags == 0)).all()


def test_the_same_seed_gives_the_same_noise_and_the_input_stays() -> None:
    points, _, first = draw(17, 1, seed=3)
    _, _, second = draw(17, 1, seed=3)
    _, _, other = draw(17, 1, seed=4)
    assert (first.points == second.points).all() and not (first.points == other.points).all()
    assert (points == FAR.astype(np.float32)).all()


def test_a_detector_leaves_out_what_is_hidden_and_what_is_outside() -> None:
    rng = np.random.default_rng(0)
    points = np.full((N, 17, 2), 128, np.float32)
    points[:, 3] = [300, 10]
    hidden, inside = np.zeros((N, 17), bool), np.ones((N, 17), bool)
    hidden[:, 1], inside[:, 2] = True, False
    out, visible = detector_like(rng, points, np.ones((N, 17), np.float32), hidden, inside, np.full(N, 400.0))
    rate = visible.mean(0)
    assert abs(rate[0] - 0.9) < 0.02 and abs(rate[1] - 0.45) < 0.03 and rate[2] == 0 and rate[3] == 0
    assert (out[visible == 0] == 0).all() and (out[:, 0][visible[:, 0] > 0] == 128).all()
    assert out[:, 1][visible[:, 1] > 0].std() > 0.3  # hidden ones are placed worse


def test_detected_joints_go_to_the_thirty_by_name() -> None:
    rng = np.random.default_rng(0)
    points, flags = rng.uniform(1, 255, (5, 17, 2)).astype(np.float32), np.ones((5, 17), np.float32)
    flags[0, COCO17.index("L_Hip")] = 0
    joints, visible = joints30_of(points, flags)
    for name in COCO17.joints[:11]:
        assert (joints[:, JOINTS30.index(name)] == points[:, COCO17.index(name)]).all()
    hips = (points[:, 11] + points[:, 12]) / 2
    assert np.allclose(joints[1:, JOINTS30.index("Pelvis")], hips[1:]) and (joints[0, 0] == 0).all()
    assert visible[0, 0] == 0 and visible[1:].sum(1).tolist() == [19] * 4
    assert (joints[visible == 0] == 0).all()
