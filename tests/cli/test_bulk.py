"""`dpmesh bulk` without Ray: what is refused at once."""

import sys
from pathlib import Path

import pytest

from dpmesh.cli.main import main


def test_without_ray_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["bulk", "examples", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        'dpmesh: dpmesh bulk: needs Ray, which is not installed. Install it with: pip install "dpmesh[ray]"\n'
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [["--num-gpus", "-1"], ["--num-gpus", "all"], ["--part", "0"], ["-q", "-v"]]
)
def test_wrong_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bulk", "a", "--out", "b", *words])
    assert caught.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
