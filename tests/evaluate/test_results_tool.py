"""tools/figures/results.py: every method in one table, compared with MediaPipe, written between the page's marks."""

from pathlib import Path
from typing import Any

import pytest

from dpmesh.evaluate.evaluation import EvaluationConfig
from tools.figures import results
from tools.figures.results import ORDER, PROTOCOLS, baselines, by_level, by_severity, evaluated, written

PAGE = Path(__file__).parents[2] / "docs" / "research" / "results.md"


def one(value: float) -> dict[str, Any]:
    levels = {"clean 0": {"persons": 4, "MPJPE": value, "PA-MPJPE": value / 2}}
    means = {"MPJPE": value, "PA-MPJPE": value / 2, "MPVE": None}
    return {
        "persons": {"evaluated": 12, "found": 5040}, "weights": {"sha256": "0" * 64}, "run": {"limit": 12},
        "figures": {"mean": {m: {"mean": v} for m, v in means.items()}, "failures": 3, "by_sequence": levels},
    }  # fmt: skip


def peer(value: float) -> dict[str, Any]:
    return {"where MediaPipe answers": {"MPJPE": value, "PA-MPJPE": value + 1}}


FOUND = {(name, method): one(100.0 + i) for name in PROTOCOLS for i, method in enumerate(ORDER)}
PEER = {
    "MediaPipe answers": 9, "persons": 12, "mediapipe": "0", "MediaPipe": peer(7.5), "sha256": "0" * 64,
    "rows": {name: {method: peer(40.0 + i) for i, method in enumerate(ORDER)} for name in PROTOCOLS},
}  # fmt: skip


def test_all_baselines_stand_in_one_table() -> None:
    lines = baselines(FOUND, PEER)
    rows = [line for line in lines if line.startswith("| ") and "MPVE" not in line]
    assert len(rows) == 2 * len(ORDER) + 1
    assert "| 102.0 | 51.0 | – | 3 | 42.0 | 43.0 |" in rows[2]  # lifter
    assert rows[-1].endswith("| – | – | – | 3 of 12 | 7.5 | 8.5 |")
    assert {line.count("|") for line in lines[2:]} == {9}
    assert "12 of 5040 persons" in lines[0] and "9 of the first 12" in lines[0]
    levels = by_level(FOUND)
    assert sum(line.startswith("| clean 0 |") for line in levels) == 1
    assert levels[4].startswith("| clean 0 | 100/50 | 101/50 | 102/51 |") and levels[4].count("/") == 2 * len(
        ORDER
    )
    assert levels[2].count("*") == len(ORDER)


def test_the_page_has_the_marks_and_keeps_the_rest() -> None:
    text = PAGE.read_text()
    for name in ("baselines", "levels"):
        again = written(text, name, ["", "| new |"])
        before, _, after = again.partition(f"<!-- results: {name} -->\n\n| new |\n\n<!-- end -->")
        assert (
            text.startswith(before) and text.endswith(after) and len(before) > 100 and len(again) < len(text)
        )
        assert written(again, name, ["| new |"]) == again
    with pytest.raises(SystemExit, match="there is no <!-- results: other"):
        written(text, "other", [])


def test_what_is_finished_is_kept_unless_of_other_weights_or_persons(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(results, "run_evaluation", lambda config, processes: tmp_path)
    monkeypatch.setattr(results, "read", lambda path: one(1.0))
    monkeypatch.setattr(results, "weights_of", lambda name: "0" * 64)
    config = EvaluationConfig(protocol="synthocc", out=tmp_path, limit=12)
    assert list(evaluated(config, ["t-pose", "lifter"], 1)) == [
        ("synthocc", "t-pose"), ("synthocc", "lifter"), ("synthocc@detector", "lifter"),
    ]  # fmt: skip
    runs: list[int] = []

    def bench(asked: results.RobustnessConfig) -> dict[str, Any]:
        runs.append(asked.people)
        return {"models": [{"sha256": "0" * 64}], "persons": {"measured": asked.people, "map": 2}}

    monkeypatch.setattr(results, "run_bench", bench)
    monkeypatch.setattr(results.robustness, "write", lambda found, folder: _write(found, folder))
    for persons in (4, 4, 6):
        by_severity(config, persons, 2)
    assert runs == [4, 6]


def _write(record: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / results.robustness.JSON).write_text(results.json.dumps(record))
