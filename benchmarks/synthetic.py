"""How fast training data is made, on one core: python benchmarks/synthetic.py [--count 300] [--json OUT.json]

Figures are samples (or people, or images) per second of processor time, which depends on what else the
machine is doing less than the clock on the wall does; both are written down.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np
from machine import commit, machine

from dpmesh.body.files import free_body
from dpmesh.data.noise import posefix
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.render.rasterizer import rasterize


def rate(work: Callable[[int], object], calls: int, each: int = 1) -> dict[str, float]:
    """Units per second, after a first call that compiles; `each` units a call."""
    work(0)
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(1, calls + 1):
        work(index)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_cpu_second": round(calls * each / cpu, 1), "per_wall_second": round(calls * each / wall, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--json")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    body = free_body()
    people = SyntheticPeople(0, PoseBank.load("train"), body)

    vertices = body.v_template * np.float32([1, -1, -1]) + np.float32([0, 0, 3])
    faces, K = body.faces.astype(np.int32), np.array([[400.0, 0, 128], [0, 400, 128], [0, 0, 1]])
    rng = np.random.default_rng(0)
    joints, ones = rng.uniform(20, 236, (2000, 17, 2)).astype(np.float32), np.ones((2000, 17), np.float32)
    area, near = np.full(2000, 2e4, np.float32), joints[:, None] + np.float32(40)
    results = {
        "rendered samples, 256²": rate(people.sample, options.count),
        "keypoints alone (batches of 1000)": rate(lambda _: people.keypoints_only(rng, 1000), 10, 1000),
        f"rasterizer, {len(vertices)} vertices, images": rate(
            lambda _: rasterize(vertices, faces, K, (256, 256)), 200
        ),
        "PoseFix noise, people": rate(
            lambda _: posefix(rng, joints, ones, area, near, ones[:, None]), 20, 2000
        ),
    }
    about = {
        "command": f"python benchmarks/synthetic.py --count {options.count}",
        "commit": commit(),
        "machine": machine(),
        "results": results,
    }
    for name, figures in results.items():
        print(f"{name:45s} {figures['per_cpu_second']:>10} /cpu s {figures['per_wall_second']:>10} /s")
    print(about["machine"], about["commit"])
    if options.json:
        with open(options.json, "w") as file:
            json.dump(about, file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()
