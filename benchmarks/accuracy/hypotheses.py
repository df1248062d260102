"""Whether one of several hypotheses is right where joints are hidden, on SynthOcc's levels 4 and 5.

    python -m benchmarks.accuracy.hypotheses [--keypoints detector] [--people 300] [--data CACHE] [--json OUT.json]

Errors of the 14 joints of MPJPE less the pelvis, mm, as means over people. single: the first hypothesis, which is the
prediction. best: of the N the one with the lowest error over the hidden joints; its errors over hidden and over visible
joints. Hidden: by anything, also by the person's own body.

* spread: root mean square distance of the hypotheses of a hidden joint from their mean, by weight; its rank correlation
  with the single answer's error, and both mean values.
* coverage: share of the hidden joints whose error lies in the ellipsoid that should hold 50 % or 90 % of the
  errors' distribution (a t distribution: inference/hypotheses.py).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import f as fisher

from benchmarks.accuracy.corrected_people import EVALUATED, PROTOCOLS, SyntheticPerson, people
from benchmarks.machine import report_result
from dpmesh import Predictor
from dpmesh.evaluate.synthocc import LEVELS as SYNTHOCC_LEVELS
from dpmesh.evaluate.synthocc import PERSONS
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.hypotheses import FREEDOM, distribution, with_hypotheses
from dpmesh.inference.pins import observed_people
from dpmesh.inference.posterior import Posterior
from dpmesh.metrics import rank_correlation
from dpmesh.skeletons import COCO17, JOINTS30, convert

LEVELS = (4, 5)
TARGETS = {"hidden_lower_percent": 15.0, "visible_worse_mm": 3.0}


class Measured(NamedTuple):
    """hidden, visible: mean errors (n,) of the hypotheses, mm; visible is NaN without a visible joint. spread, error,
    deviation: of each hidden joint: mm, mm, and the squared Mahalanobis distance."""

    hidden: np.ndarray
    visible: np.ndarray
    spread: np.ndarray
    error: np.ndarray
    deviation: np.ndarray


def measured(predictor: Predictor, person: SyntheticPerson, count: int) -> Measured:
    body = predictor.model.body
    result = with_hypotheses(person.scene, count, body)[0].hypotheses
    assert result is not None
    turns = np.concatenate([result.global_orient, result.body_pose], 1).reshape(count, 24, 3)
    meshes = posed(predictor, result.betas, turns)
    table = np.stack([person.errors(predictor, mesh) for mesh in meshes])
    shown = person.visible[EVALUATED]
    relative = result.joints3d - result.joints3d[:, :1]
    mean = (result.weight[:, None, None] * relative).sum(0)
    spread = np.sqrt((result.weight[:, None] * np.square(relative - mean).sum(-1)).sum(0))
    true = person.joints30 - person.joints30[:1]
    off = relative[0] - true
    hidden = [joint for joint in EVALUATED if not person.visible[joint]]
    covariance = joint_covariance(predictor, person)[hidden]
    deviation = np.einsum("ji,jik,jk->j", off[hidden], np.linalg.inv(covariance), off[hidden])
    return Measured(
        table[:, ~shown].mean(1),
        table[:, shown].mean(1) if shown.any() else np.full(count, np.nan),
        1000 * spread[hidden],
        1000 * np.linalg.norm(off[hidden], axis=1),
        deviation,
    )


@torch.no_grad()
def posed(predictor: Predictor, betas: np.ndarray, turns: np.ndarray) -> np.ndarray:
    return predictor.model.body(
        torch.from_numpy(betas), rotation_matrix(torch.from_numpy(turns))
    ).vertices.numpy()


def joint_covariance(predictor: Predictor, person: SyntheticPerson) -> np.ndarray:
    """(30, 3, 3) of the joints less the pelvis, square metres."""
    one = person.scene[0]
    keypoints = convert(one.keypoints2d, COCO17, JOINTS30)
    observed = observed_people([one], [keypoints], person.scene.K, torch.device("cpu"))
    posterior = Posterior(predictor.model.body)
    at = torch.zeros(1, 85)
    covariance = torch.linalg.inv(distribution(posterior, observed).double())[0]
    rows = posterior.joint_derivative(observed, at)[0].double()
    rows = rows - rows[:1]
    return (rows @ covariance @ rows.mT).numpy() + 1e-8 * np.eye(3)


def measure(keypoints: str, count: int, wanted: int, data: Path | None) -> dict[str, Any]:
    predictor = Predictor.from_pretrained()
    parts, began = list[Measured](), time.process_time()
    hard = [index for index in range(PERSONS) if index % SYNTHOCC_LEVELS in LEVELS]
    for person in people(predictor, keypoints, data, hard[:: max(1, len(hard) // wanted)][:wanted]):
        parts.append(measured(predictor, person, count))
        if len(parts) % 20 == 0:
            print(f"{len(parts)} of {wanted}", flush=True)
    hidden, visible = np.stack([p.hidden for p in parts]), np.stack([p.visible for p in parts])
    best = hidden.argmin(1)
    rows, shown = np.arange(len(parts)), ~np.isnan(visible[:, 0])
    spread, error, deviation = (
        np.concatenate([getattr(p, n) for p in parts]) for n in ("spread", "error", "deviation")
    )
    single, lowest = float(hidden[:, 0].mean()), float(hidden[rows, best].mean())
    return {
        "keypoints": keypoints,
        "levels": list(LEVELS),
        "people": len(parts),
        "hypotheses": count,
        "hidden": {
            "single": round(single, 1),
            "best": round(lowest, 1),
            "lower_percent": round(100 * (1 - lowest / single), 1),
            "mean_of_all": round(float(hidden.mean()), 1),
        },
        "visible": {
            "people": int(shown.sum()),
            "single": round(float(visible[shown, 0].mean()), 1),
            "best": round(float(visible[rows, best][shown].mean()), 1),
            "mean_of_all": round(float(visible[shown].mean()), 1),
        },
        "spread": {
            "mean": round(float(spread.mean()), 1),
            "mean_error": round(float(error.mean()), 1),
            "rank_correlation": round(rank_correlation(spread, error), 3),
        },
        "coverage": {
            str(p): round(float((deviation <= 3 * fisher.ppf(p, 3, FREEDOM)).mean()), 3) for p in (0.5, 0.9)
        },
        "cpu_seconds_per_person": round((time.process_time() - began) / len(parts), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keypoints", choices=sorted(PROTOCOLS), default="detector")
    parser.add_argument("--hypotheses", type=int, default=5)
    parser.add_argument("--people", type=int, default=300, help="of levels 4 and 5, spread evenly over them")
    parser.add_argument("--data", type=Path, help="a folder that keeps SynthOcc's images")
    parser.add_argument("--json", help="write the result there")
    options = parser.parse_args()
    found = measure(options.keypoints, options.hypotheses, options.people, options.data)
    report_result({"targets": TARGETS, **found}, options.json)


if __name__ == "__main__":
    main()
