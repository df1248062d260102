"""Time of the embedded model for one person.

    python -m benchmarks.speed.embedded [--runs 30] [--json OUT.json]

One thread. Times are of the forward pass alone (crop in, vertices out), batch 1 and batch 8; the limit is
the time that the counted FLOP would need at the speed of one large matrix product on the same core, measured
in turn with the model.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.machine import report_result
from dpmesh.geometry import CROP
from dpmesh.model import DPMesh
from dpmesh.profiling import describe
from dpmesh.types import Inputs


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def summary(times: list[float], people: int = 1) -> dict[str, float]:
    each = [t / people * 1e3 for t in times]
    return {
        "min_ms": round(min(each), 2),
        "median_ms": round(statistics.median(each), 2),
        "max_ms": round(max(each), 2),
    }


def inputs(batch: int) -> Inputs:
    return Inputs(
        torch.rand(batch, 3, CROP, CROP),
        torch.rand(batch, 30, 2) * CROP,
        torch.ones(batch, 30),
        torch.full((batch,), 1000.0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DPMesh.from_config("embedded").eval()
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    one, eight = inputs(1), inputs(8)
    work: dict[str, Callable[[], object]] = {
        "one person": lambda: model(one),
        "eight people": lambda: model(eight),
        "matrix product": lambda: a @ b,
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    with torch.inference_mode():
        for run in range(options.runs + 3):
            for name, call in work.items():  # interleaved: the machine's moods meet all alike
                elapsed = seconds(call)
                if run >= 3:
                    times[name].append(elapsed)
    report = describe("embedded")
    speed = 2 * 1024**3 / min(times["matrix product"]) / 1e9
    result = {
        "parameters": report["total"]["parameters"],
        "gflop": round(report["total"]["gflop"], 3),
        "share": {name: round(part["share"], 3) for name, part in report["parts"].items()},
        "one_person": summary(times["one person"]),
        "each_of_eight": summary(times["eight people"], 8),
        "limit_ms": round(report["total"]["gflop"] / speed * 1e3, 2),
        "matrix_gflop_per_s": round(speed, 1),
    }
    report_result(result, options.json)


if __name__ == "__main__":
    main()
