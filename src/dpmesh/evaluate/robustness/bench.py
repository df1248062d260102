"""Evaluates models on the people of a protocol under every corruption and severity, and under a sliding box."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpmesh.errors import ConfigError
from dpmesh.evaluate.evaluation import Evaluation, EvaluationConfig, open_evaluation
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.results import Rows, inputs_of, predicted, score
from dpmesh.evaluate.robustness.corruptions import CORRUPTIONS, Corruption, cover
from dpmesh.geometry import CROP
from dpmesh.metrics import mean_of

Say = Callable[[str], None]
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """protocol: a name, or a folder of packed people (registry.entry). people: the first N of the set. map_people: the
    first N of these for the sliding box. grid: positions of the box along a side. box: its side as a share of the
    crop's. only: names of corruptions; empty is all. Raises ConfigError."""

    protocol: str = "synthocc"
    weights: tuple[str, ...] = ("embedded",)
    data: Path | None = None
    people: int = 300
    map_people: int = 48
    grid: int = 7
    box: float = 0.25
    batch: int = 16
    device: str = "auto"
    threads: int = 1
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.people, self.grid, self.batch, self.threads) < 1 or self.map_people < 0:
            raise ConfigError("people, grid, batch and threads must be at least 1", where="RobustnessConfig")
        if not 0 < self.box <= 1:
            raise ConfigError(f"box={self.box} is no share of the crop", where="RobustnessConfig")
        if not self.weights:
            raise ConfigError("no weights to evaluate", where="RobustnessConfig")
        names = {corruption.name for corruption in CORRUPTIONS}
        if unknown := set(self.only) - names:
            raise ConfigError(
                f"there is no corruption {sorted(unknown)[0]!r}",
                fix=f"There are: {', '.join(sorted(names))}.",
            )

    @property
    def corruptions(self) -> tuple[Corruption, ...]:
        return tuple(c for c in CORRUPTIONS if not self.only or c.name in self.only)


def run(config: RobustnessConfig, say: Say = print) -> dict[str, Any]:
    """Run the benchmark. Plain data, ready for JSON. All models get the same corrupted inputs. Raises DPMeshError."""
    evaluations = [
        open_evaluation(
            EvaluationConfig(
                protocol=config.protocol, out=Path(), data=config.data, weights=weights, device=config.device,
                threads=config.threads, batch=config.batch,
            )
        )
        for weights in config.weights
    ]  # fmt: skip
    source, protocol = evaluations[0].source, evaluations[0].protocol
    count = min(config.people, len(source))
    rows: dict[tuple[int, str, float], list[Rows]] = {}
    maps: list[list[np.ndarray]] = [[] for _ in evaluations]
    for start in range(0, count, config.batch):
        indices = list(range(start, min(start + config.batch, count)))
        persons, seeds = source.persons(indices), np.array(indices, np.int64)
        map_indices = indices[: max(config.map_people - start, 0)]
        map_persons = persons if len(map_indices) in (0, len(indices)) else source.persons(map_indices)
        for number, evaluation in enumerate(evaluations):
            clean = _score(evaluation, indices, persons)
            for corruption in config.corruptions:
                for severity in corruption.severities:
                    scored = clean
                    if severity:
                        scored = _score(evaluation, indices, corruption.apply(persons, severity, seeds))
                    rows.setdefault((number, corruption.name, severity), []).append(scored)
            if map_indices:
                maps[number].append(slide_box(evaluation, map_indices, map_persons, clean, config))
        say(f"{indices[-1] + 1} of {count} people")
    return {
        "format": FORMAT,
        "protocol": {"name": protocol.full_name, "title": protocol.title, "hash": protocol.hash},
        "persons": {
            "measured": count,
            "found": len(source),
            "left_out": dict(source.census.left_out),
            "map": min(config.map_people, count),
        },
        "models": [dict(evaluation.weights_record) for evaluation in evaluations],
        "corruptions": [_curves(corruption, rows, len(evaluations)) for corruption in config.corruptions],
        "map": _map(config, protocol, maps) if config.map_people else None,
    }


@torch.inference_mode()
def _score(evaluation: Evaluation, indices: Sequence[int], persons: Persons) -> Rows:
    prediction = evaluation.model(inputs_of(persons, evaluation.model.camera, evaluation.device))
    measure = evaluation.protocol.measure
    return score(measure, indices, persons, predicted(measure, evaluation.model, prediction, persons))


def _curves(
    corruption: Corruption, rows: dict[tuple[int, str, float], list[Rows]], models: int
) -> dict[str, Any]:
    def means(number: int, severity: float) -> dict[str, Any]:
        parts = rows[number, corruption.name, severity]
        mpjpe, pa = (np.concatenate([getattr(p, n) for p in parts]) for n in ("mpjpe", "pa_mpjpe"))
        return {
            "severity": severity,
            "MPJPE": mean_of(mpjpe).mean,
            "PA-MPJPE": mean_of(pa).mean,
            "failures": int(sum(p.failed.sum() for p in parts)),
            "unusable": int(sum(p.unusable.sum() for p in parts)),
        }

    return {
        "name": corruption.name,
        "title": corruption.title,
        "unit": corruption.unit,
        "models": [
            [means(number, severity) for severity in corruption.severities] for number in range(models)
        ],
    }


def box_centres(grid: int) -> np.ndarray:
    """Centres of the sliding box along a side, crop px, from edge to edge."""
    return (np.arange(grid) + 0.5) * CROP / grid


def slide_box(
    evaluation: Evaluation, indices: Sequence[int], persons: Persons, clean: Rows, config: RobustnessConfig
) -> np.ndarray:
    """(b, grid, grid, joints): increase of each joint's error in mm with the box there (rows: y, columns: x).
    clean: rows of these people, and possibly more after them."""
    half = config.box * CROP / 2
    out = np.empty((len(indices), config.grid, config.grid, clean.joint.shape[1]))
    for row, y in enumerate(box_centres(config.grid)):
        for column, x in enumerate(box_centres(config.grid)):
            boxes = np.tile(np.array([x - half, y - half, x + half, y + half]), (len(indices), 1))
            covered = _score(evaluation, indices, cover(persons, boxes))
            out[:, row, column] = covered.joint - clean.joint[: len(indices)]
    return out


def _map(config: RobustnessConfig, protocol: Protocol, maps: list[list[np.ndarray]]) -> dict[str, Any]:
    """Mean over people, mm."""
    return {
        "grid": config.grid,
        "box": config.box,
        "joints": list(protocol.measure.joint_names),
        "models": [_means(np.concatenate(increases)) for increases in maps],
    }


def _means(values: np.ndarray) -> list[Any]:
    """Means of (n, grid, grid, joints) over people: (joints, grid, grid), None where no person has a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an empty mean
        mean = np.nanmean(values, 0).round(2).transpose(2, 0, 1)
    values_or_none = mean.astype(object)
    values_or_none[~np.isfinite(mean)] = None
    return values_or_none.tolist()
