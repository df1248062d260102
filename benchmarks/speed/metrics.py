"""Cost of an evaluation's metrics, without inference.

    python -m benchmarks.speed.metrics [--people 35515] [--json FILE]

For as many persons as 3DPW's test set has, on one core: joints of both meshes by the regressor, MPJPE, PA-MPJPE, MPVE
per person (evaluate/results.py), then all figures (evaluate/report.py). Meshes are random and have SMPL's 6,890
vertices; a batch of them is made before the clock starts and used again, as inference would hand it over. Posing the
true bodies is timed separately, on a tenth of the persons: it is the body layer's work, not the metrics'.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time

import numpy as np
import torch

from benchmarks.machine import report_result
from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.registry import entry
from dpmesh.evaluate.report import figures
from dpmesh.evaluate.results import Predicted, concatenate, score

LIMIT_S = 20.0
VERTICES, BATCH, PER_SEQUENCE = 6890, 32, 1480


def made(rng: np.random.Generator) -> tuple[Persons, Predicted, np.ndarray]:
    """A batch of persons and predictions, and a regressor of seven vertices a joint."""
    rows = np.zeros((17, VERTICES))
    for row in rows:
        row[rng.choice(VERTICES, 7, replace=False)] = 1 / 7
    true = rng.normal(0, 0.4, (BATCH, VERTICES, 3)).astype(np.float32)
    predicted = true + rng.normal(0, 0.05, true.shape).astype(np.float32)
    zeros = np.zeros(BATCH, np.float32)
    persons = Persons(
        ids=("",) * BATCH, sequences=("",) * BATCH, crops=np.zeros((BATCH, 256, 256, 3), np.uint8),
        joints=np.zeros((BATCH, 30, 2), np.float32), visible=np.zeros((BATCH, 30), np.float32), focal_crop=zeros,
        focal_image=zeros, turn=np.tile(np.eye(3), (BATCH, 1, 1)), truth_joints=rows @ true.astype(np.float64),
        measured=np.ones((BATCH, 17)), truth_vertices=true, truth_pelvis=true[:, 0].astype(np.float64),
        joint_visible=rng.integers(0, 2, (BATCH, 17)).astype(float),
    )  # fmt: skip
    return (
        persons,
        Predicted(rows @ predicted.astype(np.float64), predicted, predicted[:, 0].astype(np.float64)),
        rows,
    )


def measured(count: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    persons, prediction, rows = made(rng)
    regressor = torch.from_numpy(rows).float()
    measure = entry("3dpw").protocol.measure
    parts, seconds = [], {"joints of both meshes": 0.0, "errors per person": 0.0}
    for start in range(0, count, BATCH):
        n = min(BATCH, count - start)
        names = tuple(f"s{(start + i) // PER_SEQUENCE:02d}/{start + i:05d}/0" for i in range(n))
        cut = {k: v[:n] for k, v in vars(persons).items() if isinstance(v, np.ndarray)}
        own = Persons(ids=names, sequences=tuple(name[:3] for name in names), **cut)
        begun = time.perf_counter()
        for mesh in (own.truth_vertices, prediction.vertices[:n]):
            (regressor @ torch.from_numpy(mesh)).double().numpy()
        middle = time.perf_counter()
        part = Predicted(prediction.joints[:n], prediction.vertices[:n], prediction.pelvis[:n])
        parts.append(score(measure, range(start, start + n), own, part))
        seconds["joints of both meshes"] += middle - begun
        seconds["errors per person"] += time.perf_counter() - middle
    begun = time.perf_counter()
    figures(measure, concatenate(parts))
    seconds["all figures"] = time.perf_counter() - begun
    return seconds


@torch.inference_mode()
def posing(count: int) -> float:
    body = BodyModel(free_body())
    turns = torch.eye(3).expand(BATCH, 24, 3, 3).contiguous()
    begun = time.perf_counter()
    for _ in range(count // BATCH):
        body(torch.zeros(BATCH, 10), turns)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=35_515)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wall, cpu = time.perf_counter(), time.process_time()
    seconds = measured(options.people)
    total = time.process_time() - cpu
    result = {
        "persons": options.people,
        "vertices": VERTICES,
        "wall seconds": {name: round(value, 2) for name, value in seconds.items()},
        "wall seconds in all, data made included": round(time.perf_counter() - wall, 2),
        "processor seconds in all, data made included": round(total, 2),
        "limit, seconds": LIMIT_S,
        "within the limit": total <= LIMIT_S,
        "beside: wall seconds to pose a tenth of the true bodies": round(posing(options.people // 10), 2),
    }
    report_result(result, options.json)


if __name__ == "__main__":
    main()
