"""Which loss terms move the image backbone.

    python -m benchmarks.accuracy.gradients [--batches 10] CONFIG.toml [--set.NAME VALUE]

For each loss term, times its factor, over the first batches of the config's last stage, at the weights that it begins
with:

* share: the mean square of the term's gradient in a matrix (or kernel) of the backbone, as a share of all terms',
  averaged over the matrices. Muon's steps have one size in each matrix, so shares and not sizes decide.
* signal: the part of that mean square that the batches have in common, averaged likewise; the rest is noise, which
  differs between batches (McCandlish et al. 2018, section 2.2). The estimate is unbiased, so a small signal can come
  out on either side of 0; the lowest figure of a run shows the size of the chance errors. Near the end of training
  a term may have a signal only because its weight is low and the other terms balance it.

Keypoint-only people (keypoint_batch) have no image and are left out.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import report_result
from dpmesh.cli.train import changes
from dpmesh.errors import ConfigError
from dpmesh.train.config import Settings
from dpmesh.train.config_file import read_settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import batches
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.stages import ImageStage


class Moments:
    """Of one term's gradients over the batches, for each matrix: their sum, and the sum of their squares."""

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        self.batches = 0
        self.total = [torch.zeros_like(m) for m in matrices]
        self.squares = torch.zeros(len(matrices), dtype=torch.float64)

    def add(self, gradients: list[Tensor]) -> None:
        self.batches += 1
        for i, gradient in enumerate(gradients):
            self.total[i] += gradient
            self.squares[i] += gradient.double().square().sum()

    def power(self) -> Tensor:
        """Mean square norm, for each matrix."""
        return self.squares / self.batches

    def signal(self) -> Tensor:
        """What two batches' gradients have in common, as a share of the power, for each matrix that has a gradient."""
        whole = torch.stack([t.double().square().sum() for t in self.total])
        common = (whole - self.squares) / (self.batches * (self.batches - 1))
        return (common / self.power())[self.squares > 0]


def figures(moments: dict[str, Moments]) -> dict[str, dict[str, float]]:
    """Share and signal of each term that has a gradient."""
    everything = torch.stack([m.power() for m in moments.values()]).sum(0).clamp(min=1e-30)
    return {
        name: {
            "share": round((m.power() / everything).mean().item(), 4),
            "signal": round(m.signal().mean().item(), 4),
        }
        for name, m in moments.items()
        if m.squares.any()
    }


def measure(settings: Settings, count: int) -> dict[str, Any]:
    """Figures of the last stage over its first `count` batches. Raises ConfigError where images train nothing of the
    backbone in it."""
    number = len(settings.stages) - 1
    stage = settings.stages[number]
    if isinstance(stage, ImageStage):
        stage = replace(stage, keypoint_batch=0)
        settings = replace(settings, stages=(*settings.stages[:number], stage))
    objective = make_objective(TrainingContext.resolve(settings), number).train()
    matrices = [p for g in objective.groups() if g.backbone for p in g.parameters if p.ndim > 1]
    if not isinstance(objective, MeshObjective) or not matrices:
        raise ConfigError("nothing of the backbone is trained by images", where=f"stage {stage.name}")
    moments = dict[str, Moments]()
    for part, _, batch in batches(stage, settings, range(count)):
        _, terms = objective(batch, part)
        for name, term in terms.items():
            factor = getattr(settings.losses, name)
            if not factor or not term.requires_grad:
                continue
            gradients = torch.autograd.grad(factor * term, matrices, retain_graph=True, allow_unused=True)
            known = [
                torch.zeros_like(m) if g is None else g for g, m in zip(gradients, matrices, strict=True)
            ]
            moments.setdefault(name, Moments(matrices)).add(known)
    by_term = figures(moments)
    return {
        "stage": stage.name,
        "people": count * stage.batch,
        "batch": stage.batch,
        "matrices": len(matrices),
        "terms": dict(sorted(by_term.items(), key=lambda item: -item[1]["share"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="OUT.json")
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="--set.NAME VALUE", help="as of dpmesh train"
    )
    options = parser.parse_args()
    if options.batches < 2:
        parser.error("--batches: needs two batches or more, to separate signal from noise")
    torch.set_num_threads(1)
    start = time.monotonic()
    result = measure(read_settings(options.config, changes(options.rest)), options.batches)
    for name, one in result["terms"].items():
        print(f"{name:16s} share {one['share']:.3f}  signal {one['signal']:+.4f}")
    report_result({**result, "seconds": round(time.monotonic() - start)}, options.json)


if __name__ == "__main__":
    main()
