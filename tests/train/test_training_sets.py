"""A stage on data sets in their real layouts: epochs, the 1:1 mixture, masks, the low rate at the end."""

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpmesh.errors import ConfigError
from dpmesh.train import trainer as loop
from tools.fixtures import set_twins


@pytest.mark.slow
def test_a_teacher_trains_on_the_sets(child: ModuleType, tmp_path: Path):
    sets = tmp_path / "sets"
    set_twins.write_all(sets)

    def source(name: str) -> dict[str, Any]:
        return {"dataset": name, "root": str(sets), "fits": "none"}

    data = {
        "group3d": [source("h36m"), source("muco")],
        "group2d": [source("coco"), source("crowdpose")],
        "augment": {"p_rectangle": 0.0},
    }
    stage = child.stage("teacher", epochs=2, steps=0, schedule="step", decay_steps=1, warmup_steps=0)
    out = tmp_path / "run"
    weights = loop.train(child.settings(out, stage, data=data, preview_every=2))
    assert (weights / "model.safetensors").is_file()
    with (out / "log_teacher.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) % 2 == 0
    half = len(rows) // 2
    assert {row["rate"] for row in rows[:half]} == {"0.001"}
    assert {row["rate"] for row in rows[half:]} == {"0.0001"}
    for row in rows:  # joints alone are known, and 3D ones of half of the people
        assert float(row["joints3d"]) > 0 and float(row["joints2d"]) > 0
        assert float(row["pose"]) == float(row["root"]) == float(row["betas"]) == 0
    assert (out / "previews/teacher_000002.png").is_file()

    fewer = {**data, "group2d": data["group2d"][:1]}
    with pytest.raises(ConfigError, match=r"data\.group2d\.1\.dataset was 'crowdpose', is None"):
        loop.train(child.settings(out, stage, data=fewer, preview_every=2))
