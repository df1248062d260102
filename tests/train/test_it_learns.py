"""The embedded model learns eight people by heart, from random weights (only the pose prior is the shipped one).

First their keypoints without images, which is cheap and brings the lifter there; then all of the model on their
images, with the true joints as input. At the end the whole model is validated, with its images.
"""

from pathlib import Path

import pytest

from dpmesh.config_io import from_dict
from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.objectives.mesh import MeshObjective

PEOPLE = 8


@pytest.mark.slow
def test_eight_people_are_learned_by_heart(tmp_path: Path):
    common = {"batch": PEOPLE, "warmup_steps": 10}
    plain = {
        "model": "embedded", "out": str(tmp_path), "workers": 0, "weight_decay": 0.0,
        "validation_people": PEOPLE, "validate_every": 10_000, "preview_every": 0, "data": {"overfit_people": PEOPLE},
        "stages": [
            {"name": "first", "kind": "keypoints", "steps": 200, "learning_rate": 2e-3, **common},
            {"name": "then", "kind": "teacher", "steps": 60, "learning_rate": 1e-3, **common},
        ],
    }  # fmt: skip
    settings = from_dict(Settings, plain)
    start = make_objective(TrainingContext.resolve(settings), 0)
    assert isinstance(start, MeshObjective)
    assert start.figures()["MPJPE"] > 100
    loop.train(settings)
    *_, last = (tmp_path / "validation.csv").read_text().splitlines()
    stage, step, people, mpjpe, *_ = last.split(",")
    assert (stage, int(step), int(people)) == ("then", 60, PEOPLE)
    assert float(mpjpe) <= 10  # mm
