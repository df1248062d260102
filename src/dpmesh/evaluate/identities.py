"""Identities over time: IDF1 (Ristani et al., ECCV workshops 2016) and switches (CLEAR MOT, Bernardin and Stiefelhagen,
2008)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment

MATCH = 0.5
"""Least similarity of a match."""


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """truth, predicted: identities, each at most once. similarity: in [0, 1]. ignored: truth that may be predicted or
    not."""

    truth: Int64[np.ndarray, " g"]
    predicted: Int64[np.ndarray, " p"]
    similarity: Float[np.ndarray, "g p"]
    ignored: Bool[np.ndarray, " g"] | None = None


@dataclass(frozen=True, eq=False)
class Identities:
    """For each of `truth`: idtp and idfn, frames in which the assigned predicted identity is, or is not, matched;
    switches. idfp: over all predictions. pairs: of each frame, rows of truth and of predictions that match, without
    ignored ones."""

    truth: Int64[np.ndarray, " k"]
    idtp: Int64[np.ndarray, " k"]
    idfn: Int64[np.ndarray, " k"]
    idfp: int
    switches: Int64[np.ndarray, " k"]
    pairs: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def idf1(self) -> float:
        """NaN without truth and predictions."""
        total = 2 * int(self.idtp.sum()) + int(self.idfn.sum()) + self.idfp
        return 2 * float(self.idtp.sum()) / total if total else float("nan")


def identities(frames: Sequence[TrackedFrame], match: float = MATCH) -> Identities:
    """Compare tracks with the truth, frame after frame.

    A prediction that matches an ignored truth counts neither for nor against.
    """
    kept = [_without_ignored(frame, match) for frame in frames]
    names = np.unique(np.concatenate([np.zeros(0, np.int64), *(f.truth[rows] for f, rows, _ in kept)]))
    others = np.unique(np.concatenate([np.zeros(0, np.int64), *(f.predicted[cols] for f, _, cols in kept)]))
    together = np.zeros((len(names), len(others)), np.int64)
    length, predicted = np.zeros(len(names), np.int64), 0
    switches = np.zeros(len(names), np.int64)
    before: dict[int, int] = {}  # truth -> predicted identity in the frame before
    last: dict[int, int] = {}  # truth -> the last predicted identity
    pairs: list[tuple[tuple[int, int], ...]] = []
    for frame, rows, cols in kept:
        truth = np.searchsorted(names, frame.truth[rows])
        guess = np.searchsorted(others, frame.predicted[cols])
        near = frame.similarity[np.ix_(rows, cols)] >= match
        np.add.at(together, (truth[:, None], guess[None]), near)
        length[truth] += 1
        predicted += len(guess)
        # A match of the frame before goes on, whatever is nearer.
        goes_on = np.array([[before.get(int(t)) == int(g) for g in guess] for t in truth], bool)
        goes_on = goes_on.reshape(near.shape)
        weight = np.where(near, 1000.0 * goes_on + frame.similarity[np.ix_(rows, cols)], 0.0)
        matched = [(a, b) for a, b in zip(*linear_sum_assignment(-weight), strict=True) if weight[a, b] > 0]
        now = {int(truth[a]): int(guess[b]) for a, b in matched}
        for t, g in now.items():
            switches[t] += t in last and last[t] != g
        last |= now
        if len(truth) and len(guess):  # an empty frame breaks no match off
            before = now
        pairs.append(tuple((int(rows[a]), int(cols[b])) for a, b in matched))
    idtp = np.zeros(len(names), np.int64)
    chosen, assigned = linear_sum_assignment(-together)
    idtp[chosen] = together[chosen, assigned]
    return Identities(names, idtp, length - idtp, predicted - int(idtp.sum()), switches, tuple(pairs))


def _without_ignored(
    frame: TrackedFrame, match: float
) -> tuple[TrackedFrame, Int64[np.ndarray, " r"], Int64[np.ndarray, " c"]]:
    """Rows of the truth and of predictions that count."""
    cols = np.ones(len(frame.predicted), bool)
    if frame.ignored is None or not frame.ignored.any():
        return frame, np.arange(len(frame.truth)), np.arange(len(cols))
    weight = np.where(frame.similarity >= match, frame.similarity, 0.0)
    for a, b in zip(*linear_sum_assignment(-weight), strict=True):
        if weight[a, b] > 0 and frame.ignored[a]:
            cols[b] = False
    return frame, np.flatnonzero(np.logical_not(frame.ignored)), np.flatnonzero(cols)
