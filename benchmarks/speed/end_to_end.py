"""Time of a whole prediction, from an image file to the result folder.

    python -m benchmarks.speed.end_to_end [--runs 5] [--threads 1] [--fast] [--json OUT.json]

The clock starts with a path and stops when the result folder is there: reading, detection, model, overlay, side view,
GLB, OBJ, npz, JSON; after start-up (models loaded, one image done). The images of examples/ with two people are run
with the highest-scoring person alone and with both, in turn; the difference is the cost of another person. CPU seconds
are reported as well as wall time: on a shared machine only they repeat.
"""

import os
import sys

if "--threads" not in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import commit, machine
from dpmesh.inference import mesh_files, preprocess, scene_drawing, scene_io
from dpmesh.inference.detections import Detection
from dpmesh.inference.detector import FAST_SCORE, FAST_SIDE, Detector
from dpmesh.inference.predictor import Predictor

EXAMPLES = Path(__file__).parents[2] / "examples"
ALONE, TOGETHER = ("behind_tree", "balance"), ("two_people", "park", "composite_hidden")
LIMITS = {"one_person_s": 1.0, "each_further_s": 0.35}


class BestBoxes(Detector):
    """Detects keypoints only in the `limit` highest-scoring boxes, so that other people cost nothing."""

    limit: int | None = None

    def boxes(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = super().boxes(image)
        return boxes[: self.limit], scores[: self.limit]

    def poses(
        self, image: np.ndarray, least: float = FAST_SCORE, side: int = FAST_SIDE
    ) -> tuple[Detection, ...]:
        """No people, after the usual time: people without a box would be the others. With `fast` all."""
        poses = super().poses(image, least, side)
        return poses if self.fast else poses[:0]


class Clock:
    """Seconds spent inside the functions that it wraps."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - start

        return timed


def watched(predictor: Predictor, detector: BestBoxes, clock: Clock) -> None:
    """Put the clock around each part; they do not lie in one another."""
    preprocess.read_image = clock.wrap("read", preprocess.read_image)
    predictor.detector = clock.wrap("detect", detector)  # type: ignore[assignment]
    predictor._forward = clock.wrap("model", predictor._forward)
    scene_drawing.draw_overlay = clock.wrap("overlay", scene_drawing.draw_overlay)
    scene_drawing.draw_lineup = clock.wrap("side view", scene_drawing.draw_lineup)
    scene_io.png = clock.wrap("PNG", scene_io.png)
    for name, module, function in (
        ("glb", mesh_files, "glb_of"),
        ("obj", mesh_files, "obj_files"),
        ("npz", scene_io, "_npz"),
    ):
        setattr(module, function, clock.wrap(name, getattr(module, function)))


def once(
    predictor: Predictor, detector: BestBoxes, path: Path, people: int, out: Path, clock: Clock
) -> dict[str, float]:
    """Wall and CPU seconds, and CPU seconds of each part."""
    clock.spent = {}
    detector.limit = 1 if people == 1 else None
    wall, cpu = time.perf_counter(), time.process_time()
    scene = predictor(path, max_people=people)
    scene.save(out, overwrite=True)
    total = time.process_time() - cpu
    assert len(scene.people) == people, f"{path.name}: {len(scene.people)} people, not {people}"
    rest = {"the rest": total - sum(clock.spent.values())}
    return {"wall": time.perf_counter() - wall, "cpu": total, **clock.spent, **rest}


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fast", action="store_true", help="as dpmesh predict --fast")
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    start = time.perf_counter()
    predictor = Predictor.from_pretrained(options.weights, "cpu", options.threads, fast=options.fast)
    clock = Clock()
    detector = BestBoxes(options.threads, options.fast)
    watched(predictor, detector, clock)
    one: list[dict[str, float]] = []
    further: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        once(predictor, detector, EXAMPLES / "park.jpg", 2, out, clock)
        ready = time.perf_counter() - start
        for _ in range(options.runs):
            one += [once(predictor, detector, EXAMPLES / f"{name}.jpg", 1, out, clock) for name in ALONE]
            for name in TOGETHER:
                alone, both = (
                    once(predictor, detector, EXAMPLES / f"{name}.jpg", n, out, clock) for n in (1, 2)
                )
                one.append(alone)
                further.append({part: both[part] - alone[part] for part in both})
    first, next_one = medians(one), medians(further)
    result = {
        "command": f"python -m benchmarks.speed.end_to_end --runs {options.runs} --threads {options.threads}"
        + " --fast" * options.fast,
        "commit": commit(),
        "machine": machine(),
        "threads": options.threads,
        "start_up_s": round(ready, 2),
        "limits": LIMITS,
        "one_person_s": first["wall"],
        "one_person_cpu_s": first["cpu"],
        "each_further_s": next_one["wall"],
        "each_further_cpu_s": next_one["cpu"],
        "one_person_parts_cpu_s": {k: v for k, v in first.items() if k not in ("wall", "cpu")},
        "each_further_parts_cpu_s": {k: v for k, v in next_one.items() if k not in ("wall", "cpu")},
        "wall_slowest_s": round(max(row["wall"] for row in one), 3),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
