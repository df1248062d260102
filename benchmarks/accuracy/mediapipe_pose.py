"""Compares MediaPipe Pose's world landmarks with the other methods, on SynthOcc's images and true boxes.

MediaPipe needs numpy 1, and therefore an environment of its own. Its landmarks do not depend on the model's weights and
are kept (benchmarks/results/mediapipe.npz); new weights need only the last command, which tools/figures/results.py
runs:

    python -m benchmarks.accuracy.mediapipe_pose export --work WORK --people 480 [--cache DIR]
    python -m venv MP && MP/bin/pip install mediapipe==0.10.21
    MP/bin/python -m benchmarks.accuracy.mediapipe_pose ask --work WORK
    python -m benchmarks.accuracy.mediapipe_pose score [--weights W] [--cache DIR] [--people N] [--json FILE]

0.10.21 is the last version whose wheel holds a pose model ("full", model_complexity 1; "heavy" would be downloaded).
MediaPipe's input is the square window of 1.25 times the true box, at 256 px, so that it need not detect the person. It
runs in static mode. Of its 33 landmarks, those that Human3.6M's regressor has too are compared (shoulders, elbows,
wrists, hips, knees, ankles), relative to the middle of the hips. It estimates metric scale itself, so the figures are
"MPJPE" with that scale, "scaled" by one factor (the median over persons of the ratio of sizes), and PA-MPJPE. A person
that it does not detect is a failure. The other methods' figures are over the same joints, for all persons and for
those that MediaPipe detects.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dpmesh.model import DPMesh

NAMES = [f"{side}_{part}" for side in "LR" for part in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")]
LANDMARKS = [first + side for side in (0, 1) for first in (11, 13, 15, 23, 25, 27)]
"""Of NAMES, in MediaPipe's 33 (left odd, right even)."""
LANDMARKS_FILE = Path(__file__).parents[1] / "results" / "mediapipe.npz"
"""MediaPipe's joints (n, 12, 3) of the first n persons, metres, NaN if not detected; version; CPU seconds a person."""
PROTOCOLS = ("synthocc", "synthocc@detector")


def export(work: Path, limit: int, cache: Path | None) -> None:
    import cv2

    from dpmesh.evaluate.registry import open_source
    from dpmesh.evaluate.synthocc import SynthOcc
    from dpmesh.geometry.crop import Crop

    source = open_source("synthocc", cache)
    assert isinstance(source, SynthOcc)
    work.mkdir(parents=True, exist_ok=True)
    for index in range(limit):
        persons, one = source.persons([index]), source.label(index)
        window = Crop.around(one.box.astype(np.float32), 1.25).warp(persons.crops[0])
        cv2.imwrite(str(work / f"{index:05d}.png"), window[..., ::-1])
    print(f"{limit} images in {work}")


def ask(work: Path) -> None:
    import time

    import cv2
    import mediapipe

    pose = mediapipe.solutions.pose.Pose(static_image_mode=True, model_complexity=1)
    paths = sorted(work.glob("[0-9]*.png"))
    joints = np.full((len(paths), 12, 3), np.nan, np.float32)
    start = time.process_time()
    for row, path in enumerate(paths):
        image = cv2.imread(str(path))
        landmarks = pose.process(np.ascontiguousarray(image[..., ::-1])).pose_world_landmarks
        if landmarks is not None:
            joints[row] = [
                [landmarks.landmark[i].x, landmarks.landmark[i].y, landmarks.landmark[i].z] for i in LANDMARKS
            ]
    seconds = (time.process_time() - start) / len(paths)
    np.savez_compressed(LANDMARKS_FILE, joints=joints, version=mediapipe.__version__, seconds=seconds)
    print(f"detected {np.isfinite(joints[:, 0, 0]).sum()} of {len(paths)}; {seconds:.3f} CPU s each")


def errors(got: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Per person, mm, relative to the middle of the hips."""
    from dpmesh.metrics import mpjpe, pa_mpjpe

    hips = [NAMES.index("L_Hip"), NAMES.index("R_Hip")]
    got, true = (one - one[:, hips].mean(1, keepdims=True) for one in (got, true))
    size = np.linalg.norm(true, axis=-1).sum(1) / np.linalg.norm(got, axis=-1).sum(1)
    factor = float(np.nanmedian(size))
    return {"MPJPE": mpjpe(got, true), "scaled": mpjpe(got * factor, true), "PA-MPJPE": pa_mpjpe(got, true)}


def ours(
    model: "DPMesh", protocol: str, count: int, cache: Path | None
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Joints of every method on the first persons; the true joints; the persons' sequences ("SUBSET LEVEL")."""
    import torch

    from dpmesh.evaluate.baselines import METHODS, method_of
    from dpmesh.evaluate.registry import open_set
    from dpmesh.evaluate.results import inputs_of, predicted
    from dpmesh.skeletons import H36M17

    (about, source), rows = open_set(protocol, cache), [H36M17.index(name) for name in NAMES]
    methods = {name: method_of(name, model) for name in METHODS}
    predicted_joints: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    truths, sequences = [], []
    for start in range(0, count, 16):
        persons = source.persons(list(range(start, min(start + 16, count))))
        truths.append(persons.truth_joints[:, rows])
        sequences += persons.sequences
        with torch.inference_mode():
            inputs = inputs_of(persons, model.camera, torch.device("cpu"))
            for name, method in methods.items():
                prediction = predicted(about.measure, model, method(inputs), persons)
                predicted_joints[name].append(prediction.joints[:, rows])
    return (
        {n: np.concatenate(joints) for n, joints in predicted_joints.items()},
        np.concatenate(truths),
        sequences,
    )


def score(limit: int, weights: str, cache: Path | None, out: str | None) -> None:
    import torch

    from benchmarks.machine import report_result
    from dpmesh.assets import sha256, weights_folder
    from dpmesh.checkpoint import WEIGHTS
    from dpmesh.model import DPMesh

    torch.set_num_threads(1)
    peer, model = np.load(LANDMARKS_FILE), DPMesh.from_pretrained(weights)
    landmarks = peer["joints"][:limit].astype(np.float64)
    detected = np.isfinite(landmarks[:, 0, 0])
    truth, levels = np.zeros(0), np.zeros(0)

    def row(joints: np.ndarray) -> dict[str, object]:
        one = errors(joints, truth)
        return {
            "failures": int((~np.isfinite(joints[:, 0, 0])).sum()),
            **{m: round(float(np.nanmean(v)), 1) for m, v in one.items()},
            "where MediaPipe answers": {m: round(float(np.nanmean(v[detected])), 1) for m, v in one.items()},
            "PA-MPJPE by level, where MediaPipe answers": [
                round(float(np.nanmean(one["PA-MPJPE"][detected & (levels == level)])), 1)
                for level in range(6)
            ],
        }

    rows: dict[str, dict[str, object]] = {}
    for protocol in PROTOCOLS:
        predicted_joints, truth, sequences = ours(model, protocol, len(landmarks), cache)
        levels = np.array([int(name.split()[1]) for name in sequences])
        rows[protocol] = {name: row(joints) for name, joints in predicted_joints.items()}
    result = {
        "weights": weights,
        "sha256": sha256(weights_folder(weights) / WEIGHTS),
        "mediapipe": str(peer["version"]),
        "mediapipe CPU s a person": round(float(peer["seconds"]), 3),
        "persons": len(detected),
        "MediaPipe answers": int(detected.sum()),
        "MediaPipe answers, by level": [
            f"{detected[levels == level].sum()} of {(levels == level).sum()}" for level in range(6)
        ],
        "MediaPipe": row(landmarks),
        "rows": rows,
    }
    report_result(result, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("export", "ask", "score"))
    parser.add_argument(
        "--work", type=Path, default=Path("mediapipe_work"), help="folder of images, for export and ask"
    )
    parser.add_argument("--people", type=int, default=480)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.step == "export":
        export(options.work, options.people, options.cache)
    elif options.step == "ask":
        ask(options.work)
    else:
        score(options.people, options.weights, options.cache, options.json)


if __name__ == "__main__":
    main()
