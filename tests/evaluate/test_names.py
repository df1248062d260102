"""Names from outside are text: in Markdown, in a terminal, in HTML and in a plot."""

import json
from pathlib import Path

import numpy as np
import pytest

from dpmesh.evaluate import report
from dpmesh.evaluate.checks import file_name, markdown_text, one_line, plot_label
from dpmesh.evaluate.compare import compare, text
from dpmesh.evaluate.registry import entry
from dpmesh.evaluate.report import figures
from dpmesh.evaluate.results import Rows, save
from dpmesh.evaluate.robustness import report as robustness
from dpmesh.evaluate.tables import tables

EVIL = "a|b`c`<script>\n## x\x1b[31m[y](z) $\\frac$ *b* _i_ ~~s~~ &lt; \udcff\u202e\u2028end_of_it"


def test_one_line_without_a_control_character():
    shown = one_line(EVIL)
    assert "\n" not in shown and "\x1b" not in shown and "\\x1b[31m" in shown and "\\udcff" in shown
    shown.encode()
    assert one_line("x" * 50, 10) == "x" * 9 + "…" and one_line("größe 人") == "größe 人"


def test_markdown_is_plain_text():
    from markdown_it import MarkdownIt

    tree = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .render(f"| a |\n|---|\n| {markdown_text(EVIL)} |\n")
    )
    assert tree.count("<td>") == 1 and tree.count("<tr>") == 2
    for tag in ("<script", "<h2", "<code", "<em", "<strong", "<a ", "<s>"):
        assert tag not in tree
    assert "&amp;lt;" in tree and "end_of_it" in tree
    assert markdown_text("courtyard_hug_00") == "courtyard_hug_00"


def made(folder: Path) -> None:
    values = np.arange(6.0) + 50
    joint = np.repeat(values[:, None], 14, 1)
    rows = Rows(
        index=np.arange(6), ids=np.array([f"a/{i}" for i in range(6)]), sequences=np.array(["a"] * 6), mpjpe=values,
        pa_mpjpe=values, mpve=values, joint=joint, joint_pa=joint,
        joint_visible=np.ones((6, 14)), failed=np.zeros(6, bool),
    )  # fmt: skip
    protocol = entry("3dpw").protocol
    content = {
        "format": report.FORMAT, "package": "0", "run": {}, "fallbacks": {"box": 1},
        "protocol": {"name": "3dpw", "title": "t", "hash": protocol.hash, "notes": ["n"],
                     "definition": protocol.definition()},
        "weights": {"name": "w", "sha256": "ab", "notes": ["n"]},
        "persons": {"evaluated": 6, "failures": 0, "partial": False, "found": 6, "published": None,
                    "difference": None},
        "data": {"layout": "JSON", "files": {"f": "0"}, "left_out": {"why": 1}, "notes": ["n"]},
        "figures": figures(protocol.measure, rows),
    }  # fmt: skip
    folder.mkdir()
    save(folder / report.ROWS, rows, {})
    (folder / report.RESULT).write_text(json.dumps(content))


def evil_result(folder: Path) -> Path:
    """Every text of the result is EVIL but the protocol's hash and definition."""
    made(folder)

    def spoiled(value: object, name: str = "") -> object:
        if name in ("definition", "hash"):
            return value
        if isinstance(value, dict):
            known = name in (
                "",
                "protocol",
                "weights",
                "persons",
                "data",
                "figures",
                "pck",
                "MPJPE",
                "PA-MPJPE",
                "MPVE",
                "mean",
            )
            return {(k if known else EVIL + k): spoiled(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoiled(v, "item") for v in value]
        return EVIL if isinstance(value, str) else value

    path = folder / report.RESULT
    path.write_text(json.dumps(spoiled(json.loads(path.read_text()))))
    return folder


def test_no_name_breaks_a_report(tmp_path: Path):
    result = report.read(evil_result(tmp_path / "a"))
    pages = [report.markdown(result), tables([result])]
    for content in (*pages, text(compare(tmp_path / "a", tmp_path / "a"))):
        content.encode()
        assert "\x1b" not in content and not any(one.startswith("## x") for one in content.splitlines())
    assert not any("<script" in page for page in pages)


@pytest.mark.parametrize("name", [EVIL, "$\\frac$", "_hidden", "人" * 90, "%d {x} \\"])
def test_no_name_breaks_the_robustness_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even the plots, at the end of hours; nor does a user's matplotlibrc that wants TeX."""
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    point = {"severity": 0.0, "MPJPE": 50.0, "PA-MPJPE": None, "failures": 0}
    record = {
        "protocol": {"name": name, "title": name, "hash": name},
        "persons": {"measured": 1, "found": 1, "left_out": {name: 1}, "map": 1},
        "models": [{"name": name, "sha256": "0"}, {"name": name, "sha256": "0"}],
        "corruptions": [{"name": "x", "title": "t", "unit": "u", "models": [[point], [point]]}],
        "map": {"grid": 1, "box": 0.2, "joints": ["a"], "models": [[[[None]]], [[[3.0]]]]},
    }
    written = robustness.write(record, tmp_path)
    assert "<script" not in written.read_text() and written.stat().st_size > 10_000
    assert "\x1b" not in robustness.markdown(record)
    assert not plot_label(name).startswith("_") and len(plot_label(name)) <= 49


def test_a_file_name_is_ascii_and_short():
    assert file_name("a/b ä\x00_1") == "a_b____1" and len(file_name("x" * 300)) == 100
