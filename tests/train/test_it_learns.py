"""The embedded model learns eight people by heart, from random weights (only the pose prior is the shipped one).

First their keypoints without pictures, which is cheap and brings the lifter there; then all of the model on their
pictures, told the true joints. What is judged at the end is the whole model, with its pictures.
"""

from pathlib import Path

import pytest

from dpmesh.config_io import from_dict
from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.context import begin
from dpmesh.train.objectives.mesh import MeshObjective

PEOPLE = 8


@pytest.mark.slow
def test_eight_people_are_learned_by_heart(tmp_path: Path):
    common = {"batch": PEOPLE, "warmup": 10}
    plain = {
        "model": "embedded", "out": str(tmp_path), "workers": 0, "weight_decay": 0.0,
        "validation_people": PEOPLE, "validate_every": 10_000, "sheet_every": 0, "data": {"people": PEOPLE},
        "stages": [
            {"name": "first", "kind": "keypoints", "steps": 200, "learning_rate": 2e-3, **common},
            {"name": "then", "kind": "teacher", "steps": 60, "learning_rate": 1e-3, **common},
        ],
    }  # fmt: skip
    settings = from_dict(Settings, plain)
    start = begin(settings, 0)
    assert isinstance(start, MeshObjective)
    assert start.figures()["MPJPE"] > 100
    loop.train(settings)
    *_, last = (tmp_path / "validation.csv").read_text().splitlines()
    stage, step, people, mpjpe, *_ = last.split(",")
    assert (stage, int(step), int(people)) == ("then", 60, PEOPLE)
    assert float(mpjpe) <= 10  # mm
