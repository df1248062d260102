"""Speed of the synthetic training data.

    python -m benchmarks.speed.synthetic [--people 300] [--workers N ...] [--json OUT.json]

Figures are samples (or people, or images) per second of processor time, which depends less on the load of the machine
than wall time does; both are reported. --workers N adds the rate of N worker processes of a DataLoader together, as in
training: batches of 16, wall time, after the first batch of each. Samples are independent, so N free cores give about
N times as many; the target is 1,500 a second on 16 cores. --statistics N instead measures how much is hidden in N
rendered samples and in ten times as many keypoint-only ones.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import commit, machine
from dpmesh.body.files import population_body
from dpmesh.data.noise import posefix
from dpmesh.data.poses import PoseBank, SampledPoses
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


class Batches(Dataset[dict[str, object]]):
    """Item k is the k-th batch of 16."""

    def __init__(self) -> None:
        self._people: SyntheticPeople | None = None

    def __getitem__(self, index: int) -> dict[str, object]:
        if self._people is None:  # in the worker
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
            self._people = SyntheticPeople(0, SampledPoses(PoseBank.load("train")), population_body())
        return {k: v for k, v in self._people.batch(16 * index, 16).items() if k != "record_id"}


def together(workers: int, count: int) -> dict[str, float]:
    """Samples per second of the clock that `workers` processes make."""
    batches = count // 16 + 4 * workers
    loader = DataLoader(
        Batches(), batch_size=None, sampler=range(batches), num_workers=workers, prefetch_factor=4
    )
    wall, done = 0.0, -4 * workers  # what was made ahead during the start does not count
    for _ in loader:
        done += 1
        if not done:
            wall = time.perf_counter()
    rate = round(16 * done / (time.perf_counter() - wall), 1)
    return {"per_wall_second": rate, "load": round(os.getloadavg()[0], 1)}


MAIN = [0, 1, 2, 4, 5, 7, 8, 12, 16, 17, 18, 19, 20, 21, 24, 27, 28]
"""Of the 30 joints: COCO's without the eyes, pelvis and neck, as in SynthOcc."""


def statistics(people: SyntheticPeople, count: int) -> dict[str, dict[str, float]]:
    """Shares of the main joints outside the crop, and hidden inside it; how many of them are in sight."""
    streams = {
        "rendered": people.batch(0, count),
        "keypoints alone": people.keypoints_only(np.random.default_rng(0), 10 * count),
    }
    result: dict[str, dict[str, float]] = {}
    for name, batch in streams.items():
        inside = ((batch["joints2d"] >= 0) & (batch["joints2d"] <= 255)).all(-1)[:, MAIN]
        visible = batch["joint_visible"][:, MAIN] > 0
        shares = {
            "outside the crop": 1 - inside.mean(),
            "hidden inside": 1 - visible[inside].mean(),
            "in sight": visible.sum(1).mean(),
            "people with at most 4 in sight": (visible.sum(1) <= 4).mean(),
            "with at most 2": (visible.sum(1) <= 2).mean(),
            "given": batch["visible"].sum(1).mean(),
            "focal 5 %": np.quantile(batch["focal"], 0.05),
            "focal 95 %": np.quantile(batch["focal"], 0.95),
        }
        result[name] = {key: round(float(value), 3) for key, value in shares.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[], help="numbers of worker processes to try"
    )
    parser.add_argument("--statistics", type=int, metavar="N", help="what is hidden in N samples")
    parser.add_argument("--json")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    body = population_body()
    poses = SampledPoses(PoseBank.load("train"))
    people = SyntheticPeople(0, poses, body)
    print(f"a pool of {len(poses.pool)} poses, decoded once")
    if options.statistics:
        print(json.dumps(statistics(people, options.statistics), indent=1))
        return

    vertices = body.v_template * np.float32([1, -1, -1]) + np.float32([0, 0, 3])
    faces, K = body.faces.astype(np.int32), np.array([[400.0, 0, 128], [0, 400, 128], [0, 0, 1]])
    rng = np.random.default_rng(0)
    joints, ones = rng.uniform(20, 236, (2000, 17, 2)).astype(np.float32), np.ones((2000, 17), np.float32)
    area, near = np.full(2000, 2e4, np.float32), joints[:, None] + np.float32(40)
    results = {
        "rendered samples, 256²": rate(people.sample, options.people),
        "keypoints alone (batches of 1000)": rate(lambda _: people.keypoints_only(rng, 1000), 10, 1000),
        f"rasterizer, {len(vertices)} vertices, images": rate(
            lambda _: rasterize(vertices, faces, K, (256, 256)), 200
        ),
        "PoseFix noise, people": rate(
            lambda _: posefix(rng, joints, ones, area, near, ones[:, None]), 20, 2000
        ),
    }
    results |= {f"{n} workers, rendered samples": together(n, options.people) for n in options.workers}
    about = {
        "command": f"python -m benchmarks.speed.synthetic --people {options.people}",
        "commit": commit(),
        "machine": machine(),
        "results": results,
    }
    for name, figures in results.items():
        print(f"{name:45s}", ", ".join(f"{key} {value}" for key, value in figures.items()))
    print(about["machine"], about["commit"])
    if options.json:
        with open(options.json, "w") as file:
            json.dump(about, file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()
