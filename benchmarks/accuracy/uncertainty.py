"""How well joint_sigma predicts the error, on SynthOcc.

    python -m benchmarks.accuracy.uncertainty [--weights DIR] [--json OUT.json]

Errors are distances of the 30 joints (less the pelvis, which itself does not count) from the truth, metres.

* rank: Spearman's correlation of sigma and error, over all joints of all persons; and within each joint, over persons.
  For comparison: the correlation of each joint's mean error, which does not depend on the person.
* calibration: expected calibration error, the mean over p = 5 %, 10 %, ..., 95 % of |coverage - p|, where coverage is
  the share of the joints whose error lies in the ball that should hold them with probability p (dpmesh/metrics.py);
  and the root mean square of the error along an axis over sigma, 1 where sigma is the standard deviation.
* hiding: a grey box covers one visible joint of each person, and the keypoints under the box are removed
  (evaluate/robustness/corruptions.py): how often that joint's sigma rises, for two sizes of the box.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import commit, machine
from dpmesh.assets import sha256, weights_folder
from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import ConfigError
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.registry import open_source
from dpmesh.evaluate.results import inputs_of
from dpmesh.evaluate.robustness.corruptions import cover
from dpmesh.geometry import CROP
from dpmesh.metrics import NOMINAL, calibration_error, coverage, rank_correlation
from dpmesh.model import DPMesh
from dpmesh.skeletons import JOINTS30

TARGETS = {"rank": 0.5, "hiding": 0.9}
SIDES = (0.15, 0.3)
"""Sides of the grey box, as shares of the crop's."""
BATCH = 16


def predict(model: DPMesh, persons: Persons) -> tuple[np.ndarray, np.ndarray]:
    """(b, 30, 3) joints less the pelvis, and (b, 30) sigma, metres."""
    with torch.inference_mode():
        prediction = model(inputs_of(persons, model.camera, torch.device("cpu")))
    assert prediction.joint_sigma is not None  # main refuses such weights
    joints = prediction.joints3d - prediction.joints3d[:, :1]
    return joints.double().numpy(), prediction.joint_sigma.double().numpy()


def truth_of(model: DPMesh, persons: Persons) -> np.ndarray:
    """The 30 joints of the true mesh, less the pelvis."""
    assert persons.truth_vertices is not None
    joints = model.body.regress(torch.from_numpy(persons.truth_vertices), "joints30")
    return (joints - joints[:, :1]).double().numpy()


def chosen_joints(persons: Persons, indices: list[int]) -> np.ndarray:
    """One visible joint of each person, drawn with the person's number as seed; -1 if only the pelvis is visible."""
    chosen = np.full(len(indices), -1)
    for row, index in enumerate(indices):
        visible = np.flatnonzero(persons.visible[row] > 0)
        visible = visible[visible > 0]
        if len(visible):
            chosen[row] = np.random.default_rng([index, 31]).choice(visible)
    return chosen


def boxes_about(persons: Persons, joints: np.ndarray, side: float) -> np.ndarray:
    centres = persons.joints[np.arange(len(joints)), joints]
    half = side * CROP / 2
    return np.concatenate([centres - half, centres + half], 1)


def measure(model: DPMesh, data: Path | None, count: int) -> dict[str, Any]:
    source = open_source("synthocc", data)
    count = min(count, len(source))
    errors, sigmas, rises = [], [], {side: list[float]() for side in SIDES}
    for start in range(0, count, BATCH):
        indices = list(range(start, min(start + BATCH, count)))
        persons = source.persons(indices)
        joints, sigma = predict(model, persons)
        errors.append(np.linalg.norm(joints - truth_of(model, persons), axis=-1))
        sigmas.append(sigma)
        hidden = chosen_joints(persons, indices)
        at = np.flatnonzero(hidden >= 0)
        for side in SIDES:
            _, after = predict(model, cover(persons, boxes_about(persons, hidden, side)))
            rises[side] += list(np.log(after[at, hidden[at]] / sigma[at, hidden[at]]))
        print(f"{indices[-1] + 1} of {count} persons", flush=True)
    return {"persons": count, **figures(np.concatenate(errors), np.concatenate(sigmas), rises)}


def figures(error: np.ndarray, sigma: np.ndarray, rises: dict[float, list[float]]) -> dict[str, Any]:
    error, sigma = error[:, 1:], sigma[:, 1:]  # of the pelvis both are 0
    within = [rank_correlation(sigma[:, j], error[:, j]) for j in range(error.shape[1])]
    each = [calibration_error(sigma[:, j], error[:, j]) for j in range(error.shape[1])]
    return {
        "rank": {
            "all": rank_correlation(sigma, error),
            "within_joints_mean": float(np.mean(within)),
            "by_the_joint_alone": rank_correlation(np.broadcast_to(error.mean(0), error.shape), error),
        },
        "calibration": {
            "expected_calibration_error": calibration_error(sigma, error),
            "worst_joint": max(each),
            "error_over_sigma_rms": float(np.sqrt(np.mean((error / sigma) ** 2) / 3)),
            "nominal": NOMINAL.round(2).tolist(),
            "coverage": coverage(sigma, error).round(4).tolist(),
        },
        "hiding": [
            {
                "side": side,
                "persons": len(logs),
                "rises": float((np.array(logs) > 0).mean()),
                "median_factor": float(np.exp(np.median(logs))),
            }
            for side, logs in rises.items()
        ],
        "joints": [
            {
                "joint": name,
                "mean_error_mm": round(1000 * float(error[:, j].mean()), 1),
                "mean_sigma_mm": round(1000 * float(sigma[:, j].mean()), 1),
                "rank": round(within[j], 3),
                "expected_calibration_error": round(each[j], 4),
            }
            for j, name in enumerate(JOINTS30.joints[1:])
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--data", type=Path, help="a folder that keeps SynthOcc's images")
    parser.add_argument(
        "--people",
        type=int,
        default=1200,
        help="number of persons, from the first (balanced for every number)",
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = DPMesh.from_pretrained(options.weights)
    if not model.predicts_sigma:
        raise ConfigError(
            "these weights do not predict joint_sigma",
            where=options.weights,
            fix="See docs/guide/training.md.",
        )
    folder = weights_folder(options.weights)
    report = {
        "command": "python -m benchmarks.accuracy.uncertainty",
        "commit": commit(),
        "machine": machine(),
        "weights": {"name": folder.name, "sha256": sha256(folder / WEIGHTS)},
        "targets": TARGETS,
        **measure(model, options.data, options.people),
    }
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
