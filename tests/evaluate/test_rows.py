"""rows.npz: damaged files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.evaluate import report
from dpmesh.evaluate.compare import compare
from dpmesh.evaluate.results import Rows


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("index", np.zeros(4, np.int64), "indices"),
        ("index", np.arange(4) - 1, "indices"),
        ("index", np.arange(4.0), "index is float64"),
        ("ids", np.array(["a"] * 4), "a person appears twice"),
        ("ids", np.arange(4), "ids is int64"),
        ("joint", np.zeros((4, 3)), "joint_pa is float64 of shape"),
        ("mpjpe", np.full(4, -5.0), "below zero"),
        ("failed", np.ones(4, bool), "a failed person has an error"),
        ("failed", np.zeros(4), "failed is float64"),
        ("mpve", np.zeros(3), "mpve is float64 of shape"),
        ("about", np.array("{"), "is not JSON"),
        ("about", np.array(1), "about is not a text"),
        ("about", np.array('{"header": {}, "fallbacks": {"a": "b"}}'), "fallbacks.a is not a count"),
    ],
)
def test_changed_rows_are_one_line(
    tmp_path: Path,
    name: str,
    array: np.ndarray,
    message: str,
    make_rows: Callable[..., Rows],
    write_result: Callable[..., Path],
):
    folder = write_result(tmp_path / "a", make_rows(np.full(4, 50.0)))
    arrays = {**np.load(folder / report.ROWS), name: array}
    np.savez(folder / report.ROWS, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        compare(folder, folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_array_header_is_one_line(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    """numpy reads headers by Python's own parser: a flipped bit there is a TokenError."""
    folder = write_result(tmp_path / "a", make_rows(np.full(4, 50.0)))
    data = (folder / report.ROWS).read_bytes()
    at = data.index(b"'shape': (4, 14), }") + 40
    (folder / report.ROWS).write_bytes(data[:at] + b"(" + data[at + 1 :])
    with pytest.raises(InputError, match="not a readable"):
        compare(folder, folder)
