"""The log of a training: CSV always, a bar on a terminal, lines elsewhere, TensorBoard if wanted, previews as PNG."""

import csv
import logging
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from dpmesh.errors import ConfigError
from dpmesh.train.logging import TrainingLog


def logged(out: Path) -> list[dict[str, str]]:
    with (out / "log_s.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_lines_behind_the_checkpoint_are_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with TrainingLog(tmp_path, "s", 0, 9) as report:
        for step in range(1, 6):
            report.row(step, 2, {"loss": 1.0 / step})
        report.validation(4, 8, {"MPJPE": 10.0})
    assert "s 5/9 loss 0.2000" in caplog.text and "left" in caplog.text
    with (tmp_path / "log_s.csv").open("a") as file:
        file.write("s,6")  # killed in the midst of a line
    with TrainingLog(tmp_path, "s", 3, 9) as report:
        report.row(4, 2, {"loss": 7.0, "more": 1.0})
    rows = logged(tmp_path)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert rows[3]["loss"] == "7.0" and rows[3]["more"] == "1.0" and rows[0]["more"] == ""
    assert len((tmp_path / "validation.csv").read_text().splitlines()) == 1  # its header


def test_a_bar_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with TrainingLog(tmp_path, "s", 2, 9) as report:
        for step in (3, 4, 5):
            report.step(step)
            time.sleep(0.01)
        report.row(5, 2, {"loss": 0.25})
        report.say("something between")
    shown = capsys.readouterr().err
    assert "5/9" in shown and "loss 0.2500" in shown and "something between" in shown
    assert "0:00:" in shown  # what is left


def test_curves_and_previews(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 200  # red
    with TrainingLog(tmp_path, "s", 0, 9, tensorboard=True) as report:
        report.row(3, 2, {"loss": 0.5})
        report.preview(3, image)
        report.preview(4, None)
    events = EventAccumulator(str(tmp_path / "tensorboard/s"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["s_000003.png"]
    assert cv2.imread(str(tmp_path / "previews/s_000003.png"))[0, 0].tolist() == [0, 0, 200]


def test_other_processes_log_nothing(tmp_path: Path):
    with TrainingLog(tmp_path, "s", 0, 9, writes=False, tensorboard=True) as report:
        report.row(1, 2, {"loss": 0.5})
        report.validation(1, 2, {"x": 1.0})
        report.preview(1, np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_missing_tensorboard_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="not installed"):
        TrainingLog(tmp_path, "s", 0, 9, tensorboard=True)


def test_a_run_killed_twice_keeps_one_header_and_whole_lines(tmp_path: Path):
    """All lines forgotten, then new ones; half a line at the end, and nothing to forget."""
    with TrainingLog(tmp_path, "s", 0, 9) as report:
        report.row(1, 2, {"loss": 1.0})
    with TrainingLog(tmp_path, "s", 0, 9) as report:
        report.row(1, 2, {"loss": 2.0})
    with (tmp_path / "log_s.csv").open("a") as file:
        file.write("s,2")
    with TrainingLog(tmp_path, "s", 1, 9) as report:
        report.row(2, 2, {"loss": 3.0})
    assert [(row["step"], row["loss"]) for row in logged(tmp_path)] == [("1", "2.0"), ("2", "3.0")]
