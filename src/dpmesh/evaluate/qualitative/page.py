"""One HTML page over all comparisons of a folder: no script, nothing from the network, links inside the folder."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dpmesh.errors import DPMeshError, OutputError
from dpmesh.evaluate.qualitative.comparison import RECORD, SHEET, stored_record
from dpmesh.inference.staging import folders_below
from dpmesh.io import atomic_write, read_bytes

PAGE = "index.html"
_MARK = '<meta name="generator" content="dpmesh compare">'
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:min(96vw,2600px);color:#1d2025}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2.2rem 0 .3rem;overflow-wrap:anywhere}
p,ul{margin:.3rem 0;color:#555b64}img{display:block;width:100%;height:auto;border:1px solid #dde0e5}
code{font-size:.85em;overflow-wrap:anywhere}"""


def refuse_foreign_page(out: Path) -> None:
    """Raise OutputError where a page that this command did not write has the page's name."""
    page = out / PAGE
    if not page.exists() and not page.is_symlink():
        return
    try:
        ours = not page.is_symlink() and _MARK.encode() in read_bytes(
            page, 2**26, OutputError, any_content=True
        )
    except DPMeshError:
        ours = False
    if not ours:
        raise OutputError(
            "is not a page of this command, left as it is", where=str(page), fix="Choose another --out."
        )


def write_page(out: Path, first: Sequence[str], failed: Mapping[str, str]) -> Path:
    """Every comparison below `out`: the folders named `first`, then the others by path. failed: image -> why.

    Raises OutputError.
    """
    refuse_foreign_page(out)
    below = [path.relative_to(out) for path in folders_below(out)]
    shown = [path.as_posix() for path in below if not any(part.startswith(".") for part in path.parts)]
    others = [name for name in shown if name not in first]
    stored = {name: stored_record(out / name) for name in (*first, *others) if not name.startswith(".")}
    records = {name: record for name, record in stored.items() if record is not None}
    columns = {name: _columns(record) for name, record in records.items()}
    once = len(set(columns.values())) == 1  # the columns are the same everywhere, as of one run
    parts = [*columns.values()][:1] if once else []
    parts += [_section(name, record) + ("" if once else columns[name]) for name, record in records.items()]
    if failed:
        parts.append("<h2>Not compared</h2><ul>")
        parts += [f"<li>{html.escape(why)}</li>" for why in failed.values()]
        parts.append("</ul>")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_MARK}'
        '<meta name="viewport" content="width=device-width">'
        f"<title>dpmesh: comparison</title><style>{_STYLE}</style></head><body>\n"
        "<h1>Models compared on the same people and keypoints</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    atomic_write(out / PAGE, page.encode("utf-8", "backslashreplace"))
    return out / PAGE


def _section(name: str, record: Mapping[str, Any]) -> str:
    """record: as stored; its values are checked before use."""
    source, link = (
        html.escape(str(record.get("source") or name)),
        quote(f"{name}/{SHEET}", errors="surrogateescape"),
    )
    people = record.get("people")
    count = len(people) if isinstance(people, list) else 0
    crowd = {0: "no person detected", 1: "1 person"}.get(count, f"{count} people")
    return (
        f"<section><h2>{source}</h2>\n"
        f"<p>{crowd}, from: {html.escape(str(record.get('people_from')))}. "
        f"Image sha256 <code>{html.escape(str(record.get('source_sha256'))[:16])}…</code>, "
        f'<a href="{quote(f"{name}/{RECORD}", errors="surrogateescape")}">provenance</a></p>\n'
        f'<a href="{link}"><img src="{link}" alt="Comparison of {source}" loading="lazy"></a></section>\n'
    )


def _columns(record: Mapping[str, Any]) -> str:
    columns = record.get("columns")
    items = [
        _column(one) for one in (columns if isinstance(columns, list) else []) if isinstance(one, Mapping)
    ]
    return f"<ul>{''.join(items)}</ul>\n"


def _column(one: Mapping[str, Any]) -> str:
    title, subtitle = (str(one.get(key) or "") for key in ("title", "subtitle"))
    notes = one.get("notes")
    parts = [str(one.get("method_is") or ""), *(map(str, notes) if isinstance(notes, list) else [])]
    content = str(one.get("sha256") or "")
    more = f" sha256 <code>{html.escape(content[:16])}…</code>" if content else ""
    heading = html.escape(f"{title}, {subtitle}" if subtitle else title)
    return f"<li><b>{heading}</b>: {html.escape('; '.join(parts))}.{more}</li>"
