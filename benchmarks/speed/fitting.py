"""Cost of refining the body with the keypoints, and of fitting it to them without a network.

    python -m benchmarks.speed.fitting [--people 32] [--batch 16] [--data CACHE] [--json FILE]

Processor seconds a person on one thread, for the first persons of SynthOcc (--data keeps its images), of the methods of
`dpmesh eval run --method`: the network, flip (both passes), refine (both passes, then refined, as `dpmesh predict`
does) and fit. Refining alone is the difference of refine and flip. People come in batches as in eval, and one at a time
as in an image of one person. The methods take turns on each batch, so that the load of the machine is the same for all.
Rendering and scoring are not counted.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from pathlib import Path

import torch

from benchmarks.machine import report_result
from dpmesh.evaluate.baselines import Method, method_of
from dpmesh.evaluate.registry import open_source
from dpmesh.evaluate.results import inputs_of
from dpmesh.model import DPMesh

LIMIT_S = 0.12
"""Seconds a person of refining alone."""
TIMED: tuple[Method, ...] = ("network", "flip", "refine", "fit")


def measured(model: DPMesh, persons: int, batch: int, data: Path | None) -> dict[str, list[float]]:
    """Processor seconds a person, for each method one number a batch; a first batch, which warms up, is not kept."""
    source = open_source("synthocc", data)
    methods = {name: method_of(name, model) for name in TIMED}
    seconds: dict[str, list[float]] = {name: [] for name in TIMED}
    for start in [0, *range(0, persons, batch)]:
        people = source.persons(range(start, min(start + batch, persons)))
        inputs = inputs_of(people, model.camera, torch.device("cpu"))
        for name, method in methods.items():
            begun = time.process_time()
            with torch.inference_mode():  # as eval does
                method(inputs)
            seconds[name].append((time.process_time() - begun) / len(people.ids))
    return {name: values[1:] for name, values in seconds.items()}


def summary(seconds: list[float]) -> dict[str, float]:
    return {"mean": round(sum(seconds) / len(seconds), 3), "most": round(max(seconds), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--alone", type=int, default=4, help="persons that are measured one at a time as well"
    )
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = DPMesh.from_pretrained(options.weights)
    batched = measured(model, options.people, options.batch, options.data)
    alone = measured(model, options.alone, 1, options.data)
    costs = {
        name: round(summary(part["refine"])["mean"] - summary(part["flip"])["mean"], 3)
        for name, part in ((f"batches of {options.batch}", batched), ("one at a time", alone))
    }
    result = {
        "weights": options.weights,
        "persons": options.people,
        f"processor seconds a person, batches of {options.batch}": {
            n: summary(s) for n, s in batched.items()
        },
        "persons one at a time": options.alone,
        "processor seconds a person, one at a time": {n: summary(s) for n, s in alone.items()},
        "processor seconds a person, refining alone": costs,
        "limit, seconds a person": LIMIT_S,
        "within the limit": max(costs.values()) <= LIMIT_S,
    }
    report_result(result, options.json)


if __name__ == "__main__":
    main()
