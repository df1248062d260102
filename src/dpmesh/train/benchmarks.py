"""Validation on data sets, by the evaluation's own code under a frozen protocol (evaluate/): the truth is the gendered
body or the measured joints, never the neutral body of mean shape, which is what training's targets say of 3DPW."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from dpmesh.data.shards import is_packed
from dpmesh.errors import ConfigError
from dpmesh.evaluate import report as summary
from dpmesh.evaluate import score
from dpmesh.evaluate.interfaces import Persons, Source
from dpmesh.evaluate.packed import open_packed
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.registry import open_set
from dpmesh.evaluate.results import concatenate
from dpmesh.inference.predictor import MeshModel
from dpmesh.train import config as settings
from dpmesh.train.config import Data
from dpmesh.train.stages import Pretrain, Prior, Teacher
from dpmesh.train.validate import spread

_TOGETHER = 16
"""Persons in one forward pass."""

Row = dict[str, Any]
"""A line of validation.csv."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Some persons of a data set under a protocol of dpmesh.evaluate, evenly drawn from all of them."""

    protocol: Protocol
    source: Source
    chosen: Sequence[int]
    _kept: list[tuple[Sequence[int], Persons]] = field(default_factory=list[tuple[Sequence[int], Persons]])

    def batches(self) -> Sequence[tuple[Sequence[int], Persons]]:
        """Indices and persons; the pictures are read once and kept."""
        if not self._kept:
            for start in range(0, len(self.chosen), _TOGETHER):
                indices = self.chosen[start : start + _TOGETHER]
                self._kept.append((indices, self.source.persons(indices)))
        return self._kept

    @torch.inference_mode()
    def figures(self, model: MeshModel, device: torch.device) -> Row:
        """The mean of each measure in millimetres (those that the protocol and the model's body have), how many people
        and failures; the protocol and its hash."""
        score.require_joints(model)
        measure = self.protocol.measure
        parts = [
            score.score(
                measure,
                indices,
                persons,
                score.predicted(
                    measure, model, model(score.inputs_of(persons, model.camera, device)), persons
                ),
            )
            for indices, persons in self.batches()
        ]
        found = summary.figures(measure, concatenate(parts))
        means = {name: m["mean"] for name, m in found["mean"].items() if m["mean"] is not None}
        return {
            "people": len(self.chosen),
            **{name: round(value, 2) for name, value in means.items()},
            "failures": found["failures"],
            "protocol": self.protocol.full_name,
            "hash": self.protocol.hash,
        }


@lru_cache(maxsize=2)
def benchmarks(data: Data, count: int, *, annotated: bool = False) -> tuple[Benchmark, ...]:
    """The data sets of Data.validation with `count` people in all. annotated: the ground-truth 2D joints are the input,
    as of a teacher. Raises DPMeshError where files, bodies or regressors are missing."""
    if data.people:
        return ()
    share = -(-count // max(len(data.validation), 1))
    found = [_opened(source, annotated) for source in data.validation if source.dataset != "synthetic"]
    return tuple(Benchmark(protocol, source, spread(len(source), share)) for protocol, source in found)


def _opened(source: settings.Source, annotated: bool) -> tuple[Protocol, Source]:
    root = Path(source.root)
    if is_packed(root):
        people = open_packed(root / f"{source.dataset}-{source.split}", annotated=annotated)
        return people.protocol, people
    if source.dataset != "3dpw":
        raise ConfigError(
            f"{source.dataset} has no {source.split} split with a true pose",
            where="data.validation",
            fix="Name 3dpw, a folder that dpmesh data pack made, or nothing: synthetic people then.",
        )
    if not os.path.isdir(root):
        raise ConfigError(
            f"there is no such folder, where 3DPW's {source.split} people are looked for",
            where=str(root),
            fix="Name the folder of 3DPW (docs/guide/data.md) in data.validation, then dpmesh train CONFIG --check.",
        )
    return open_set("3dpw-validation@annotated" if annotated else "3dpw-validation", root)


def prepare_validation(given: settings.Settings) -> None:
    """Open what the stages will be validated on; every process does, so that none waits for one that failed."""
    if not given.validate_every:
        return
    for stage in given.stages:
        if not isinstance(stage, Prior | Pretrain):
            benchmarks(given.data, given.validation_people, annotated=isinstance(stage, Teacher))
