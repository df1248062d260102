"""IDF1 and switches agree with TrackEval 1.3.0 and, but for the rule of continuity, py-motmetrics 1.4.0."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.evaluate.identities import TrackedFrame, identities

CASES = json.loads((Path(__file__).parent / "identities.json").read_text())
"""Random sequences: frames of truth, predictions and similarities; and what the two programs say of them."""


def frames_of(case: dict[str, Any]) -> list[TrackedFrame]:
    return [
        TrackedFrame(
            np.array(g, np.int64), np.array(p, np.int64), np.reshape(s, (len(g), len(p))).astype(float)
        )
        for g, p, s in case["frames"]
    ]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_as_other_programs_count(case: dict[str, Any]) -> None:
    got, wanted = identities(frames_of(case)), case["trackeval"]
    for name in ("idtp", "idfn"):
        assert getattr(got, name).sum() == wanted[name] == case["motmetrics"][name]
    assert got.idfp == wanted["idfp"] == case["motmetrics"]["idfp"]
    assert got.idf1 == pytest.approx(wanted["idf1"], abs=1e-6) == case["motmetrics"]["idf1"]
    assert got.switches.sum() == wanted["switches"]
    matched = sum(len(pairs) for pairs in got.pairs)
    assert sum(len(frame.truth) for frame in frames_of(case)) - matched == wanted["misses"]


def test_two_who_exchange_their_names() -> None:
    alike = np.array([[0.9, 0.1], [0.1, 0.9]])
    before, after = (TrackedFrame(np.arange(2), np.array(names), alike) for names in ([7, 8], [8, 7]))
    got = identities([before] * 6 + [after] * 4)
    assert got.switches.tolist() == [1, 1] and got.idf1 == pytest.approx(0.6)
    assert got.idtp.tolist() == [6, 6] and got.idfp == 8


def test_ignored_people_count_neither_way() -> None:
    alike = np.array([[0.9, 0.0], [0.0, 0.9]])
    hidden = np.array([False, True])
    frames = [TrackedFrame(np.arange(2), np.array([3, 4]), alike, hidden)] * 5
    with_nobody = [TrackedFrame(np.arange(2), np.array([3]), alike[:, :1], hidden)] * 5
    for got in (identities(frames), identities(with_nobody)):
        assert got.idf1 == 1 and got.truth.tolist() == [0] and got.idtp.tolist() == [5]


def test_nothing_at_all() -> None:
    assert np.isnan(identities([]).idf1)
