"""The bench's results on one page: robustness.json and robustness.html, its plots inside. Needs matplotlib."""

import base64
import html
import io
import json
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.errors import AssetError
from dpmesh.evaluate import names as naming
from dpmesh.io import atomic_write

JSON, PAGE = "robustness.json", "robustness.html"
MEASURES = ("MPJPE", "PA-MPJPE")


def require_matplotlib() -> None:
    """Raise AssetError before the first person is measured."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise AssetError("the report's plots need matplotlib", fix="pip install 'dpmesh[plot]'") from error


def write(found: Mapping[str, Any], folder: Path) -> Path:
    """Both files; returns the page's path. Raises OutputError."""
    shown = page(found)
    atomic_write(folder / JSON, json.dumps(found, indent=1, allow_nan=False) + "\n")
    atomic_write(folder / PAGE, shown)
    return folder / PAGE


def page(found: Mapping[str, Any]) -> str:
    persons, protocol = found["persons"], found["protocol"]
    left = "".join(f" Left out: {n} × {_text(why)}." for why, n in persons["left_out"].items())
    names = labels(found)
    told = "".join(
        f"<li>{_text(name)}: sha256 {_text(str(model['sha256'])[:12])}…</li>"
        for name, model in zip(names, found["models"], strict=True)
    )
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Robustness</title>",
        "<style>body{font:15px sans-serif;max-width:1100px;margin:2em auto}img{max-width:100%}"
        "td,th{padding:2px 10px;text-align:right}</style>",
        f"<h1>Robustness on {_text(protocol['title'])}</h1>",
        f"<p>{persons['measured']} of {persons['found']} persons, protocol {_text(protocol['name'])}, hash"
        f" {_text(protocol['hash'])}. Severities are nested: each does all that the milder ones do.{left}</p>",
        f"<ul>{told}</ul>",
        _image(curves(found)),
    ]
    if found["map"]:
        parts.append(
            f"<h2>A box slid over the person</h2><p>Mean of {persons['map']} persons: millimetres that a joint is"
            f" further off with a grey box of {found['map']['box']:.0%} of the crop's side there; the keypoints under"
            " it are not given. Axes: the crop.</p>"
        )
        parts += [f"<h3>{_text(name)}</h3>{_image(maps(found, i))}" for i, name in enumerate(names)]
    parts.append("<h2>Numbers</h2>" + "".join(_table(one, names) for one in found["corruptions"]))
    return "\n".join(parts) + "\n"


def _text(text: object) -> str:
    return html.escape(naming.line(text))


def labels(found: Mapping[str, Any]) -> list[str]:
    """The models' names; those that two have with a number."""
    names = [str(model["name"]) for model in found["models"]]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, start=1)]


def markdown(found: Mapping[str, Any]) -> str:
    """The curves as tables, MPJPE / PA-MPJPE in mm."""
    lines: list[str] = []
    for one in found["corruptions"]:
        severities = [f"{point['severity']:g}" for point in one["models"][0]]
        title = naming.markdown(f"{one['title']} ({one['unit']})")
        lines += ["", f"| {title} | {' | '.join(severities)} |"]
        lines.append("|---" * (len(severities) + 1) + "|")
        for name, points in zip(labels(found), one["models"], strict=True):
            cells = [" / ".join(_mm(point[m]) for m in MEASURES) for point in points]
            lines.append(f"| {naming.markdown(name)} | {' | '.join(cells)} |")
    return "\n".join(lines[1:]) + "\n"


def curves(found: Mapping[str, Any]) -> bytes:
    """A PNG: one small plot for each corruption, solid MPJPE, dashed PA-MPJPE."""
    with _plain_text() as pyplot:
        return _curves(found, pyplot)


def _curves(found: Mapping[str, Any], pyplot: Any) -> bytes:
    columns = 3
    rows = -(-len(found["corruptions"]) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(12, 3.2 * rows), squeeze=False)
    top = max(p["MPJPE"] or 1 for one in found["corruptions"] for points in one["models"] for p in points)
    for axis, one in zip(axes.flat, found["corruptions"], strict=False):
        for number, (name, points) in enumerate(zip(labels(found), one["models"], strict=True)):
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
                    label=f"{naming.plot(name)} {measure}",
                )
        axis.set(title=one["title"], xlabel=one["unit"], ylim=(0, top * 1.05))
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(found["corruptions"]) :]:
        axis.axis("off")
    axes[0, 0].set_ylabel("mm")
    axes[0, 0].legend(fontsize=7)
    return _png(pyplot, figure)


def maps(found: Mapping[str, Any], model: int) -> bytes:
    """A PNG: one map for each joint, all on one scale."""
    with _plain_text() as pyplot:
        return _maps(found, model, pyplot)


def _maps(found: Mapping[str, Any], model: int, pyplot: Any) -> bytes:
    told = found["map"]
    values = np.array(told["models"][model], np.float64)  # null where a joint is unknown everywhere
    limit = max(float(np.nan_to_num(np.abs(values)).max()), 1.0)
    figure, axes = pyplot.subplots(2, -(-len(values) // 2), figsize=(13, 4.2), squeeze=False)
    shown = None
    for axis, joint, one in zip(axes.flat, told["joints"], values, strict=False):
        shown = axis.imshow(one, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(0, 256, 256, 0))
        axis.set_title(joint, fontsize=9)
        axis.set(xticks=[], yticks=[])
    for axis in axes.flat[len(values) :]:
        axis.axis("off")
    figure.colorbar(shown, ax=axes, label="mm further off", shrink=0.8)
    return _png(pyplot, figure, tight=False)


@contextmanager
def _plain_text() -> Generator[Any]:
    """pyplot, for which a name is never mathematics or TeX, whatever the user's settings say."""
    require_matplotlib()
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that the font has not
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
