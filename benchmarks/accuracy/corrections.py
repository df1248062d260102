"""What corrections by hand do to people with large errors, on SynthOcc.

    python -m benchmarks.accuracy.corrections [--keypoints detector] [--wrong 60] [--data CACHE] [--json OUT.json]

The first people of the set whose MPJPE is over 150 mm, as `dpmesh predict` has them. Of each, the visible joint that is
farthest from its true place in the image is moved there; then the one that is farthest in the new result; and so on, to
five; the noise model's keypoints count as supplied by the user. Visible: hidden by nothing, also not by their own
body. Where no visible joint is left, nothing is moved.
MPJPE over 14 joints; CPU time of each `Predictor.correct`, one thread.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.corrected_people import EVALUATED, PROTOCOLS, SyntheticPerson, people
from benchmarks.machine import report_result
from dpmesh import Predictor
from dpmesh.evaluate.synthocc import PERSONS
from dpmesh.inference.corrections import Correction
from dpmesh.skeletons import JOINTS30

WRONG, JOINTS, AT_LEAST = 150.0, 5, 3
TARGETS = {"1": 15.0, "3": 30.0}


def curve(predictor: Predictor, person: SyntheticPerson) -> tuple[list[float], list[float]]:
    """MPJPE with 0 to JOINTS corrected joints, and the CPU seconds of each correction."""
    result, steps = person.scene, list[Correction]()
    errors, seconds = [float(person.errors(predictor, result[0].vertices).mean())], list[float]()
    for _ in range(JOINTS):
        off = np.linalg.norm(result[0].joints2d - person.pixels, axis=1)
        moved = {step.joint for step in steps}
        left = [j for j in EVALUATED if person.visible[j] and JOINTS30.joints[j] not in moved]
        if left:
            worst = max(left, key=lambda joint: off[joint])
            x, y = person.pixels[worst]
            steps.append(Correction("move", 0, JOINTS30.joints[worst], pixel=(float(x), float(y))))
            began = time.process_time()
            result = predictor.correct(person.scene, steps)
            seconds.append(time.process_time() - began)
        errors.append(float(person.errors(predictor, result[0].vertices).mean()))
    return errors, seconds


def figures(table: np.ndarray) -> dict[str, Any]:
    """Of MPJPE (people, 0 to JOINTS corrected joints)."""
    mean = table.mean(0)
    return {
        str(n): {
            "mpjpe": round(float(mean[n]), 1),
            "lower_percent": round(100 * float(1 - mean[n] / mean[0]), 1),
            "improved_share": round(float((table[:, n] < table[:, 0]).mean()), 3),
            "median": round(float(np.median(table[:, n])), 1),
        }
        for n in range(JOINTS + 1)
    }


def measure(keypoints: str, wrong: int, data: Path | None) -> dict[str, Any]:
    predictor = Predictor.from_pretrained()
    curves, seconds, levels, visible, checked = (
        list[list[float]](),
        list[float](),
        list[int](),
        list[int](),
        0,
    )
    for person in people(predictor, keypoints, data, range(PERSONS)):
        checked += 1
        if keypoints != "detector":  # the detector is not asked again
            supplied = {**person.scene.options, "keypoints": keypoints}
            person = person._replace(scene=replace(person.scene, options=supplied))
        if person.errors(predictor, person.scene[0].vertices).mean() <= WRONG:
            continue
        errors, took = curve(predictor, person)
        curves.append(errors)
        seconds += took
        levels.append(person.level)
        visible.append(int(person.visible[EVALUATED].sum()))
        print(f"{len(curves)} of {wrong}: {np.round(np.mean(curves, 0), 1)}", flush=True)
        if len(curves) == wrong:
            break
    table = np.array(curves)
    enough = np.array(visible) >= AT_LEAST
    return {
        "keypoints": keypoints,
        "people": {"predicted": checked, "wrong": len(table), "by_level": np.bincount(levels).tolist()},
        "corrected_joints": figures(table),
        f"people_with_{AT_LEAST}_visible_joints": {"people": int(enough.sum()), **figures(table[enough])},
        "cpu_seconds": {
            "median": round(float(np.median(seconds)), 3),
            "highest_of_20": round(float(np.quantile(seconds, 0.95)), 3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keypoints", choices=sorted(PROTOCOLS), default="detector")
    parser.add_argument("--wrong", type=int, default=60, help="people with an error over 150 mm")
    parser.add_argument("--data", type=Path, help="a folder that keeps SynthOcc's images")
    parser.add_argument("--json", help="write the result there")
    options = parser.parse_args()
    result = {"targets_percent": TARGETS, **measure(options.keypoints, options.wrong, options.data)}
    report_result(result, options.json)


if __name__ == "__main__":
    main()
