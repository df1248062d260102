"""benchmarks/accuracy/ablations.py: every row can be trained, and starts from the weights that it names."""

from pathlib import Path

import pytest
import torch

from benchmarks.accuracy.ablations import ROWS, grafted, settings
from dpmesh.ablations import configuration
from dpmesh.model import DPMesh


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_valid_training(name: str, tmp_path: Path) -> None:
    row, run_settings = ROWS[name], settings(name, 2, 1, tmp_path)
    configuration(run_settings.model)
    before = list(ROWS)[: list(ROWS).index(name)]
    assert not row.base or row.base in before
    assert not row.start or (row.start in before and ROWS[row.start].model == row.model)
    assert (f"/{row.start}/" if row.start else f"/{name}/seed1/start") in run_settings.start


def test_a_row_begins_with_the_numbers_of_the_weights(tmp_path: Path) -> None:
    grafted("z0+cj_added", "embedded", 1, tmp_path)
    own, donor = (DPMesh.from_pretrained(source).state_dict() for source in (tmp_path, "embedded"))
    shared = [name for name in own if name in donor and own[name].shape == donor[name].shape]
    assert len(shared) > 0.9 * len(own) and all(torch.equal(own[name], donor[name]) for name in shared)
    assert any(name not in shared for name in own)  # the hint's own convolutions
    file = tmp_path / "model.safetensors"
    made = file.stat().st_mtime_ns
    grafted("z0+cj_added", "embedded", 1, tmp_path)
    assert file.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("name", "kept", "lost"),
    [
        ("unet", "regressor.decoder.0.norm1.weight", "backbone.unet.conv_in.weight"),
        ("resnet10", "regressor.lifter.pose.weight", "backbone.model.conv1.0.weight"),
        ("points", "backbone.unet.conv_in.weight", "regressor.lifter.pose.weight"),
        ("direct", "regressor.lifter.root.weight", "regressor.pose_head.layers.0.weight"),
    ],
)
def test_what_a_row_compares_begins_anew(name: str, kept: str, lost: str, tmp_path: Path) -> None:
    grafted(name, "embedded", 1, tmp_path)
    own, donor = (
        DPMesh.from_pretrained(tmp_path).state_dict(),
        DPMesh.from_pretrained("embedded").state_dict(),
    )
    assert torch.equal(own[kept], donor[kept])
    assert (
        lost not in donor or own[lost].shape != donor[lost].shape or not torch.equal(own[lost], donor[lost])
    )
