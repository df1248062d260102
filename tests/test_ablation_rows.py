"""benchmarks/ablations.py: every row can be trained, and begins with what it says."""

from pathlib import Path

import pytest
import torch
from ablations import ROWS, SHIPPED, grafted, settings

from dpmesh.configurations import configuration
from dpmesh.model import DPMesh


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_valid_training(name: str, tmp_path: Path) -> None:
    row, given = ROWS[name], settings(name, 2, 1, tmp_path)
    configuration(given.model)
    before = list(ROWS)[: list(ROWS).index(name)]
    assert not row.base or row.base in before
    assert row.start in ("", SHIPPED) or (row.start in before and ROWS[row.start].model == row.model)
    assert bool(given.start) == bool(row.start)


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
