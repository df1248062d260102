"""Two results of one protocol, person by person: the mean difference and how sure it is.

The persons of a video resemble each other, so the honest interval draws whole sequences anew; the interval over
persons alone, which pretends that they are independent, is given beside it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.evaluate.names import line
from dpmesh.evaluate.report import RESULT, ROWS, read
from dpmesh.evaluate.results import Rows, load
from dpmesh.io import read_json
from dpmesh.metrics import mean_of

DRAWS = 2000
LEVEL = 0.95
_MEASURES = {"MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "MPVE": "mpve"}


def compare(first: Path, second: Path, seed: int = 0) -> dict[str, Any]:
    """For each measure that both have: mean of first, of second, second - first, 95 % intervals (percentile bootstrap).

    Refuses results of different protocol hashes. Pairs by person; those in one result only, and those who failed in
    either, are counted and left out. Raises InputError.
    """
    a, b = read(first), read(second)
    one, two = (_rows(path, result) for path, result in ((first, a), (second, b)))
    hashes = a["protocol"]["hash"], b["protocol"]["hash"]
    if hashes[0] != hashes[1]:
        raise InputError(
            f"the results are of different protocols: {a['protocol']['name']} ({hashes[0]}) and"
            f" {b['protocol']['name']} ({hashes[1]})",
            fix="Only results with one hash can be compared.",
        )
    shared, left, right = np.intersect1d(one.ids, two.ids, return_indices=True)
    if not len(shared):
        raise InputError("the results have no person in common", where=f"{first} and {second}")
    sequences = one.sequences[left]
    failed = one.failed[left] | two.failed[right]
    measures: dict[str, Any] = {}
    for name, attribute in _MEASURES.items():
        pair = getattr(one, attribute)[left], getattr(two, attribute)[right]
        both = np.isfinite(pair[0]) & np.isfinite(pair[1])
        if both.any():
            measures[name] = _paired(pair[0][both], pair[1][both], sequences[both], seed)
    return {
        "protocol": a["protocol"]["name"],
        "hash": hashes[0],
        "first": _named(a),
        "second": _named(b),
        "persons": len(shared),
        "sequences": len(np.unique(sequences)),
        "only in first": int(len(one) - len(shared)),
        "only in second": int(len(two) - len(shared)),
        "failed in either": int(failed.sum()),
        "unusable record in either": int((one.unusable[left] | two.unusable[right]).sum()),
        "measures": measures,
    }


def refuse_foreign(path: Path) -> None:
    """Raise InputError where another file than an earlier comparison would be replaced."""
    if not os.path.lexists(path):
        return
    try:
        found = read_json(path, 2**20)
    except InputError:
        found = None
    if not (isinstance(found, dict) and {"hash", "first", "second", "measures"} <= set(found)):
        raise InputError(
            "was not written by dpmesh eval compare", where=str(path), fix="Choose another --json."
        )


def _rows(path: Path, result: Mapping[str, Any]) -> Rows:
    """Those beside the result, if they are the result's."""
    place = (path if os.path.isdir(path) else path.parent) / ROWS
    rows, header = load(place)
    count, mean = result["persons"]["evaluated"], result["figures"]["mean"].get("MPJPE", {}).get("mean")
    found = mean_of(rows.mpjpe).mean
    same = found == mean or (found is not None and mean is not None and np.isclose(found, mean, rtol=1e-9))
    if (
        header.get("hash", result["protocol"]["hash"]) != result["protocol"]["hash"]
        or len(rows) != count
        or not same
    ):
        raise InputError(
            f"these are not the persons of the {RESULT} beside them",
            where=str(place),
            fix="One of both was changed: run the evaluation again.",
        )
    return rows


def _named(result: Mapping[str, Any]) -> dict[str, Any]:
    weights = result["weights"]
    return {"weights": weights["name"], "sha256": weights["sha256"], "partial": result["persons"]["partial"]}


def _paired(
    first: NDArray[np.float64], second: NDArray[np.float64], sequences: NDArray[Any], seed: int
) -> dict[str, Any]:
    difference = second - first
    rng = np.random.default_rng(seed)
    _, group = np.unique(sequences, return_inverse=True)
    sums = np.bincount(group, weights=difference).astype(np.float64)
    counts = np.bincount(group).astype(np.float64)
    clustered = _cluster_means(rng, sums, counts) if len(counts) > 1 else None
    return {
        "persons": len(difference),
        "first": float(first.mean()),
        "second": float(second.mean()),
        "difference": float(difference.mean()),
        "second is better for": float((difference < 0).mean()),
        "interval over sequences": None if clustered is None else _interval(clustered),
        "interval over persons": _interval(_person_means(rng, difference)),
    }


def _cluster_means(
    rng: np.random.Generator, sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Means (DRAWS,) after drawing as many sequences as there are, with replacement."""
    drawn = rng.integers(0, len(sums), (DRAWS, len(sums)))
    return sums[drawn].sum(1) / counts[drawn].sum(1)


def _person_means(rng: np.random.Generator, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)])


def _interval(means: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def text(found: Mapping[str, Any]) -> str:
    """The comparison for people."""
    lines = [
        f"{line(found['protocol'])} ({line(found['hash'])}):"
        f" {found['persons']} persons of {found['sequences']} sequences in both",
        f"first:  {line(found['first']['weights'])}",
        f"second: {line(found['second']['weights'])}",
    ]
    for key in ("only in first", "only in second", "failed in either", "unusable record in either"):
        if found[key]:
            lines.append(f"left out, {key}: {found[key]}")
    for name, m in found["measures"].items():
        lines.append(
            f"{name}: {m['first']:.1f} → {m['second']:.1f} mm, difference {m['difference']:+.2f}"
            f" (95 % {_range(m['interval over sequences'])} over sequences,"
            f" {_range(m['interval over persons'])} over persons; second better for {m['second is better for']:.0%})"
        )
    return "\n".join(lines)


def _range(interval: list[float] | None) -> str:
    return "unknown, one sequence only" if interval is None else f"{interval[0]:+.2f} … {interval[1]:+.2f}"
