"""Rows into figures: plain data, ready for JSON. A mean is over the persons that did not fail; the failures' count
stands beside every one of them, and PCK counts a failure's joints as missed."""

from dataclasses import asdict
from typing import Any

import numpy as np

from dpmesh.evaluate.protocols import Measure
from dpmesh.evaluate.rows import ARRAYS, Rows
from dpmesh.metrics import mean_of, pck

PCK_MM = tuple(range(0, 301, 10))
"""Thresholds of the PCK curves, millimetres."""
_PER_PERSON = {"MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "MPVE": "mpve"}


def figures(measure: Measure, rows: Rows) -> dict[str, Any]:
    """mean: for each measure mean, median, count, failures. per_joint, by_sight: means over joints. by_sequence.
    pck: of joints without and with alignment; auc: the curve's mean over 0-150 mm."""
    rows = _usable(rows)
    values = {name: getattr(rows, _PER_PERSON[name]) for name in measure.metrics}
    has_pa = "PA-MPJPE" in measure.metrics
    return {
        "mean": {name: _mean(array, rows.failed) for name, array in values.items()},
        "per_joint": {
            joint: {"MPJPE": _number(rows.joint[:, j])}
            | ({"PA-MPJPE": _number(rows.joint_pa[:, j])} if has_pa else {})
            for j, joint in enumerate(measure.joint_names)
        },
        "by_sight": {
            name: {"joints": int(chosen.sum()), "MPJPE": _number(rows.joint[chosen])}
            | ({"PA-MPJPE": _number(rows.joint_pa[chosen])} if has_pa else {})
            for name, chosen in _sight(rows).items()
        },
        "by_sequence": {
            str(sequence): {"persons": int(chosen.sum()), "failures": int(rows.failed[chosen].sum())}
            | {name: _number(array[chosen]) for name, array in values.items()}
            for sequence in np.unique(rows.sequences)
            for chosen in [rows.sequences == sequence]
        },
        "pck": {"mm": list(PCK_MM), "MPJPE": _curve(_counted(rows, rows.joint))}
        | ({"PA-MPJPE": _curve(rows.joint_pa)} if has_pa else {}),
        "failures": int(rows.failed.sum()),
    }


def _usable(rows: Rows) -> Rows:
    """Without the persons whose record is at fault."""
    kept = np.logical_not(rows.unusable)
    return Rows(**{name: getattr(rows, name)[kept] for name in ARRAYS}, fallbacks=rows.fallbacks)


def _mean(values: np.ndarray, failed: np.ndarray) -> dict[str, Any]:
    """Mean over persons; a measure that nobody has is None with no failures of its own."""
    found = asdict(mean_of(values))
    if not found["count"] and not failed.all():
        found["failures"] = 0
    return found


def _sight(rows: Rows) -> dict[str, np.ndarray]:
    """Joints whose keypoint was given, those whose was not, and those that the source never gives."""
    known = np.isfinite(rows.joint)
    return {
        "visible": known & (rows.seen == 1),
        "hidden": known & (rows.seen == 0),
        "unknown": known & np.isnan(rows.seen),
    }


def _counted(rows: Rows, joints: np.ndarray) -> np.ndarray:
    """Joint errors without those that the truth does not have; those of failures stay, as NaN."""
    return joints[np.isfinite(joints) | rows.failed[:, None]]


def _curve(errors: np.ndarray) -> dict[str, Any]:
    """None without any joint."""
    if not errors.size:
        return {"shares": [None] * len(PCK_MM), "auc": None}
    shares = pck(errors, np.array(PCK_MM, np.float64))
    below = shares[: PCK_MM.index(150) + 1]
    return {"shares": [round(float(s), 6) for s in shares], "auc": round(float(below.mean()), 6)}


def _number(values: np.ndarray) -> float | None:
    return mean_of(values).mean
