"""The result of an evaluation: its figures, and the files result.json, result.md and rows.npz.

docs/guide/evaluation.md lists the fields.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.errors import InputError
from dpmesh.evaluate.checks import ANY, COUNT, FLAG, NUMBER, STRING, Each, Maybe, markdown_text, require
from dpmesh.evaluate.evaluation import Evaluation
from dpmesh.evaluate.interfaces import Census
from dpmesh.evaluate.protocol import MISSED, Measure, Metric, hash_of
from dpmesh.evaluate.results import ARRAYS, Rows, save
from dpmesh.io import atomic_write, read_json
from dpmesh.metrics import mean_of, pck

RESULT, TEXT, ROWS = "result.json", "result.md", "rows.npz"
FORMAT = 1
LARGEST = 256 * 2**20
"""Bytes of a result.json; a result on all of 3DPW takes a thousandth of that."""
_NAMED = 20
"""Unusable records that a result lists by name."""


def result(evaluation: Evaluation, rows: Rows) -> dict[str, Any]:
    """The content of result.json: the figures, and how they were computed. Plain data."""
    protocol, census = evaluation.protocol, evaluation.source.census
    return {
        "format": FORMAT,
        "protocol": {
            "name": protocol.full_name,
            "title": protocol.title,
            "hash": protocol.hash,
            "definition": protocol.definition(),
            "notes": list(protocol.notes),
        },
        "package": evaluation.header["package"],
        "weights": dict(evaluation.weights_record),
        "run": {**evaluation.config.record(), "device": evaluation.device.type},
        "persons": {
            "evaluated": len(rows),
            "failures": int(rows.failed.sum()),
            "unusable": int(rows.unusable.sum()),
            "partial": evaluation.count < len(evaluation.source),
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
    difference = None if census.published is None else census.persons - census.published
    return {"found": census.persons, "published": census.published, "difference": difference}


def unusable_of(stored: Mapping[str, Any]) -> int:
    """Number of records with numbers that are not finite; 0 for results of versions that did not store it."""
    count = stored["persons"].get("unusable", 0)
    return count if isinstance(count, int) else 0


def write(evaluation: Evaluation, rows: Rows, content: dict[str, Any]) -> Path:
    """Write the three files; content: of `result`. Returns the path of result.json, which is written last, so that
    it never stands without the others. Raises OutputError."""
    folder = evaluation.config.folder
    save(folder / ROWS, rows, evaluation.header)
    atomic_write(folder / TEXT, markdown(content))
    atomic_write(folder / RESULT, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return folder / RESULT


def read(path: Path) -> dict[str, Any]:
    """A result by its file or folder. Raises InputError for a file that is no result, or that was edited."""
    if os.path.isdir(path):  # unlike Path.is_dir, False for a name that no path can have
        path = path / RESULT
    if not os.path.exists(path):
        raise InputError("no such file", where=str(path), fix=_AGAIN)
    stored = read_json(path, LARGEST)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT or "figures" not in stored:
        raise InputError("not a result of this version of dpmesh eval", where=str(path), fix=_AGAIN)
    require(stored, SHAPE, str(path), _AGAIN)
    curves = [curve for name, curve in stored["figures"]["pck"].items() if name != "mm"]
    for curve in curves:
        require(curve, _CURVE, str(path), _AGAIN)
    if any(len(curve["shares"]) != len(stored["figures"]["pck"]["mm"]) for curve in curves):
        raise InputError("a PCK curve does not have one point per threshold", where=str(path), fix=_AGAIN)
    if hash_of(stored["protocol"]["definition"]) != stored["protocol"]["hash"]:
        raise InputError("the protocol's definition does not match its hash", where=str(path), fix=_AGAIN)
    return stored


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
"""The fields that readers of a result rely on (checks.require)."""


def mm(value: float | None) -> str:
    """Millimetres with one decimal; a dash for None."""
    return "–" if value is None else f"{value:.1f}"


def markdown(stored: Mapping[str, Any]) -> str:
    """The text of result.md. Names from files are escaped."""
    protocol, persons, numbers = stored["protocol"], stored["persons"], stored["figures"]
    data, weights = stored["data"], stored["weights"]
    published = persons["published"] if persons["published"] is not None else "no number"
    title, name, digest = (markdown_text(protocol[key]) for key in ("title", "name", "hash"))
    lines = [f"# {title} ({name}, hash {digest})", ""]
    lines += [f"* **{markdown_text(warning)}**" for warning in warnings(stored)]
    lines += [
        f"* weights: {markdown_text(weights['name'])} ({markdown_text(checksum(weights))}),"
        f" dpmesh {markdown_text(stored['package'])}",
        f"* data: {markdown_text(data['layout'])}; {persons['found']} persons found,"
        f" {published} published, {persons['evaluated']} evaluated",
    ]
    lines += [f"* left out: {n} × {markdown_text(why)}" for why, n in data["left_out"].items()]
    lines += [f"* fallback: {n} × {markdown_text(name)}" for name, n in stored["fallbacks"].items()]
    lines += [
        f"* note: {markdown_text(note)}" for note in (*protocol["notes"], *data["notes"], *weights["notes"])
    ]
    lines += ["", "| mm | mean | median | persons | failures |", "|---|---|---|---|---|"]
    lines += [
        f"| {markdown_text(name)} | {mm(m['mean'])} | {mm(m['median'])} | {m['count']} | {m['failures']} |"
        for name, m in numbers["mean"].items()
    ]
    lines += [
        "",
        "Means are over the persons that did not fail; PCK counts a failure's joints as missed.",
        "",
    ]
    if "identities" in numbers:
        found = numbers["identities"]
        lines += [
            "| IDF1 | switches | missed, % | hidden people | seconds until they are back |",
            "|---|---|---|---|---|",
            f"| {found['IDF1']:.3f} | {found['switches']} | {found['missed']:.1f} | {found['hidden']}"
            f" | {'–' if found['recovery'] is None else format(found['recovery'], '.2f')} |",
            "",
        ]
    for title, key in (("joint", "per_joint"), ("keypoint", "by_sight"), ("sequence", "by_sequence")):
        lines += [*_table(title, numbers[key]), ""]
    curves = {markdown_text(name): curve for name, curve in numbers["pck"].items() if name != "mm"}
    lines += [f"| joints within | {' | '.join(curves)} |", "|---" * (len(curves) + 1) + "|"]
    for at, limit in enumerate(numbers["pck"]["mm"]):
        if limit in (50, 100, 150, 200):
            shares = [curve["shares"][at] for curve in curves.values()]
            cells = ["–" if share is None else f"{100 * share:.1f} %" for share in shares]
            lines.append(f"| {limit} mm | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def checksum(weights: Mapping[str, Any]) -> str:
    """The weights' checksum, shortened for reading."""
    return f"sha256 {weights['sha256'][:12]}…" if weights["sha256"] else "no file"


def warnings(stored: Mapping[str, Any]) -> list[str]:
    """Reasons why the figures are not comparable with published ones."""
    persons, reasons = stored["persons"], []
    if persons["partial"]:
        reasons.append(f"partial: the first {persons['evaluated']} of {persons['found']} persons")
    if persons["difference"]:
        reasons.append(f"{abs(persons['difference'])} persons {'more' if persons['difference'] > 0 else 'fewer'}"
                    f" than published ({persons['found']}, not {persons['published']})")  # fmt: skip
    missed = stored["fallbacks"].get(MISSED, 0)
    if missed:
        reasons.append(f"{missed} people were not detected and are in no mean")
    if persons["failures"] > missed:
        reasons.append(f"{persons['failures'] - missed} predictions are not finite and are in no mean")
    if count := unusable_of(stored):
        named = ", ".join(str(name) for name in stored["data"].get("unusable", [])[:3])
        reasons.append(f"{count} records have numbers that are not finite and are in no figure ({named}, …)"
                    if count > 3 else
                    f"{count} records have numbers that are not finite and are in no figure ({named})")  # fmt: skip
    return reasons


def _table(title: str, entries: dict[str, dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for values in entries.values() for name in values))
    heads = " | ".join(markdown_text(column) for column in columns)
    lines = [f"| {title} | {heads} |", "|---" * (len(columns) + 1) + "|"]
    for name, values in entries.items():
        cells = [str(v) if isinstance(v, int) else mm(v) for v in (values.get(c) for c in columns)]
        lines.append(f"| {markdown_text(name)} | {' | '.join(cells)} |")
    return lines


PCK_MM = tuple(range(0, 301, 10))
"""Thresholds of the PCK curves, millimetres."""
_PER_PERSON: dict[Metric, str] = {
    "MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "MPVE": "mpve", "lateral": "lateral", "depth": "depth",
    "acceleration": "acceleration", "foot slide": "slide",
}  # fmt: skip


def figures(measure: Measure, rows: Rows) -> dict[str, Any]:
    """Means of the rows, as plain data.

    mean: mean, median, count and failures of each measure, over the people that did not fail. per_joint, by_sight
    (visible, hidden, unknown): means over joints. by_sequence: means over a sequence's people. pck: curves before and
    after alignment, where a failure's joints count as missed; auc: mean of a curve over 0-150 mm.
    """
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
    } | ({"identities": _identities(rows)} if np.isfinite(rows.idtp).any() else {})


def _identities(rows: Rows) -> dict[str, Any]:
    """Of people over time, all together: IDF1, switches, missed frames in per cent, people who were hidden and how long
    it took until the same identity was back, in seconds."""
    right, wrong = rows.idtp.sum(), rows.idfp.sum() + rows.idfn.sum()
    back = rows.recovery[np.isfinite(rows.recovery)]
    return {
        "IDF1": round(float(2 * right / max(2 * right + wrong, 1)), 6),
        "switches": int(rows.switches.sum()),
        "missed": round(float(np.nanmean(rows.missed)), 3),
        "hidden": len(back),
        "recovery": round(float(back.mean()), 3) if len(back) else None,
    }


def _usable(rows: Rows) -> Rows:
    """The rows of people whose records have finite numbers."""
    kept = np.logical_not(rows.unusable)
    return Rows(**{name: getattr(rows, name)[kept] for name in ARRAYS}, fallbacks=rows.fallbacks)


def _mean(values: np.ndarray, failed: np.ndarray) -> dict[str, Any]:
    """Mean over people. A measure without any value is None and has no failures of its own."""
    mean = asdict(mean_of(values))
    if not mean["count"] and not failed.all():
        mean["failures"] = 0
    return mean


def _sight(rows: Rows) -> dict[str, np.ndarray]:
    """Masks (n, joints): joints whose input keypoint is visible, hidden, or of unknown visibility."""
    known = np.isfinite(rows.joint)
    return {
        "visible": known & (rows.joint_visible == 1),
        "hidden": known & (rows.joint_visible == 0),
        "unknown": known & np.isnan(rows.joint_visible),
    }


def _counted(rows: Rows, joints: np.ndarray) -> np.ndarray:
    """Joint errors (k,) without unmeasured joints; those of failures stay, as NaN."""
    return joints[np.isfinite(joints) | rows.failed[:, None]]


def _curve(errors: np.ndarray) -> dict[str, Any]:
    """errors (k,) millimetres. All None for k = 0."""
    if not errors.size:
        return {"shares": [None] * len(PCK_MM), "auc": None}
    shares = pck(errors, np.array(PCK_MM, np.float64))
    below = shares[: PCK_MM.index(150) + 1]
    return {"shares": [round(float(s), 6) for s in shares], "auc": round(float(below.mean()), 6)}


def _number(values: np.ndarray) -> float | None:
    return mean_of(values).mean
