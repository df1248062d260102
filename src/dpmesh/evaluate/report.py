"""The result of a run: result.json, result.md, rows.npz. docs/evaluation.md lists the fields."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.errors import InputError
from dpmesh.evaluate.interfaces import Census
from dpmesh.evaluate.names import markdown as plain
from dpmesh.evaluate.protocol import Measure, hash_of
from dpmesh.evaluate.results import ARRAYS, Rows, save
from dpmesh.evaluate.runner import Opened
from dpmesh.evaluate.runner import plain as plain_job
from dpmesh.evaluate.schema import ANY, COUNT, FLAG, NUMBER, STRING, Each, Maybe, require
from dpmesh.io import atomic_write, read_json
from dpmesh.metrics import mean_of, pck

RESULT, TEXT, ROWS = "result.json", "result.md", "rows.npz"
FORMAT = 1
LARGEST = 256 * 2**20
"""Bytes of a result.json; all of 3DPW's is a thousandth of that."""
_NAMED = 20
"""So many unusable records are named."""


def result(opened: Opened, rows: Rows) -> dict[str, Any]:
    """Everything that a reader needs to believe the figures."""
    protocol, census = opened.protocol, opened.source.census
    return {
        "format": FORMAT,
        "protocol": {
            "name": protocol.full_name,
            "title": protocol.title,
            "hash": protocol.hash,
            "definition": protocol.definition(),
            "notes": list(protocol.notes),
        },
        "package": opened.header["package"],
        "weights": dict(opened.record),
        "run": {**plain_job(opened.job), "device": opened.device.type},
        "persons": {
            "evaluated": len(rows),
            "failures": int(rows.failed.sum()),
            "unusable": int(rows.unusable.sum()),
            "partial": opened.count < len(opened.source),
            **_counts(census),
        },
        "data": {
            "layout": census.layout,
            "files": dict(census.files),
            "left_out": dict(census.left_out),
            "unusable": [str(name) for name in rows.ids[rows.unusable][:_NAMED]],
            "notes": list(census.notes),
        },
        "fallbacks": {name: int(n) for name, n in sorted(rows.fallbacks.items()) if n},
        "figures": figures(protocol.measure, rows),
    }


def _counts(census: Census) -> dict[str, Any]:
    difference = None if census.published is None else census.found - census.published
    return {"found": census.found, "published": census.published, "difference": difference}


def unusable_of(found: Mapping[str, Any]) -> int:
    """How many records had numbers that are not finite; earlier versions did not tell."""
    count = found["persons"].get("unusable", 0)
    return count if isinstance(count, int) else 0


def write(opened: Opened, rows: Rows, found: dict[str, Any]) -> Path:
    """Rows and text first, so that a result.json always has both beside it. Returns its path."""
    folder = opened.job.folder
    save(folder / ROWS, rows, opened.header)
    atomic_write(folder / TEXT, markdown(found))
    atomic_write(folder / RESULT, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return folder / RESULT


def read(path: Path) -> dict[str, Any]:
    """A result by its file or folder; raises InputError for one that was not written by us, or was changed."""
    path = (
        path / RESULT if os.path.isdir(path) else path
    )  # of a name that no path may have False, not an error
    if not os.path.exists(path):
        raise InputError("no such file", where=str(path), fix=_AGAIN)
    found = read_json(path, LARGEST)
    if not isinstance(found, dict) or found.get("format") != FORMAT or "figures" not in found:
        raise InputError("not a result of this version of dpmesh eval", where=str(path), fix=_AGAIN)
    require(found, SHAPE, str(path), _AGAIN)
    curves = [curve for name, curve in found["figures"]["pck"].items() if name != "mm"]
    for curve in curves:
        require(curve, _CURVE, str(path), _AGAIN)
    if any(len(curve["shares"]) != len(found["figures"]["pck"]["mm"]) for curve in curves):
        raise InputError("a curve has not as many points as there are limits", where=str(path), fix=_AGAIN)
    if hash_of(found["protocol"]["definition"]) != found["protocol"]["hash"]:
        raise InputError("the protocol's definition is not that of its hash", where=str(path), fix=_AGAIN)
    return found


_AGAIN = "Give a result.json that dpmesh eval wrote, or run the evaluation again."
_VALUE = Maybe(NUMBER)
_CURVE = {"shares": [_VALUE], "auc": _VALUE}
SHAPE = {
    "format": COUNT,
    "protocol": {
        "name": STRING, "title": STRING, "hash": STRING, "notes": [STRING],
        "definition": {"name": STRING, "edition": STRING, "version": COUNT},
    },
    "package": STRING,
    "weights": {"name": STRING, "sha256": STRING, "notes": [STRING]},
    "run": Each(ANY),
    "persons": {
        "evaluated": COUNT, "failures": COUNT, "partial": FLAG, "found": COUNT, "published": Maybe(COUNT),
        "difference": Maybe(NUMBER),
    },
    "data": {"layout": STRING, "files": Each(STRING), "left_out": Each(COUNT), "notes": [STRING]},
    "fallbacks": Each(COUNT),
    "figures": {
        "mean": Each({"mean": _VALUE, "median": _VALUE, "count": COUNT, "failures": COUNT}),
        "per_joint": Each(Each(_VALUE)), "by_sight": Each(Each(_VALUE)), "by_sequence": Each(Each(_VALUE)),
        "pck": {"mm": [NUMBER]},
        "failures": COUNT,
    },
}  # fmt: skip
"""What everybody who reads a result may rely on."""


def mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def markdown(found: Mapping[str, Any]) -> str:
    """The result for people, as Markdown; names in it are plain text."""
    protocol, persons, numbers = found["protocol"], found["persons"], found["figures"]
    data, weights = found["data"], found["weights"]
    published = persons["published"] if persons["published"] is not None else "no number"
    lines = [f"# {plain(protocol['title'])} ({plain(protocol['name'])}, hash {plain(protocol['hash'])})", ""]
    lines += [f"* **{plain(line)}**" for line in warnings(found)]
    lines += [
        f"* weights: {plain(weights['name'])} ({plain(made_by(weights))}), dpmesh {plain(found['package'])}",
        f"* data: {plain(data['layout'])}; {persons['found']} persons found,"
        f" {published} published, {persons['evaluated']} evaluated",
    ]
    lines += [f"* left out: {n} × {plain(why)}" for why, n in data["left_out"].items()]
    lines += [f"* fallback: {n} × {plain(name)}" for name, n in found["fallbacks"].items()]
    lines += [f"* note: {plain(note)}" for note in (*protocol["notes"], *data["notes"], *weights["notes"])]
    lines += ["", "| mm | mean | median | persons | failures |", "|---|---|---|---|---|"]
    lines += [
        f"| {plain(name)} | {mm(m['mean'])} | {mm(m['median'])} | {m['count']} | {m['failures']} |"
        for name, m in numbers["mean"].items()
    ]
    lines += [
        "",
        "Means are over the persons that did not fail; PCK counts a failure's joints as missed.",
        "",
    ]
    for title, key in (("joint", "per_joint"), ("keypoint", "by_sight"), ("sequence", "by_sequence")):
        lines += [*_table(title, numbers[key]), ""]
    curves = {plain(name): curve for name, curve in numbers["pck"].items() if name != "mm"}
    lines += [f"| joints within | {' | '.join(curves)} |", "|---" * (len(curves) + 1) + "|"]
    for at, limit in enumerate(numbers["pck"]["mm"]):
        if limit in (50, 100, 150, 200):
            shares = [curve["shares"][at] for curve in curves.values()]
            cells = ["–" if share is None else f"{100 * share:.1f} %" for share in shares]
            lines.append(f"| {limit} mm | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def made_by(weights: Mapping[str, Any]) -> str:
    return f"sha256 {weights['sha256'][:12]}…" if weights["sha256"] else "no file"


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What keeps a figure from being compared with a published one."""
    persons, told = found["persons"], []
    if persons["partial"]:
        told.append(f"partial: the first {persons['evaluated']} of {persons['found']} persons")
    if persons["difference"]:
        told.append(f"{abs(persons['difference'])} persons {'more' if persons['difference'] > 0 else 'fewer'}"
                    f" than published ({persons['found']}, not {persons['published']})")  # fmt: skip
    if persons["failures"]:
        told.append(f"{persons['failures']} predictions are not finite and are in no mean")
    if count := unusable_of(found):
        named = ", ".join(str(name) for name in found["data"].get("unusable", [])[:3])
        told.append(f"{count} records have numbers that are not finite and are in no figure ({named}, …)"
                    if count > 3 else
                    f"{count} records have numbers that are not finite and are in no figure ({named})")  # fmt: skip
    return told


def _table(title: str, entries: dict[str, dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for values in entries.values() for name in values))
    heads = " | ".join(plain(column) for column in columns)
    lines = [f"| {title} | {heads} |", "|---" * (len(columns) + 1) + "|"]
    for name, values in entries.items():
        cells = [str(v) if isinstance(v, int) else mm(v) for v in (values.get(c) for c in columns)]
        lines.append(f"| {plain(name)} | {' | '.join(cells)} |")
    return lines


# Rows into figures: plain data, ready for JSON. A mean is over the persons that did not fail; the failures' count
# stands beside every one of them, and PCK counts a failure's joints as missed.


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
