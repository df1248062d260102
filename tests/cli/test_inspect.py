"""`dpmesh inspect`: full-size models are described from their shapes alone; folders from their config."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpmesh.cli.main import main
from dpmesh.config import EMBEDDED, RELEASE
from dpmesh.config_io import to_dict
from dpmesh.profiling import describe_ablations


@pytest.mark.parametrize("name", ["paper", "release"])
def test_full_size_as_a_table(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", name]) == 0
    printed = capsys.readouterr().out
    assert name in printed and "360,279,040" in printed and "34,163,664" in printed
    assert {"release": "522.058", "paper": "515.923"}[name] in printed


def test_full_size_takes_no_memory():
    """All the weights would be 5.2 GiB."""
    script = (
        "from dpmesh.cli.main import main; main(['inspect', 'release', '--json'])\n"
        # Not ru_maxrss: it begins with the size of the process that started this one.
        "import sys, pathlib; status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["total"]["parameters"] == 1_302_909_303
    assert int(done.stderr.splitlines()[-1]) < 1_000_000  # kB


def test_a_folder_is_described_by_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The weights are not read: here there are none."""
    text = {"config": to_dict(RELEASE), "provenance": {"source": "a test"}}
    (tmp_path / "config.json").write_text(json.dumps(text))
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["name"] == "release" and report["provenance"] == {"source": "a test"}
    assert report["parts"]["regressor"]["parameters"] == 15_444_647


def test_a_config_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plain = to_dict(RELEASE) | {"name": "[red]a\x1b[31m\u202eb[/red]:smile:"}
    text = {"config": plain, "provenance": {"[bold]k": "\x1b]0;title\x07[/x]\n\u202e"}}
    (tmp_path / "config.json").write_text(json.dumps(text))
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)
    assert (
        r"[red]a\x1b[31m\u202eb[/red]:smile:" in printed
        and r"[bold]k: \x1b]0;title\x07[/x]\n\u202e" in printed
    )


@pytest.mark.slow
def test_the_ablation_at_full_size():
    """Every model of Table 4 runs on the meta device; what a condition or a backbone costs, to the unit."""
    rows = describe_ablations()
    by = {row["name"]: row for row in rows}
    assert len(rows) == 13 + 16 and len(by) == 11 + 14  # of paper, and at embedded widths
    assert len({row["group"] for row in rows}) == 3 + 4
    assert [row["group"] for row in rows if row["name"] == "paper"] == [
        "conditions",
        "backbones",
        "pose heads",
    ]
    count = {name: row["parameters"] for name, row in by.items()}
    assert count["paper-z0+cj"] - count["paper-z0"] == 360_279_040  # the ControlNet
    assert (
        count["paper"] - count["paper-z0+cj"] == (2 * 768 + 768) + (768 * 768 + 768) + 768 - 30 * 768
    )  # prompts
    concatenated, added = 9 * 30 * 320, (9 * 30 * 30 + 30) + (9 * 30 * 4 + 4) + (4 * 4 + 4)
    assert count["paper-z0+cj_added"] - count["paper-z0+cj"] == added - concatenated
    joined = {"resnet50": 64, "hrnet_w48": 64, "vit_l16": 1024, "swinv2_l": 192}
    width = {"resnet50": 2048, "hrnet_w48": 2048, "vit_l16": 1024, "swinv2_l": 1536}
    # timm's models without their classifiers, as their authors count them; ViT for 257 places instead of 197.
    own = {
        "resnet50": 25_557_032 - 2049 * 1000,
        "hrnet_w48": 77_469_864 - 2049 * 1000,
        "vit_l16": 304_326_632 - 1025 * 1000 + 60 * 1024,
        "swinv2_l": 196_739_932 - 1537 * 1000,
    }
    for name, early in joined.items():
        ours = (early + 30) * early + early + (width[name] + 1) * 2048 + 2 * 2048
        ours += 9 * 1024 * 1024 + 1024 if name == "vit_l16" else 0
        assert by[f"paper-{name}"]["backbone_parameters"] == own[name] + ours, name
        assert by[f"paper-{name}"]["trainable"] > own[name] + ours
    assert count["paper-straight_through"] == count["paper"]
    assert by["paper-z0"]["gflop"] == pytest.approx(by["paper-z0+cj"]["gflop"] - 58.12, abs=0.01)
    # Multiply-adds at 224² (He et al. 2016: 4.1 G; Wang et al. 2020: 17.4 G at w48) for 256², and our own layers.
    assert by["paper-resnet50"]["backbone_gflop"] == pytest.approx(2 * 4.1 * (256 / 224) ** 2 + 0.6, abs=0.4)
    assert by["paper-hrnet_w48"]["backbone_gflop"] == pytest.approx(2 * 17.3 * (256 / 224) ** 2 + 0.6, abs=1)


def test_the_ablation_as_a_table_and_as_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    figures = {"trainable": 4321, "backbone_parameters": 12_345, "backbone_gflop": 67.8}
    rows = [
        {"group": "conditions", "name": "paper", "parameters": 1_302_909_303, "gflop": 515.923, **figures},
        {"group": "backbones", "name": "paper-resnet50", "parameters": 23_508_032, "gflop": 5.4, **figures},
        {"group": "small backbones", "name": "embedded", "parameters": 9_876_543, "gflop": 1.0, **figures},
    ]
    monkeypatch.setattr("dpmesh.profiling.describe_ablations", lambda: rows)
    assert main(["inspect", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rows
    assert main(["inspect", "--all"]) == 0
    printed = capsys.readouterr().out
    for row in rows:
        line = next(line for line in printed.splitlines() if f"│ {row['name']} " in line[2:])
        assert f"{row['parameters']:,}" in line and f"{row['gflop']:.2f}" in line
    with pytest.raises(SystemExit, match="2"):
        main(["inspect"])
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "paper", "--all"])


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    broken = {"config": {**to_dict(EMBEDDED), "pose_prior": {"kind": "gmm"}}, "provenance": {}}
    (tmp_path / "config.json").write_text(json.dumps(broken))
    for source, message in (
        (str(tmp_path), "kind must be one of"),
        ("x" * 5000, "There are: embedded"),
        ("huge", "There are: embedded, paper, release"),
    ):
        assert main(["inspect", source]) != 0
        error = capsys.readouterr().err
        assert message in error and error.count("\n") <= 2


def test_a_name_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = {"config": {**to_dict(EMBEDDED), "name": "[/bold]x[red]"}, "provenance": {"source": "[/nothing]"}}
    (tmp_path / "config.json").write_text(json.dumps(text))
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "[/bold]x[red], one person" in printed and "source: [/nothing]" in printed
