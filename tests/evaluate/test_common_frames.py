"""Methods that miss different frames are compared on those that all have."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.video_methods import common
from dpmesh.evaluate import report
from dpmesh.evaluate.common_frames import on_common_frames
from dpmesh.evaluate.compare import compare
from dpmesh.evaluate.results import FRAME_COLUMNS, Rows, load

COUNT, LENGTH = 4, 10
SLIDES = [i for i, name in enumerate(FRAME_COLUMNS) if name.startswith("slide")]


def frames_of(error: float, hard: float, has_hard: bool) -> np.ndarray:
    """Errors of `error`, in the last three frames `hard` or none; a foot moves 5 mm, 50 when not in sight."""
    out = np.full((COUNT, LENGTH, len(FRAME_COLUMNS)), np.nan)
    out[..., :3] = error
    out[:, -3:, :3] = hard if has_hard else np.nan
    out[..., SLIDES[1]] = 5.0
    out[:, :2, SLIDES[1]] = 50.0
    out[..., -1] = 1.0
    out[:, :2, -1] = 0.2
    return out


def test_frames_that_one_method_lacks_do_not_count() -> None:
    brave, shy = frames_of(50, 300, True), frames_of(60, 0, False)
    one, two = on_common_frames([brave, shy])
    for name, worth in (("MPJPE", 50), ("PA-MPJPE", 50), ("acceleration", 50), ("foot slide, in sight", 5)):
        np.testing.assert_allclose(one[name], worth)
    np.testing.assert_allclose(two["MPJPE"], 60)
    assert (one["foot slide"] > 5).all()
    nobody = shy.copy()
    nobody[1, :, 0] = np.nan
    assert np.isnan(on_common_frames([brave, nobody])[0]["MPJPE"]).tolist() == [False, True, False, False]


def test_compare_has_them(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
) -> None:
    folders = [
        write_result(tmp_path / name, replace(make_rows(np.full(COUNT, mean)), frames=frames))
        for name, mean, frames in (
            ("a", 125.0, frames_of(50, 300, True)),
            ("b", 60.0, frames_of(60, 0, False)),
        )
    ]
    measures = compare(*folders)["measures"]
    assert measures["MPJPE"]["difference"] == -65
    assert measures["MPJPE, frames of both"]["difference"] == pytest.approx(10)
    rows = [load(folder / report.ROWS)[0] for folder in folders]
    found = common(rows)
    assert found["frames"] == COUNT * 7 and found["own frames"] == [COUNT * 10, COUNT * 7]
    assert [one["MPJPE"] for one in found["mean"]] == pytest.approx([50, 60])
    without = write_result(tmp_path / "c", make_rows(np.full(COUNT, 50.0)))
    assert "MPJPE, frames of both" not in compare(without, folders[0])["measures"]
