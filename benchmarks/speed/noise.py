"""People a second whose input joints get PoseFix noise, on one core.

    python -m benchmarks.speed.noise [--json OUT.json]

"one by one" is what a training sample costs (mapping, neighbours, masks); "in batches" is the noise alone.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.machine import report_result
from dpmesh.data.annotation import Annotation
from dpmesh.data.augment import AugmentConfig, View
from dpmesh.data.input_keypoints import detect
from dpmesh.data.noise import posefix
from dpmesh.geometry.crop import Crop
from dpmesh.skeletons import JOINTS30

LIMIT = 5000


def rate(work: Callable[[int], object], calls: int, each: int) -> dict[str, float]:
    work(0)
    wall, cpu = time.perf_counter(), time.process_time()
    for k in range(1, calls + 1):
        work(k)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_cpu_second": round(calls * each / cpu), "per_wall_second": round(calls * each / wall)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    points, near = rng.uniform(20, 236, (2000, 17, 2)), rng.uniform(20, 236, (2000, 2, 17, 2))
    ones, area = np.ones((2000, 17)), np.full(2000, 2e4)
    joints, K = rng.uniform(20, 236, (30, 2)).astype(np.float32), np.diag([500.0, 500, 1])
    person = Annotation(
        "x", Path(), (256, 256), np.array([0.0, 0, 255, 255]), K, joints, np.ones(30, np.float32)
    )
    person = replace(
        person, neighbours=near[0].astype(np.float32), neighbour_flags=np.ones((2, 17), np.float32)
    )
    view, config = View(Crop(0, 0, 256), K, True), AugmentConfig()
    mine = view.swap(view.pixels(joints), JOINTS30)
    results = {
        name: {
            "in batches of 2000": rate(
                lambda _, p=published: posefix(rng, points, ones, area, near, np.ones((2000, 2, 17)), p),
                20,
                2000,
            ),
            "one by one": rate(
                lambda _, p=published: detect(
                    rng, person, view, mine, person.joints2d_valid, replace(config, as_published=p)
                ),
                5000,
                1,
            ),
        }
        for name, published in (("fixed", False), ("as published", True))
    }
    report = {
        "command": "python -m benchmarks.speed.noise",
        "limit": f"at least {LIMIT} people per second on one core", "results": results,
    }  # fmt: skip
    report_result(report, options.json)


if __name__ == "__main__":
    main()
