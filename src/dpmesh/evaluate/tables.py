"""The paper's Tables 1-4 with rows for measured results, and a list of how each result was computed.

Published figures are in published.json only. A result goes into the column of its protocol. Results of the same weights
share a row; an edition other than "paper" is a row of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmesh.errors import AssetError
from dpmesh.evaluate.checks import NUMBER, STRING, Each, Maybe, markdown_text, require
from dpmesh.evaluate.report import checksum, mm, warnings
from dpmesh.io import read_json

PUBLISHED = Path(__file__).parent / "published.json"
MEAN = "mean"
Cell = float | None


def published() -> dict[str, Any]:
    """The content of published.json. Raises AssetError."""
    content = read_json(PUBLISHED, error=AssetError)
    require(
        content, _SHAPE, str(PUBLISHED), "Install again: pip install --force-reinstall dpmesh.", AssetError
    )
    return content


_SHAPE = {
    "source": STRING,
    "tables": [{"name": STRING, "title": STRING, "columns": [[STRING]], "rows": Each([Maybe(NUMBER)])}],
}


def tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown. Results of protocols that are in no table are listed at the end with their means. Raises AssetError."""
    book = published()
    lines: list[str] = []
    used: set[str] = set()
    marks = {id(r): f"[{i}]" for i, r in enumerate(results, start=1)}
    for table in book["tables"]:
        columns = [tuple(column) for column in table["columns"]]
        lines += [f"## {table['name']}. {table['title']}", "", _line(["", *map(_head, columns)])]
        lines.append("|---" * (len(columns) + 1) + "|")
        lines += [_line([markdown_text(name), *map(mm, row)]) for name, row in table["rows"].items()]
        for name, mine in _rows(results).items():
            cells, here = _cells(columns, mine)
            if here:
                used |= {r["protocol"]["name"] for r in here}
                label = f"{markdown_text(name)} {''.join(marks[id(r)] for r in here)}"
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
    groups: dict[str, list[Mapping[str, Any]]] = {}
    names: dict[str, set[str]] = {}
    for result in results:
        names.setdefault(result["weights"]["name"], set()).add(result["weights"]["sha256"])
    for result in results:
        weights, edition = result["weights"], result["protocol"]["definition"]["edition"]
        name = weights["name"]
        if len(names[name]) > 1:  # the same folder with different weights
            name += f" {weights['sha256'][:8]}"
        groups.setdefault(name + ("" if edition == "paper" else f", {edition}"), []).append(result)
    return groups


def _cells(
    columns: Sequence[tuple[str, str]], mine: Sequence[Mapping[str, Any]]
) -> tuple[list[Cell], list[Mapping[str, Any]]]:
    """A row's figures and the results that they come from. Of two results of one protocol the later one counts."""
    by_name = {r["protocol"]["definition"]["name"]: r for r in mine}
    here = [by_name[name] for name in dict.fromkeys(name for name, _ in columns) if name in by_name]
    cells = [_value(by_name.get(name), measure) for name, measure in columns]
    if columns[-1][0] == MEAN:  # unweighted, over the sequences; None unless all are there
        known = [cell for cell in cells[:-1] if cell is not None]
        cells[-1] = sum(known) / len(known) if len(known) == len(cells) - 1 else None
    return cells, here


def _value(result: Mapping[str, Any] | None, measure: str) -> Cell:
    return None if result is None else result["figures"]["mean"].get(measure, {}).get("mean")


def _means(result: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{markdown_text(name)} {mm(m['mean'])}" for name, m in result["figures"]["mean"].items()
    )


def _made(result: Mapping[str, Any], mark: str) -> str:
    protocol, weights, persons = result["protocol"], result["weights"], result["persons"]
    parts = [
        f"{protocol['name']} (version {protocol['definition']['version']}, hash {protocol['hash']})",
        f"weights {weights['name']} ({checksum(weights)}), dpmesh {result['package']}",
        f"{persons['evaluated']} persons from {result['data']['layout']}",
        *warnings(result),
        *(f"{n} × {name}" for name, n in result["fallbacks"].items()),
        *protocol["notes"],
    ]
    return f"{mark} " + "; ".join(markdown_text(part) for part in parts)


def _head(column: tuple[str, str]) -> str:
    return f"{column[0]} {column[1]}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
