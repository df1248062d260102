"""`dpmesh eval`: actions, options and mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpmesh.cli.main import main
from dpmesh.evaluate import runner
from dpmesh.evaluate.evaluation import EvaluationConfig
from dpmesh.evaluate.registry import register
from dpmesh.evaluate.results import Rows


def test_list_shows_every_protocol_with_its_hash(capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "list"]) == 0
    printed = capsys.readouterr().out
    for name, one in register().items():
        assert any(line.startswith(name + " ") and one.protocol.hash in line for line in printed.splitlines())


def test_compare_and_table_print(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_rows: Callable[..., Rows],
    write_result: Callable[..., Path],
):
    base = np.linspace(40, 120, 64)
    one, two = (
        write_result(tmp_path / "a", make_rows(base)),
        write_result(tmp_path / "b", make_rows(base - 1), weights="v"),
    )
    assert (
        main(["eval", "compare", str(one), str(two / "result.json"), "--json", str(tmp_path / "c.json")]) == 0
    )
    assert "MPJPE: 80.0 → 79.0 mm" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["measures"]["MPJPE"]["difference"] == pytest.approx(
        -1
    )
    assert main(["eval", "table", str(one), str(two)]) == 0
    printed = capsys.readouterr().out
    assert "| **w [1]** | 80.0" in printed and "| **v [2]** | 79.0" in printed and "## Table 4" in printed


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["run", "3dpw"], 2, "required: --out"),
        (
            ["3dpw", "--out", "o"],
            2,
            "'3dpw' is not an action (run, list, compare, table); use: dpmesh eval run 3dpw",
        ),
        (["compare", "a"], 2, "required: B"),
        (["table"], 2, "required: RESULT"),
        (["list", "x"], 2, "unrecognized arguments: x"),
        (["run", "3dpw", "--out", "o", "--batch", "0"], 2, "not a whole number above 0"),
        (["run", "3dpw", "3dwp", "--out", "o"], 1, "no protocol '3dwp'"),
        (["run", "3dpw", "--out", "o"], 1, "needs its data set"),
        (["run", "3dpw", "--out", "o", "--data", "nowhere"], 1, "no such folder"),
        (["compare", "a", "b"], 1, "no such file. Give a result.json"),
        (["compare", "a" * 300, "b"], 1, "no such file. Give a result.json"),
        (["table", "a" * 300], 1, "no such file"),
        (["run", "3dpw", "--out", "o", "--data", "d" * 300], 1, "no such folder"),
        (["run", "3dpw", "--out", "o" * 300, "--data", "d"], 1, "the name is longer than a path may be"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    try:
        returned = main(["eval", *words])
    except SystemExit as stop:
        returned = stop.code
    error = capsys.readouterr().err
    assert returned == status and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nothing half-done is left


def test_every_option_reaches_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[tuple] = []
    monkeypatch.setattr(runner, "run_evaluation", lambda *words: asked.append(words))
    words = "--data d --weights w --body b --regressors r --method fit --device cpu --threads 3 --batch 5 --people 7"
    more = "--save-every 9 --processes 2 --overwrite"
    out = str(tmp_path)
    assert main(["eval", "run", "3dpw", "3dpw-oc", "3dpw", "--out", out, *words.split(), *more.split()]) == 0
    assert asked == [
        (
            EvaluationConfig(
                protocol=name, out=tmp_path, data=Path("d"), weights="w", body="b", regressors="r", method="fit",
                device="cpu", threads=3, batch=5, limit=7, part=9,
            ),
            2,
            True,
        )
        for name in ("3dpw", "3dpw-oc")
    ]  # fmt: skip
    assert [job.folder.name for job, _, _ in asked] == ["3dpw+fit", "3dpw-oc+fit"]
