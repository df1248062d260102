"""The robustness report: robustness.json, and a page with plots, robustness.html. The plots need matplotlib."""

import base64
import html
import io
import json
import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.errors import AssetError, DPMeshError, InputError
from dpmesh.evaluate.checks import (
    ANY,
    COUNT,
    NUMBER,
    STRING,
    Each,
    Maybe,
    markdown_text,
    one_line,
    plot_label,
    require,
)
from dpmesh.evaluate.evaluation import EvaluationConfig, weights_checksums
from dpmesh.evaluate.registry import data_files, entry
from dpmesh.evaluate.robustness.bench import FORMAT, RobustnessConfig
from dpmesh.io import atomic_write, read_json

JSON, PAGE = "robustness.json", "robustness.html"
MEASURES = ("MPJPE", "PA-MPJPE")


def require_matplotlib() -> None:
    """Raise AssetError if matplotlib is not installed; call it before a long run."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise AssetError("the report's plots need matplotlib", fix="pip install 'dpmesh[plot]'") from error


def write(report: Mapping[str, Any], folder: Path) -> Path:
    """Write both files; returns the page's path. Raises OutputError."""
    html_page = page(report)
    atomic_write(folder / JSON, json.dumps(report, indent=1, allow_nan=False) + "\n")
    atomic_write(folder / PAGE, html_page)
    return folder / PAGE


def page(report: Mapping[str, Any]) -> str:
    """The HTML page. Names from files are escaped. Raises AssetError without matplotlib."""
    persons, protocol = report["persons"], report["protocol"]
    left_out = "".join(f" Left out: {n} × {_text(why)}." for why, n in persons["left_out"].items())
    names = labels(report)
    models = "".join(
        f"<li>{_text(name)}: sha256 {_text(str(model['sha256'])[:12])}…</li>"
        for name, model in zip(names, report["models"], strict=True)
    )
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Robustness</title>",
        "<style>body{font:15px sans-serif;max-width:1100px;margin:2em auto}img{max-width:100%}"
        "td,th{padding:2px 10px;text-align:right}</style>",
        f"<h1>Robustness on {_text(protocol['title'])}</h1>",
        f"<p>{persons['measured']} of {persons['found']} persons, protocol {_text(protocol['name'])}, hash"
        f" {_text(protocol['hash'])}. Severities are nested: each includes the milder ones.{left_out}</p>",
        f"<ul>{models}</ul>",
        _image(curves(report)),
    ]
    if report["map"]:
        parts.append(
            f"<h2>Sliding box</h2><p>Mean of {persons['map']} people: increase of a joint's error, mm, with a grey box"
            f" of {report['map']['box']:.0%} of the crop's side at that place and without the keypoints under it. Axes:"
            " the crop.</p>"
        )
        parts += [f"<h3>{_text(name)}</h3>{_image(maps(report, i))}" for i, name in enumerate(names)]
    parts.append("<h2>Numbers</h2>" + "".join(_table(one, names) for one in report["corruptions"]))
    return "\n".join(parts) + "\n"


def _text(text: object) -> str:
    return html.escape(one_line(text))


def labels(report: Mapping[str, Any]) -> list[str]:
    """The models' names, numbered where two are the same."""
    names = [str(model["name"]) for model in report["models"]]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, start=1)]


def markdown(report: Mapping[str, Any]) -> str:
    """The curves as tables, MPJPE / PA-MPJPE in mm."""
    lines: list[str] = []
    for one in report["corruptions"]:
        severities = [f"{point['severity']:g}" for point in one["models"][0]]
        title = markdown_text(f"{one['title']} ({one['unit']})")
        lines += ["", f"| {title} | {' | '.join(severities)} |"]
        lines.append("|---" * (len(severities) + 1) + "|")
        for name, points in zip(labels(report), one["models"], strict=True):
            cells = [" / ".join(_mm(point[m]) for m in MEASURES) for point in points]
            lines.append(f"| {markdown_text(name)} | {' | '.join(cells)} |")
    return "\n".join(lines[1:]) + "\n"


def curves(report: Mapping[str, Any]) -> bytes:
    """A PNG with a plot for each corruption: solid MPJPE, dashed PA-MPJPE."""
    with _plain_text() as pyplot:
        return _curves(report, pyplot)


def _curves(report: Mapping[str, Any], pyplot: Any) -> bytes:
    columns = 3
    rows = -(-len(report["corruptions"]) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(12, 3.2 * rows), squeeze=False)
    top = max(p["MPJPE"] or 1 for one in report["corruptions"] for points in one["models"] for p in points)
    for axis, one in zip(axes.flat, report["corruptions"], strict=False):
        for number, (name, points) in enumerate(zip(labels(report), one["models"], strict=True)):
            x = [point["severity"] for point in points]
            for measure, style in zip(MEASURES, ("-", "--"), strict=True):
                y = [np.nan if point[measure] is None else point[measure] for point in points]
                axis.plot(
                    x,
                    y,
                    style,
                    marker="o",
                    markersize=3,
                    color=f"C{number}",
                    label=f"{plot_label(name)} {measure}",
                )
        axis.set(title=one["title"], xlabel=one["unit"], ylim=(0, top * 1.05))
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(report["corruptions"]) :]:
        axis.axis("off")
    axes[0, 0].set_ylabel("mm")
    axes[0, 0].legend(fontsize=7)
    return _png(pyplot, figure)


def maps(report: Mapping[str, Any], model: int) -> bytes:
    """A PNG with a map for each joint, all with one colour scale. model: index in report["models"]."""
    with _plain_text() as pyplot:
        return _maps(report, model, pyplot)


def _maps(report: Mapping[str, Any], model: int, pyplot: Any) -> bytes:
    content = report["map"]
    values = np.array(content["models"][model], np.float64)  # null for a joint that is unknown everywhere
    limit = max(float(np.nan_to_num(np.abs(values)).max()), 1.0)
    figure, axes = pyplot.subplots(2, -(-len(values) // 2), figsize=(13, 4.2), squeeze=False)
    image = None
    for axis, joint, one in zip(axes.flat, content["joints"], values, strict=False):
        image = axis.imshow(one, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(0, 256, 256, 0))
        axis.set_title(joint, fontsize=9)
        axis.set(xticks=[], yticks=[])
    for axis in axes.flat[len(values) :]:
        axis.axis("off")
    figure.colorbar(image, ax=axes, label="mm more error", shrink=0.8)
    return _png(pyplot, figure, tight=False)


@contextmanager
def _plain_text() -> Generator[Any]:
    """pyplot, with mathematics and TeX in labels switched off, whatever the user's settings."""
    require_matplotlib()
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # characters that the font lacks
        yield pyplot


def _png(pyplot: Any, figure: Any, tight: bool = True) -> bytes:
    if tight:
        figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    pyplot.close(figure)
    return buffer.getvalue()


def _image(png: bytes) -> str:
    return f"<img src='data:image/png;base64,{base64.b64encode(png).decode()}'>"


def _table(one: Mapping[str, Any], names: list[str]) -> str:
    head = "".join(f"<th>{point['severity']:g}</th>" for point in one["models"][0])
    body = "".join(
        f"<tr><td>{_text(name)} {measure}</td>"
        + "".join(f"<td>{_mm(p[measure])}</td>" for p in points)
        + "</tr>"
        for name, points in zip(names, one["models"], strict=True)
        for measure in MEASURES
    )
    title = f"{_text(one['title'])} ({_text(one['unit'])})"
    return f"<h3>{title}</h3><table><tr><th></th>{head}</tr>{body}</table>"


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


LARGEST = 256 * 2**20
"""Bytes of a robustness.json."""
_POINT = {"severity": NUMBER, "MPJPE": Maybe(NUMBER), "PA-MPJPE": Maybe(NUMBER), "failures": COUNT}
_SHAPE = {
    "format": COUNT,
    "made of": Each(ANY),
    "protocol": {"name": STRING, "title": STRING, "hash": STRING},
    "persons": {"measured": COUNT, "found": COUNT, "left_out": Each(COUNT), "map": COUNT},
    "models": [{"name": STRING, "sha256": STRING}],
    "corruptions": [{"name": STRING, "title": STRING, "unit": STRING, "models": [[_POINT]]}],
    "map": Maybe({"grid": COUNT, "box": NUMBER, "joints": [STRING], "models": [[[[Maybe(NUMBER)]]]]}),
}
_AGAIN = "Choose another --out, or --overwrite."


def fingerprint(config: RobustnessConfig) -> dict[str, Any]:
    """What decides a report's content; no image is read for it. The names appear in error messages."""
    registered = entry(config.protocol)
    configs = [
        EvaluationConfig(protocol=config.protocol, out=Path(), weights=name) for name in config.weights
    ]
    checksums = [weights_checksums(one) for one in configs]
    files = None if config.data is None else data_files(registered, config.data)
    return {
        "protocol": [registered.protocol.full_name, registered.protocol.hash],
        "weights": [[one["sha256"], one["config_sha256"]] for one in checksums],
        "data": files,
        "persons": [config.people, config.map_people],
        "grid": [config.grid, config.box],
        "corruptions": [corruption.name for corruption in config.corruptions],
    }


def finished_report(config: RobustnessConfig, folder: Path, overwrite: bool) -> dict[str, Any] | None:
    """The stored report of this configuration, or None. Raises InputError for a file that is not ours, and, without
    `overwrite`, for the report of another configuration."""
    path = folder / JSON
    if not os.path.lexists(path):
        if os.path.lexists(folder / PAGE):
            raise InputError(
                "was not written by dpmesh bench", where=str(folder / PAGE), fix="Choose another --out."
            )
        return None
    try:
        stored = read_json(path, LARGEST)
        ours = isinstance(stored, dict) and {"format", "corruptions", "models"} <= set(stored)
    except DPMeshError:
        ours, stored = False, {}
    if not ours:
        raise InputError("was not written by dpmesh bench", where=str(path), fix="Choose another --out.")
    if overwrite:
        return None
    if stored["format"] != FORMAT or "made of" not in stored:
        raise InputError(
            "this report is of an earlier version, which did not store its configuration",
            where=str(path),
            fix=_AGAIN,
        )
    require(stored, _SHAPE, str(path), _AGAIN)
    wanted = fingerprint(config)
    if differs := [name for name, value in wanted.items() if stored["made of"].get(name) != value]:
        raise InputError(
            f"the existing report was made with other {' and '.join(differs)}",
            where=str(path),
            fix=_AGAIN,
        )
    return stored
