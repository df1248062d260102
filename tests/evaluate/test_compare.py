"""Comparison of two results: pairing, intervals, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpmesh.cli.main import main
from dpmesh.errors import InputError
from dpmesh.evaluate import report
from dpmesh.evaluate.compare import compare, text
from dpmesh.evaluate.results import ARRAYS, Rows


def test_a_constant_difference_is_certain(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    base = np.random.default_rng(0).gamma(4, 20, 400)
    one, two = (
        write_result(tmp_path / "a", make_rows(base)),
        write_result(tmp_path / "b", make_rows(base - 3)),
    )
    comparison = compare(one, two)
    m = comparison["measures"]["MPJPE"]
    assert m["difference"] == pytest.approx(-3) and m["second is better for"] == 1
    for interval in (m["interval over sequences"], m["interval over persons"]):
        assert interval == pytest.approx([-3, -3])
    assert comparison["measures"]["PA-MPJPE"]["difference"] == pytest.approx(-1.5)
    assert comparison["measures"]["MPVE"]["difference"] == pytest.approx(-6)
    assert "difference -3.00" in text(comparison)


def test_intervals_are_those_of_theory(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    """Independent persons: 1.96 standard errors. Sequences that differ: wider, by the sequences' own spread."""
    rng = np.random.default_rng(1)
    base, noise = np.full(600, 100.0), rng.normal(0, 10, 600)
    write_result(tmp_path / "a", make_rows(base))
    write_result(tmp_path / "b", make_rows(base + noise))
    m = compare(tmp_path / "a", tmp_path / "b")["measures"]["MPJPE"]
    half = 1.96 * noise.std() / np.sqrt(600)
    assert np.diff(m["interval over persons"])[0] / 2 == pytest.approx(half, rel=0.08)
    shift = rng.normal(0, 10, 12)[np.arange(600) % 12]
    write_result(tmp_path / "c", make_rows(base, 12))
    write_result(tmp_path / "d", make_rows(base + shift, 12))
    m = compare(tmp_path / "c", tmp_path / "d")["measures"]["MPJPE"]
    wide, narrow = (np.diff(m[f"interval over {over}"])[0] for over in ("sequences", "persons"))
    assert wide / 2 == pytest.approx(1.96 * shift[:12].std() / np.sqrt(12), rel=0.15)
    assert wide > 4 * narrow


def test_different_protocols_are_refused(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    values = np.full(10, 50.0)
    one = write_result(tmp_path / "a", make_rows(values))
    two = write_result(tmp_path / "b", make_rows(values), "3dpw@as-run")
    with pytest.raises(InputError, match=r"different protocols: 3dpw \(86dd.*3dpw@as-run \(7093"):
        compare(one, two)


def test_people_are_paired_by_name_and_failures_left_out(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    values = np.arange(20.0) + 50
    one = write_result(tmp_path / "a", make_rows(values))
    other = values + 5
    other[3] = np.nan
    shuffled = make_rows(other)
    order = np.random.default_rng(0).permutation(20)[:15]
    order = order if 3 in order else np.append(order, 3)
    cut = replace(shuffled, **{name: getattr(shuffled, name)[order] for name in ARRAYS})
    comparison = compare(one, write_result(tmp_path / "b", cut))
    assert comparison["persons"] == len(order) and comparison["only in first"] == 20 - len(order)
    assert (
        comparison["failed in either"] == 1 and comparison["measures"]["MPJPE"]["persons"] == len(order) - 1
    )
    assert comparison["measures"]["MPJPE"]["difference"] == pytest.approx(5)


def test_one_sequence_has_no_interval_over_sequences(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    one, two = (
        write_result(tmp_path / n, make_rows(np.arange(9.0) + a, 1, mpve=False))
        for n, a in (("a", 50), ("b", 51))
    )
    comparison = compare(one, two)
    assert (
        comparison["measures"]["MPJPE"]["interval over sequences"] is None
        and "MPVE" not in comparison["measures"]
    )
    assert "one sequence only" in text(comparison)


def test_rows_of_another_result_are_refused(
    tmp_path: Path, make_rows: Callable[..., Rows], write_result: Callable[..., Path]
):
    one, two = (write_result(tmp_path / n, make_rows(np.full(4, v))) for n, v in (("a", 50.0), ("b", 60.0)))
    (one / report.ROWS).write_bytes((two / report.ROWS).read_bytes())
    with pytest.raises(InputError, match=r"these rows are not those of the result\.json in the same folder"):
        compare(one, two)


def test_a_comparison_replaces_no_other_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_rows: Callable[..., Rows],
    write_result: Callable[..., Path],
):
    one = str(write_result(tmp_path / "a", make_rows(np.full(4, 50.0))))
    (tmp_path / "mine.json").write_text('{"mine": 1}')
    words = ["eval", "compare", one, one, "--json"]
    assert main([*words, str(tmp_path / "mine.json")]) == 1
    assert "was not written by dpmesh eval compare" in capsys.readouterr().err
    assert (tmp_path / "mine.json").read_text() == '{"mine": 1}'
    for _ in range(2):
        assert main([*words, str(tmp_path / "own.json")]) == 0
