"""tools/assets/average_weights.py: the mean of weights, and what it refuses."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dpmesh.ablations import configuration
from dpmesh.checkpoint import WEIGHTS
from dpmesh.model import DPMesh
from tools.assets import average_weights


def saved(folder: Path, seed: int, depth_scale: float = 2.5) -> DPMesh:
    """Random weights in `folder`."""
    torch.manual_seed(seed)
    model = DPMesh.from_config(replace(configuration("embedded"), depth_scale=depth_scale))
    model.save_pretrained(folder, {"seed": seed})
    return model


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["average_weights.py", *map(str, words)])
    average_weights.main()


def test_every_number_is_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = saved(tmp_path / "one", 1).state_dict(), saved(tmp_path / "other", 2).state_dict()
    run(monkeypatch, tmp_path / "one", tmp_path / "other", "--out", tmp_path / "mean")
    loaded = DPMesh.from_pretrained(tmp_path / "mean")
    for name, value in loaded.state_dict().items():
        expected = (one[name] + other[name]) / 2 if value.is_floating_point() else one[name]
        assert torch.equal(value, expected), name
    assert any(not torch.equal(one[name], other[name]) for name in one)
    parts = loaded.provenance["mean of"]
    assert [part["seed"] for part in parts] == [1, 2]
    assert len({part["sha256"] for part in parts}) == 2 and all(len(part["sha256"]) == 64 for part in parts)


def test_other_configurations_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "one", 1)
    saved(tmp_path / "other", 2, depth_scale=3.5)
    with pytest.raises(SystemExit, match="another configuration"):
        run(monkeypatch, tmp_path / "one", tmp_path / "other", "--out", tmp_path / "mean")
    assert not (tmp_path / "mean" / WEIGHTS).exists()
