"""Batches: the same people however a batch is cut, from any step on; data sets through the mixture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpmesh.data.sample import Sample
from dpmesh.data.sources import open_source
from dpmesh.errors import ConfigError
from dpmesh.train import dataloader as module
from dpmesh.train.config import Data, Settings, TrainingSource
from dpmesh.train.dataloader import Part, batches, parts_of, steps_of, training_people
from dpmesh.train.stages import ImageStage, TeacherStage
from dpmesh.train.validate import validation_people

COMMON: dict[str, Any] = {"name": "s", "batch": 4, "learning_rate": 1e-3}


def settings(data: Data, workers: int = 0) -> Settings:
    return Settings(
        model="embedded", stages=(TeacherStage(**COMMON, steps=4),), data=data, workers=workers, body="smpl"
    )


def test_chances_do_not_depend_on_the_cut():
    whole = Part(3, 7).chance(2, 6)
    assert torch.equal(torch.cat([Part(3, 7, i, 3).chance(2, 2) for i in range(3)], 1), whole)
    assert torch.equal(torch.cat([Part(3, 7, i, 2).normal(3, 5) for i in range(2)]), Part(3, 7).normal(6, 5))
    assert not torch.equal(Part(3, 8).chance(2, 6), whole)
    assert not torch.equal(Part(3, 7).chance(2, 6, salt=1), whole)
    cuts = [list(parts_of(1, range(2), 2, rank, 2)) for rank in range(2)]
    assert sorted(part.number for some in cuts for part in some if part.step == 0) == [0, 1, 2, 3]


def test_the_same_images_however_a_batch_is_split():
    stage = ImageStage(**{**COMMON, "steps": 3, "accumulate": 2})
    run_settings = settings(Data())
    (_, ids, first), (_, more, second) = list(batches(stage, run_settings, range(2, 3)))
    whole = next(batches(ImageStage(**COMMON, steps=3), run_settings, range(2, 3)))
    assert [*ids, *more] == whole[1]
    assert torch.equal(torch.cat([first["crop"], second["crop"]]), whole[2]["crop"])
    halves = [
        next(batches(ImageStage(**COMMON, steps=3), run_settings, range(2, 3), rank, 2)) for rank in range(2)
    ]
    assert [name for half in halves for name in half[1]] == whole[1]
    with pytest.raises(ConfigError, match="cannot be shared by 3 processes"):
        next(batches(stage, run_settings, range(1), 0, 3))


class Fake:
    """A data set whose people are their numbers."""

    def __init__(self, name: str, length: int) -> None:
        self.name, self.length = name, length

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: np.random.Generator, augment: object = None) -> Sample:
        zeros = {"joints2d": (30, 2), "joints3d": (30, 3), "pose": (24, 3), "betas": (10,), "transl": (3,)}
        masks = ("joints2d_valid", "joints3d_valid", "visible", "joint_visible")
        values: dict[str, Any] = {name: np.zeros(shape, np.float32) for name, shape in zeros.items()}
        values |= {name: np.ones(30, np.float32) for name in masks}
        return Sample(
            record_id=f"{self.name}/{index}", crop=np.zeros((256, 256, 3), np.uint8), focal=1000.0, **values,
            joints=np.zeros((30, 2), np.float32), pose_valid=np.ones(24, np.float32), betas_valid=1.0,
            fit_joints2d=np.zeros((30, 2), np.float32), fit_joints3d=np.zeros((30, 3), np.float32), fit_valid=1.0,
            parts=np.zeros((32, 32), np.uint8), surface=np.zeros((32, 32), np.float32), surface_valid=0.0,
        )  # fmt: skip


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Data:
    sets = {"h36m": Fake("h36m", 30), "coco": Fake("coco", 10), "3dpw": Fake("3dpw", 7)}
    monkeypatch.setattr(module, "opened", lambda source: sets[source.dataset])
    monkeypatch.setattr("dpmesh.train.validate.opened", lambda source: sets[source.dataset])
    return Data(
        group3d=(TrainingSource(dataset="h36m"),),
        group2d=(TrainingSource(dataset="coco"),),
        validation=(TrainingSource(dataset="3dpw", split="validation"),),
    )


def test_data_sets_are_mixed_and_go_on_from_any_step(data: Data):
    stage = TeacherStage(**COMMON, steps=4)
    steps = list(batches(stage, settings(data), range(4)))
    for _part, ids, batch in steps:
        assert sum(name.startswith("h36m") for name in ids) == 2
        assert batch["crop"].shape == (4, 256, 256, 3)
    assert [ids for _, ids, _ in batches(stage, settings(data), range(2, 4))] == [
        ids for _, ids, _ in steps[2:]
    ]
    assert [ids for _, ids, _ in batches(stage, settings(data, workers=1), range(2))] == [
        ids for _, ids, _ in steps[:2]
    ]
    batch = validation_people(data, 5, 1)
    assert len(batch["crop"]) == 5


def test_epochs(data: Data):
    """Twice the larger group, in batches; the low stretch in epochs too."""
    stage = TeacherStage(**COMMON, epochs=6, schedule="step", decay_steps=2)
    assert steps_of(stage, data) == (6 * (60 // 4), 2 * (60 // 4))
    with pytest.raises(ConfigError, match="synthetic people have no epochs"):
        steps_of(stage, Data())


def test_the_rate_is_a_tenth_for_the_last_epochs(data: Data, tmp_path: Path, child: Any):
    from dpmesh.train.context import TrainingContext, make_objective
    from dpmesh.train.distributed import make_fabric
    from dpmesh.train.stage_run import StageRun

    stage = child.stage(
        "teacher", steps=6, schedule="step", decay_steps=2, warmup_steps=0, learning_rate=1e-4
    )
    run_settings = child.settings(tmp_path / "run", stage)
    run = StageRun(
        make_fabric(run_settings),
        make_objective(TrainingContext.resolve(run_settings), 0),
        TrainingContext.resolve(run_settings),
        0,
    )
    rates = []
    for run.step in range(6):
        rates.append(run.set_rates())
    assert rates == pytest.approx([1e-4] * 4 + [1e-5] * 2)


def test_synthetic_people_are_the_same_alone_and_mixed_with_data_sets() -> None:
    """Both ways to ask for them draw a share of the poses from the prior."""
    alone = training_people(Data(motions="all"), 5)
    mixed = open_source("synthetic", split="train", seed=5)
    rng = np.random.default_rng(0)
    for index in range(6):
        one, other = alone.sample(index), mixed.sample(index, rng)
        assert np.array_equal(one.pose, other.pose) and np.array_equal(one.crop, other.crop)
