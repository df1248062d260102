"""`dpmesh inspect`: full-size models are described from their shapes alone; folders from their config."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpmesh.cli.main import main
from dpmesh.configurations import EMBEDDED, RELEASE
from dpmesh.plain import to_plain


@pytest.mark.parametrize("name", ["paper", "release"])
def test_full_size_as_a_table(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", name]) == 0
    printed = capsys.readouterr().out
    assert name in printed and "360,279,040" in printed and "34,163,664" in printed
    assert {"release": "522.058", "paper": "515.923"}[name] in printed


def test_full_size_takes_no_memory():
    """All the weights would be 5.2 GiB."""
    script = (
        "import resource; from dpmesh.cli.main import main; main(['inspect', 'release', '--json'])\n"
        "import sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["total"]["parameters"] == 1_302_909_303
    assert int(done.stderr.splitlines()[-1]) < 1_000_000  # kB


def test_a_folder_is_told_by_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The weights are not read: here there are none."""
    text = {"config": to_plain(RELEASE), "provenance": {"source": "a test"}}
    (tmp_path / "config.json").write_text(json.dumps(text))
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["name"] == "release" and report["provenance"] == {"source": "a test"}
    assert report["parts"]["regressor"]["parameters"] == 15_444_647


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    broken = {"config": {**to_plain(EMBEDDED), "pose_prior": {"kind": "gmm"}}, "provenance": {}}
    (tmp_path / "config.json").write_text(json.dumps(broken))
    for source, told in (
        (str(tmp_path), "kind must be one of"),
        ("huge", "There are: embedded, paper, release"),
    ):
        assert main(["inspect", source]) != 0
        error = capsys.readouterr().err
        assert told in error and error.count("\n") <= 2
