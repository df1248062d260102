"""result.json and result.md: content, and damaged files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.evaluate import report
from dpmesh.evaluate.results import Rows


def test_the_markdown_names_everything_unusual(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    result = report.read(
        write_result(tmp_path / "a", make_rows(np.array([40.0, 60.0, np.nan])), partial=True)
    )
    result["persons"] |= {"found": 10, "published": 8, "difference": 2}
    result["data"]["left_out"] = {"no camera": 4}
    result["data"]["notes"] = ["a note of the data"]
    text = report.markdown(result)
    for line in (
        "* **partial: the first 3 of 10 persons**",
        "* **2 persons more than published (10, not 8)**",
        "* **1 predictions are not finite and are in no mean**",
        "* left out: 4 × no camera",
        "* fallback: 3 × box: the annotated one",
        "* note: a note of the data",
        "| MPJPE | 50.0 | 50.0 | 2 | 1 |",
        "| 50 mm | 33.3 % | 66.7 % |",  # a failure's joints count as missed; aligned: half the error
    ):
        assert line in text.splitlines(), line
    result["persons"] |= {"found": 7, "difference": -1, "failures": 0, "partial": False}
    assert report.warnings(result) == ["1 persons fewer than published (7, not 8)"]


def test_a_foreign_json_is_no_result(tmp_path: Path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match="not a result"):
        report.read(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        report.read(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("figures", "mean", "MPJPE", "mean"), "x", "figures.mean.MPJPE.mean is not a finite number"),
        (("figures", "mean", "MPJPE", "mean"), float("nan"), "not a finite number"),
        (("figures", "mean", "MPJPE", "mean"), 10**400, "not a finite number|is not JSON"),
        (("figures", "pck", "MPJPE", "shares"), [0.1], "does not have one point per threshold"),
        (("figures", "pck"), [], "figures.pck is not an object"),
        (("figures", "by_sequence"), {"s": None}, "figures.by_sequence.s is not an object"),
        (("weights", "sha256"), None, "weights.sha256 is not a text"),
        (("persons", "evaluated"), True, "persons.evaluated is not a count"),
        (("persons", "evaluated"), -1, "persons.evaluated is not a count"),
        (("data", "left_out"), {"a": []}, "data.left_out.a is not a count"),
        (("protocol", "notes"), "x", "protocol.notes is not a list"),
        (("protocol", "hash"), "0" * 16, "does not match its hash"),
        (("format",), 2, "not a result of this version"),
    ],
)
def test_a_changed_result_is_one_line(
    tmp_path: Path,
    place: tuple[str, ...],
    value: object,
    message: str,
    make_rows: Callable[..., Rows],
    write_result: Callable[..., Path],
):
    folder = write_result(tmp_path / "a", make_rows(np.full(4, 50.0)))
    content = json.loads((folder / report.RESULT).read_text())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (folder / report.RESULT).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        report.read(folder)
    assert "\n" not in str(caught.value)


def test_a_deep_or_huge_result_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="not JSON"):
        report.read(tmp_path / "deep.json")
    monkeypatch.setattr(report, "LARGEST", 100)
    (tmp_path / "huge.json").write_text("0" * 200)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        report.read(tmp_path / "huge.json")
