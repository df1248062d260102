"""MediaPipe Pose's world landmarks beside the other methods, on SynthOcc's own pictures, given the true box.

MediaPipe has pins of its own (numpy 1), so it lives in an environment of its own; three commands:

    python benchmarks/mediapipe_pose.py export WORK --limit 480 [--cache DIR]
    python -m venv MP && MP/bin/pip install mediapipe==0.10.21 && MP/bin/python benchmarks/mediapipe_pose.py ask WORK
    python benchmarks/mediapipe_pose.py score WORK [--json FILE]

0.10.21 is the last version whose wheel holds a pose model ("full", model_complexity 1; "heavy" would be downloaded).
The picture that MediaPipe is given is the square window of 1.25 times the true box, at 256 px, so that it need not
find the person. Its static mode is used; of its 33 landmarks those that Human3.6M's regressor has too are compared
(shoulders, elbows, wrists, hips, knees, ankles), relative to the middle of the hips. Its metres are its own guess, so
both figures are given: "MPJPE" with its scale as it is, "scaled" by one factor, the median over persons of the ratio
of sizes, and PA-MPJPE. A person that it does not find is a failure; the other methods' figures are over the same joints
and, beside, over the persons that MediaPipe found.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path

import numpy as np

NAMES = [f"{side}_{part}" for side in "LR" for part in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")]
LANDMARKS = [first + side for side in (0, 1) for first in (11, 13, 15, 23, 25, 27)]
"""Of NAMES, in MediaPipe's 33 (left odd, right even)."""


def export(work: Path, limit: int, cache: Path | None) -> None:
    import cv2

    from dpmesh.evaluate.opening import open_source
    from dpmesh.evaluate.synthocc.source import SynthOcc
    from dpmesh.geometry.crop import Crop
    from dpmesh.skeletons import H36M17

    source = open_source("synthocc", cache)
    assert isinstance(source, SynthOcc)
    work.mkdir(parents=True, exist_ok=True)
    truths, sequences = [], []
    rows = [H36M17.index(name) for name in NAMES]
    for index in range(limit):
        persons, one = source.persons([index]), source.label(index)
        window = Crop.around(one.box.astype(np.float32), 1.25).warp(persons.crops[0])
        cv2.imwrite(str(work / f"{index:05d}.png"), window[..., ::-1])
        truths.append(persons.truth_joints[0, rows])
        sequences += persons.sequences
    np.savez(work / "truth.npz", joints=np.stack(truths), sequences=np.array(sequences))
    print(f"{limit} pictures in {work}")


def ask(work: Path) -> None:
    import time

    import cv2
    import mediapipe

    pose = mediapipe.solutions.pose.Pose(static_image_mode=True, model_complexity=1)
    paths = sorted(work.glob("[0-9]*.png"))
    found = np.full((len(paths), 12, 3), np.nan)
    start = time.process_time()
    for row, path in enumerate(paths):
        picture = cv2.imread(str(path))
        answer = pose.process(np.ascontiguousarray(picture[..., ::-1])).pose_world_landmarks
        if answer is not None:
            found[row] = [
                [answer.landmark[i].x, answer.landmark[i].y, answer.landmark[i].z] for i in LANDMARKS
            ]
    seconds = (time.process_time() - start) / len(paths)
    np.savez(work / "mediapipe.npz", joints=found, version=mediapipe.__version__, seconds=seconds)
    print(f"found {np.isfinite(found[:, 0, 0]).sum()} of {len(paths)}; {seconds:.3f} CPU s each")


def errors(got: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Per person, mm, relative to the middle of the hips."""
    from dpmesh.metrics import mpjpe, pa_mpjpe

    hips = [NAMES.index("L_Hip"), NAMES.index("R_Hip")]
    got, true = (one - one[:, hips].mean(1, keepdims=True) for one in (got, true))
    size = np.linalg.norm(true, axis=-1).sum(1) / np.linalg.norm(got, axis=-1).sum(1)
    factor = float(np.nanmedian(size))
    return {"MPJPE": mpjpe(got, true), "scaled": mpjpe(got * factor, true), "PA-MPJPE": pa_mpjpe(got, true)}


def ours(work: Path, count: int, weights: str, cache: Path | None) -> dict[str, np.ndarray]:
    """Joints of our methods on the same persons, keypoints of the shipped detector."""
    import torch

    from dpmesh.evaluate.methods import method_of
    from dpmesh.evaluate.opening import open_source
    from dpmesh.evaluate.protocols import Measure
    from dpmesh.evaluate.score import inputs_of, predicted
    from dpmesh.model import DPMesh
    from dpmesh.skeletons import H36M17

    torch.set_num_threads(1)
    source, model = open_source("synthocc@detector", cache), DPMesh.from_pretrained(weights)
    rows = [H36M17.index(name) for name in NAMES]
    found: dict[str, list[np.ndarray]] = {"network": [], "lifter": [], "t-pose": []}
    for start in range(0, count, 16):
        persons = source.persons(list(range(start, min(start + 16, count))))
        with torch.inference_mode():
            inputs = inputs_of(persons, model.camera, torch.device("cpu"))
            for name, joints in found.items():
                answer = method_of(name, model)(inputs)
                joints.append(predicted(Measure(), model, answer, persons).joints[:, rows])
    return {name: np.concatenate(joints) for name, joints in found.items()}


def score(work: Path, weights: str, cache: Path | None, out: str | None) -> None:
    from machine import tell

    truth = np.load(work / "truth.npz")
    peer = np.load(work / "mediapipe.npz")
    methods = {"MediaPipe": peer["joints"], **ours(work, len(truth["joints"]), weights, cache)}
    there = np.isfinite(peer["joints"][:, 0, 0])
    levels = np.array([int(name.split()[1]) for name in truth["sequences"]])
    rows = {}
    for name, joints in methods.items():
        one = errors(joints, truth["joints"])
        rows[name] = {
            "failures": int((~np.isfinite(joints[:, 0, 0])).sum()),
            **{m: round(float(np.nanmean(v)), 1) for m, v in one.items()},
            "where MediaPipe answers": {m: round(float(np.nanmean(v[there])), 1) for m, v in one.items()},
            "PA-MPJPE by level, where MediaPipe answers": [
                round(float(np.nanmean(one["PA-MPJPE"][there & (levels == level)])), 1) for level in range(6)
            ],
        }
    result = {
        "weights": weights, "mediapipe": str(peer["version"]),
        "mediapipe CPU s a person": round(float(peer["seconds"]), 3), "persons": len(there),
        "MediaPipe answers, by level": [
            f"{there[levels == level].sum()} of {(levels == level).sum()}" for level in range(6)
        ],
        "rows": rows,
    }  # fmt: skip
    tell(result, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("export", "ask", "score"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--limit", type=int, default=480)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.step == "export":
        export(options.work, options.limit, options.cache)
    elif options.step == "ask":
        ask(options.work)
    else:
        score(options.work, options.weights, options.cache, options.json)


if __name__ == "__main__":
    main()
