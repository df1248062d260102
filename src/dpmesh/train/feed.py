"""Batches for the loop: a pure function of (seed, step), made in worker processes, resumable at any step."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dpmesh.body.files import free_body
from dpmesh.data.poses import PoseBank, Split
from dpmesh.data.record import Batch
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.errors import ConfigError
from dpmesh.train.settings import Stage

Tensors = dict[str, Tensor]
BLIND = "blind."
"""Before the names of what a batch of pictures holds of people without one (Stage.rehearsal)."""


class Steps(Dataset[Tensors]):
    """Item i is this process's share of the batch of step i."""

    def __init__(self, stage: Stage, seed: int, split: Split, rank: int, world: int) -> None:
        if stage.batch % world:
            raise ConfigError(
                f"batch={stage.batch} cannot be shared by {world} processes", where=f"stage {stage.name}"
            )
        self.stage, self.seed, self.rank, self.world = stage, seed, rank, world
        self.split: Split = split
        self.share = stage.batch // world
        self._people: SyntheticPeople | None = None

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, step: int) -> Tensors:
        if self._people is None:  # in the worker, once: the wardrobe is not worth pickling
            torch.set_num_threads(1)
            self._people = SyntheticPeople(self.seed, PoseBank.load(self.split), free_body())
        rng = np.random.default_rng([self.seed, 7, self.rank, step])
        if self.stage.source == "keypoints":
            return as_tensors(self._people.keypoints_only(rng, self.share))
        batch = self._people.batch(step * self.stage.batch + self.rank * self.share, self.share)
        if self.stage.rehearsal:
            blind = self._people.keypoints_only(rng, self.stage.rehearsal // self.world)
            batch |= {BLIND + name: values for name, values in blind.items()}
        return as_tensors(batch)


def feed(stage: Stage, seed: int, first: int, workers: int, rank: int, world: int) -> Iterator[Tensors]:
    """Training batches from step `first` to the stage's end."""
    options: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": False} if workers else {}
    steps = range(first, stage.steps)
    loader = DataLoader(
        Steps(stage, seed, "train", rank, world),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        **options,
    )
    return iter(loader)


def as_tensors(batch: Batch) -> Tensors:
    """The crop stays uint8 (b, 256, 256, 3) until the model's device has it. record_id is left out."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in batch.items()
        if not name.endswith("record_id")
    }
