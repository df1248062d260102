"""Compares two results of one protocol person by person: the mean difference and its confidence interval.

People in one video are correlated, so the interval resamples whole sequences. An interval that resamples single people,
as if they were independent, is reported as well.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.evaluate.checks import one_line
from dpmesh.evaluate.common_frames import MEASURES as COMMON
from dpmesh.evaluate.common_frames import on_common_frames
from dpmesh.evaluate.report import RESULT, ROWS, read
from dpmesh.evaluate.results import Rows, load
from dpmesh.io import read_json
from dpmesh.metrics import mean_of

DRAWS = 2000
LEVEL = 0.95
_MEASURES = {
    "MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "MPVE": "mpve", "acceleration": "acceleration", "foot slide": "slide",
}  # fmt: skip


def compare(first: Path, second: Path, seed: int = 0) -> dict[str, Any]:
    """For each measure of both results: the means, second - first, and 95 % intervals (percentile bootstrap).
    For people over time also on the frames in which both have the person.

    first, second: result folders or result.json files. Results are paired by person; people who are in one result only
    or failed in either are counted and left out. Raises InputError, also for results of different protocols.
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
    if one.frames.size and one.frames.shape[1:] == two.frames.shape[1:]:
        figures = on_common_frames([one.frames[left], two.frames[right]])
        for name in COMMON:
            pair = figures[0][name], figures[1][name]
            both = np.isfinite(pair[0])
            if both.any():
                measures[f"{name}, frames of both"] = _paired(
                    pair[0][both], pair[1][both], sequences[both], seed
                )
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
    """Raise InputError if writing to `path` would replace a file that is no comparison."""
    if not os.path.lexists(path):
        return
    try:
        content = read_json(path, 2**20)
    except InputError:
        content = None
    if not (isinstance(content, dict) and {"hash", "first", "second", "measures"} <= set(content)):
        raise InputError(
            "was not written by dpmesh eval compare", where=str(path), fix="Choose another --json."
        )


def _rows(path: Path, result: Mapping[str, Any]) -> Rows:
    """The rows in the result's folder. Raises InputError unless they belong to the result."""
    rows_path = (path if os.path.isdir(path) else path.parent) / ROWS
    rows, header = load(rows_path)
    count, mean = result["persons"]["evaluated"], result["figures"]["mean"].get("MPJPE", {}).get("mean")
    computed = mean_of(rows.mpjpe).mean
    same = computed == mean or (
        computed is not None and mean is not None and np.isclose(computed, mean, rtol=1e-9)
    )
    if (
        header.get("hash", result["protocol"]["hash"]) != result["protocol"]["hash"]
        or len(rows) != count
        or not same
    ):
        raise InputError(
            f"these rows are not those of the {RESULT} in the same folder",
            where=str(rows_path),
            fix="One of the two was changed: run the evaluation again.",
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


def text(comparison: Mapping[str, Any]) -> str:
    """The comparison as lines of text."""
    lines = [
        f"{one_line(comparison['protocol'])} ({one_line(comparison['hash'])}):"
        f" {comparison['persons']} people of {comparison['sequences']} sequences in both",
        f"first:  {one_line(comparison['first']['weights'])}",
        f"second: {one_line(comparison['second']['weights'])}",
    ]
    for key in ("only in first", "only in second", "failed in either", "unusable record in either"):
        if comparison[key]:
            lines.append(f"left out, {key}: {comparison[key]}")
    for name, m in comparison["measures"].items():
        lines.append(
            f"{name}: {m['first']:.1f} → {m['second']:.1f} mm, difference {m['difference']:+.2f}"
            f" (95 % {_range(m['interval over sequences'])} over sequences,"
            f" {_range(m['interval over persons'])} over people; second better for {m['second is better for']:.0%})"
        )
    return "\n".join(lines)


def _range(interval: list[float] | None) -> str:
    return "unknown, one sequence only" if interval is None else f"{interval[0]:+.2f} … {interval[1]:+.2f}"
