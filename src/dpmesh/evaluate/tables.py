"""The paper's Tables 1-4 with our results beside, and below them how every one of our figures was made.

Published figures stand in published.json alone. Ours go into a column by the protocol's name; an edition other than
"paper" is a row of its own. Results of one model (the same weights file) share a row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmesh.errors import AssetError
from dpmesh.evaluate.names import markdown as plain
from dpmesh.evaluate.report import made_by, mm, warnings
from dpmesh.evaluate.schema import NUMBER, STRING, Each, Maybe, require
from dpmesh.io import read_json

PUBLISHED = Path(__file__).parent / "published.json"
MEAN = "mean"
Cell = float | None


def published() -> dict[str, Any]:
    found = read_json(PUBLISHED, error=AssetError)
    require(found, _SHAPE, str(PUBLISHED), "Install again: pip install --force-reinstall dpmesh.", AssetError)
    return found


_SHAPE = {
    "source": STRING,
    "tables": [{"name": STRING, "title": STRING, "columns": [[STRING]], "rows": Each([Maybe(NUMBER)])}],
}


def tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown. A result of a protocol that no table has is listed at the end with its means."""
    book = published()
    lines: list[str] = []
    used: set[str] = set()
    marks = {id(r): f"[{i}]" for i, r in enumerate(results, start=1)}
    for table in book["tables"]:
        columns = [tuple(column) for column in table["columns"]]
        lines += [f"## {table['name']}. {table['title']}", "", _line(["", *map(_head, columns)])]
        lines.append("|---" * (len(columns) + 1) + "|")
        lines += [_line([plain(name), *map(mm, row)]) for name, row in table["rows"].items()]
        for name, mine in _rows(results).items():
            cells, here = _cells(columns, mine)
            if here:
                used |= {r["protocol"]["name"] for r in here}
                label = f"{plain(name)} {''.join(marks[id(r)] for r in here)}"
                lines.append(_line([f"**{label}**", *map(mm, cells)]))
        lines.append("")
    rest = [r for r in results if r["protocol"]["name"] not in used]
    if rest:
        lines += ["## In no table of the paper", ""]
        lines += [f"* {_made(r, marks[id(r)])}: {_means(r)}" for r in rest]
        lines.append("")
    lines += ["## How the figures were made", "", f"* without a number: {book['source']}"]
    lines += [f"* {_made(r, marks[id(r)])}" for r in results]
    return "\n".join(lines) + "\n"


def _rows(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Results by model and edition."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    names: dict[str, set[str]] = {}
    for result in results:
        names.setdefault(result["weights"]["name"], set()).add(result["weights"]["sha256"])
    for result in results:
        weights, edition = result["weights"], result["protocol"]["definition"]["edition"]
        name = weights["name"]
        if len(names[name]) > 1:  # one folder, other weights since
            name += f" {weights['sha256'][:8]}"
        found.setdefault(name + ("" if edition == "paper" else f", {edition}"), []).append(result)
    return found


def _cells(
    columns: Sequence[tuple[str, str]], mine: Sequence[Mapping[str, Any]]
) -> tuple[list[Cell], list[Mapping[str, Any]]]:
    """A row's figures (of two results of one protocol the later), and the results that they are of."""
    by_name = {r["protocol"]["definition"]["name"]: r for r in mine}
    here = [by_name[name] for name in dict.fromkeys(name for name, _ in columns) if name in by_name]
    cells = [_value(by_name.get(name), measure) for name, measure in columns]
    if columns[-1][0] == MEAN:  # of the sequences, each with the same weight; only of all of them
        known = [cell for cell in cells[:-1] if cell is not None]
        cells[-1] = sum(known) / len(known) if len(known) == len(cells) - 1 else None
    return cells, here


def _value(result: Mapping[str, Any] | None, measure: str) -> Cell:
    return None if result is None else result["figures"]["mean"].get(measure, {}).get("mean")


def _means(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(name)} {mm(m['mean'])}" for name, m in result["figures"]["mean"].items())


def _made(result: Mapping[str, Any], mark: str) -> str:
    protocol, weights, persons = result["protocol"], result["weights"], result["persons"]
    told = [
        f"{protocol['name']} (version {protocol['definition']['version']}, hash {protocol['hash']})",
        f"weights {weights['name']} ({made_by(weights)}), dpmesh {result['package']}",
        f"{persons['evaluated']} persons from {result['data']['layout']}",
        *warnings(result),
        *(f"{n} × {name}" for name, n in result["fallbacks"].items()),
        *protocol["notes"],
    ]
    return f"{mark} " + "; ".join(plain(one) for one in told)


def _head(column: tuple[str, str]) -> str:
    return f"{column[0]} {column[1]}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
