"""Counts over people in photographs. All people are counted, also those who could not be tested."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.photos.ground import fit_ground
from benchmarks.photos.person import Row


def on_floors(rows: Sequence[Row], one_camera: bool = False) -> list[Row]:
    """The rows with their height above their image's floor (of all images together if one_camera).

    A floor needs two people with a visible foot; otherwise above_floor is None.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.foot is not None:
            groups["" if one_camera else row.image].append(row)
    above: dict[tuple[str, int], float] = {}
    for group in groups.values():
        if len(group) >= 2:
            feet = np.array([row.foot for row in group])
            heights = fit_ground(feet).above(feet)
            above |= {(r.image, r.person): float(h) for r, h in zip(group, heights, strict=True)}
    return [replace(row, above_floor=above.get((row.image, row.person))) for row in rows]


def summary(rows: Sequence[Row]) -> dict[str, object]:
    """PCK over all confident keypoints together; counts of every failure and of what could not be tested."""
    off = np.array([d for row in rows for d in row.distances])
    heights = np.array([abs(row.above_floor) for row in rows if row.above_floor is not None])
    statures = np.array([row.stature for row in rows if np.isfinite(row.stature)])
    statures_in: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if np.isfinite(row.stature):
            statures_in[row.image].append(row.stature)
    ratios = [max(group) / min(group) for group in statures_in.values() if len(group) > 1]
    failures: dict[str, int] = defaultdict(int)
    for row in rows:
        for name in row.failures:
            failures[name] += 1
    return {
        "people": len(rows),
        "keypoints": len(off),
        "keypoints_not_confident": sum(row.not_confident for row in rows),
        "pck_0.1": _share(off < 0.1),
        "pck_0.05": _share(off < 0.05),
        "median_distance": _rounded(np.median(off)) if len(off) else None,
        "people_below_0.85": sum(_below(row) for row in rows),
        "people_without_confident_keypoints": sum(not row.distances for row in rows),
        "failures": dict(failures),
        "people_with_a_failure": sum(bool(row.failures) for row in rows),
        "not_testable": {
            "upside down": sum(row.upside_down is None for row in rows),
            "mirrored": sum(row.mirrored is None for row in rows),
            "off the floor": sum(row.above_floor is None for row in rows),
        },
        "people_with_limb_skin_in_the_trunk": sum(row.inside_share > 0 for row in rows),
        "above_floor_m": {"median": _at(heights, 50), "90 %": _at(heights, 90), "largest": _at(heights, 100)},
        "stature_m": {"5 %": _at(statures, 5), "median": _at(statures, 50), "95 %": _at(statures, 95)},
        "stature_ratio_in_one_picture": {
            "pictures": len(ratios),
            "largest": _rounded(max(ratios, default=1.0)),
        },
    }


def _below(row: Row) -> bool:
    return bool(row.distances) and float(np.mean(np.array(row.distances) < 0.1)) < 0.85


def _share(hits: np.ndarray) -> float | None:
    return _rounded(hits.mean()) if len(hits) else None


def _at(values: np.ndarray, percentile: int) -> float | None:
    return _rounded(np.percentile(values, percentile)) if len(values) else None


def _rounded(value: float | np.floating) -> float | None:
    """None for what is not finite: JSON has no such numbers."""
    return round(float(value), 4) if np.isfinite(value) else None
