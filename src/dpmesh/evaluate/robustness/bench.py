"""The bench: persons of a protocol through every corruption and severity; a box slid over them; several models."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpmesh.errors import ConfigError
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.results import Rows
from dpmesh.evaluate.robustness.corruptions import CORRUPTIONS, Corruption, cover
from dpmesh.evaluate.runner import Job, Opened, open_job
from dpmesh.evaluate.score import inputs_of, predicted, score
from dpmesh.geometry import CROP
from dpmesh.metrics import mean_of

Say = Callable[[str], None]
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Bench:
    """protocol: a name, or a folder of records (opening.entry). persons: how many, the first of the set. map_persons:
    of these for the sliding box. grid: its places on a side. box: its side as a share of the crop's. only: names of
    corruptions; empty is all."""

    protocol: str = "synthocc"
    weights: tuple[str, ...] = ("embedded",)
    data: Path | None = None
    persons: int = 300
    map_persons: int = 48
    grid: int = 7
    box: float = 0.25
    batch: int = 16
    device: str = "auto"
    threads: int = 1
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.persons, self.grid, self.batch, self.threads) < 1 or self.map_persons < 0:
            raise ConfigError("persons, grid, batch and threads must be at least 1", where="Bench")
        if not 0 < self.box <= 1:
            raise ConfigError(f"box={self.box} is no share of the crop", where="Bench")
        if not self.weights:
            raise ConfigError("no weights to measure", where="Bench")
        names = {one.name for one in CORRUPTIONS}
        if unknown := set(self.only) - names:
            raise ConfigError(
                f"there is no corruption {sorted(unknown)[0]!r}",
                fix=f"There are: {', '.join(sorted(names))}.",
            )

    @property
    def corruptions(self) -> tuple[Corruption, ...]:
        return tuple(one for one in CORRUPTIONS if not self.only or one.name in self.only)


def run(bench: Bench, say: Say = print) -> dict[str, Any]:
    """Plain data, ready for JSON. Every model sees the very same corrupted persons. Raises DPMeshError."""
    opened = [
        open_job(
            Job(
                protocol=bench.protocol, out=Path(), data=bench.data, weights=weights, device=bench.device,
                threads=bench.threads, batch=bench.batch,
            )
        )
        for weights in bench.weights
    ]  # fmt: skip
    source, protocol = opened[0].source, opened[0].protocol
    count = min(bench.persons, len(source))
    rows: dict[tuple[int, str, float], list[Rows]] = {}
    maps: list[list[np.ndarray]] = [[] for _ in opened]
    for start in range(0, count, bench.batch):
        indices = list(range(start, min(start + bench.batch, count)))
        persons, seeds = source.persons(indices), np.array(indices, np.int64)
        slid = indices[: max(bench.map_persons - start, 0)]
        under = persons if len(slid) in (0, len(indices)) else source.persons(slid)
        for number, one in enumerate(opened):
            clean = _answer(one, protocol, indices, persons)
            for corruption in bench.corruptions:
                for severity in corruption.severities:
                    worse = corruption.apply(persons, severity, seeds) if severity else persons
                    found = clean if severity == 0 else _answer(one, protocol, indices, worse)
                    rows.setdefault((number, corruption.name, severity), []).append(found)
            if slid:
                maps[number].append(_slide(one, protocol, slid, under, clean, bench))
        say(f"{indices[-1] + 1} of {count} persons")
    return {
        "format": FORMAT,
        "protocol": {"name": protocol.full_name, "title": protocol.title, "hash": protocol.hash},
        "persons": {
            "measured": count,
            "found": len(source),
            "left_out": dict(source.census.left_out),
            "map": min(bench.map_persons, count),
        },
        "models": [dict(one.record) for one in opened],
        "corruptions": [_curves(corruption, rows, len(opened)) for corruption in bench.corruptions],
        "map": _map(bench, protocol, maps) if bench.map_persons else None,
    }


@torch.inference_mode()
def _answer(opened: Opened, protocol: Protocol, indices: Sequence[int], persons: Persons) -> Rows:
    answer = opened.model(inputs_of(persons, opened.model.camera, opened.device))
    measure = protocol.measure
    return score(measure, indices, persons, predicted(measure, opened.model, answer, persons))


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


def places(grid: int) -> np.ndarray:
    """Middles of the sliding box, crop px, from edge to edge."""
    return (np.arange(grid) + 0.5) * CROP / grid


def _slide(
    opened: Opened, protocol: Protocol, indices: Sequence[int], persons: Persons, clean: Rows, bench: Bench
) -> np.ndarray:
    """(b, grid, grid, joints): how many mm further off each joint is with the box there (rows: y, columns: x).
    clean: of these persons, and perhaps of more after them."""
    half = bench.box * CROP / 2
    out = np.empty((len(indices), bench.grid, bench.grid, clean.joint.shape[1]))
    for row, y in enumerate(places(bench.grid)):
        for column, x in enumerate(places(bench.grid)):
            boxes = np.tile(np.array([x - half, y - half, x + half, y + half]), (len(indices), 1))
            found = _answer(opened, protocol, indices, cover(persons, boxes))
            out[:, row, column] = found.joint - clean.joint[: len(indices)]
    return out


def _map(bench: Bench, protocol: Protocol, maps: list[list[np.ndarray]]) -> dict[str, Any]:
    """Mean over persons, mm."""
    return {
        "grid": bench.grid,
        "box": bench.box,
        "joints": list(protocol.measure.joint_names),
        "models": [_means(np.concatenate(one)) for one in maps],
    }


def _means(values: np.ndarray) -> list[Any]:
    """(n, grid, grid, joints) over persons: (joints, grid, grid), None where nobody has a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an empty mean
        mean = np.nanmean(values, 0).round(2).transpose(2, 0, 1)
    found = mean.astype(object)
    found[~np.isfinite(mean)] = None
    return found.tolist()
