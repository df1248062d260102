"""The result of a run: result.json, result.md, rows.npz. docs/evaluation.md lists the fields."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmesh.errors import InputError
from dpmesh.evaluate.records import Census
from dpmesh.evaluate.rows import Rows, save, write_aside
from dpmesh.evaluate.run import Opened, plain
from dpmesh.evaluate.summary import figures

RESULT, TEXT, ROWS = "result.json", "result.md", "rows.npz"
FORMAT = 1


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
        "run": {**plain(opened.job), "device": opened.device.type},
        "persons": {
            "evaluated": len(rows),
            "failures": int(rows.failed.sum()),
            "partial": opened.count < len(opened.source),
            **_counts(census),
        },
        "data": {
            "layout": census.layout,
            "files": dict(census.files),
            "left_out": dict(census.left_out),
            "notes": list(census.notes),
        },
        "fallbacks": {name: int(n) for name, n in sorted(rows.fallbacks.items()) if n},
        "figures": figures(protocol.measure, rows),
    }


def _counts(census: Census) -> dict[str, Any]:
    difference = None if census.published is None else census.found - census.published
    return {"found": census.found, "published": census.published, "difference": difference}


def write(opened: Opened, rows: Rows, found: dict[str, Any]) -> Path:
    """Rows and text first, so that a result.json always has both beside it. Returns its path."""
    folder = opened.job.folder
    save(folder / ROWS, rows, opened.header)
    write_aside(folder / TEXT, markdown(found).encode())
    write_aside(folder / RESULT, (json.dumps(found, indent=1) + "\n").encode())
    return folder / RESULT


def read(path: Path) -> dict[str, Any]:
    """A result by its file or folder; raises InputError."""
    path = path / RESULT if path.is_dir() else path
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=str(path), fix="Give a result.json or its folder."
        ) from error
    except ValueError as error:
        raise InputError(
            "not JSON", where=str(path), fix="Give a result.json that dpmesh eval wrote."
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or "figures" not in found:
        raise InputError(
            "not a result of this version of dpmesh eval", where=str(path), fix="Run the evaluation again."
        )
    return found


def mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def markdown(found: Mapping[str, Any]) -> str:
    """The result for people."""
    protocol, persons, numbers = found["protocol"], found["persons"], found["figures"]
    lines = [f"# {protocol['title']} ({protocol['name']}, hash {protocol['hash']})", ""]
    lines += [f"* **{line}**" for line in warnings(found)]
    lines += [
        f"* weights: {found['weights']['name']} ({made_by(found['weights'])}), dpmesh {found['package']}",
        f"* data: {found['data']['layout']}; {persons['found']} persons found,"
        f" {persons['published'] if persons['published'] is not None else 'no number'} published,"
        f" {persons['evaluated']} evaluated",
    ]
    lines += [f"* left out: {n} × {why}" for why, n in found["data"]["left_out"].items()]
    lines += [f"* fallback: {n} × {name}" for name, n in found["fallbacks"].items()]
    notes = [*protocol["notes"], *found["data"]["notes"], *found["weights"]["notes"]]
    lines += [f"* note: {note}" for note in notes]
    lines += ["", "| mm | mean | median | persons | failures |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {mm(m['mean'])} | {mm(m['median'])} | {m['count']} | {m['failures']} |"
        for name, m in numbers["mean"].items()
    ]
    lines += [
        "",
        "Means are over the persons that did not fail; PCK counts a failure's joints as missed.",
        "",
    ]
    for title, key in (("joint", "per_joint"), ("keypoint", "by_sight"), ("sequence", "by_sequence")):
        lines += [*_table(title, numbers[key]), ""]
    curves = {name: curve for name, curve in numbers["pck"].items() if name != "mm"}
    lines += [f"| joints within | {' | '.join(curves)} |", "|---" * (len(curves) + 1) + "|"]
    for at, limit in enumerate(numbers["pck"]["mm"]):
        if limit in (50, 100, 150, 200):
            shares = " | ".join(f"{100 * curve['shares'][at]:.1f} %" for curve in curves.values())
            lines.append(f"| {limit} mm | {shares} |")
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
    return told


def _table(title: str, entries: dict[str, dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for values in entries.values() for name in values))
    lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, values in entries.items():
        cells = [str(v) if isinstance(v, int) else mm(v) for v in (values.get(c) for c in columns)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
