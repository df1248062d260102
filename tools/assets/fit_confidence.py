"""Fits the network of inference/confidence.py, and measures it.

    python -m tools.assets.fit_confidence fit SAMPLES.npz... --limits LIMITS.npz...   # writes confidence.json
    python -m tools.assets.fit_confidence measure SAMPLES.npz...   # what is shipped, on other samples

The samples are those of tools/assets/people_samples.py; each file has the same weight. A joint is right within a tenth
of the box's longer side. `least` is the highest that any of LIMITS needs: samples with measured truth.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dpmesh.assets import SHIPPED
from dpmesh.inference.confidence import (
    KINDS,
    THRESHOLD,
    Layers,
    Networks,
    features,
    log_odds,
    other_is_better,
    shipped_networks,
)
from dpmesh.inference.detector import Detector
from dpmesh.inference.top_down import crop_window
from dpmesh.io import atomic_write

WRONG, MOST_WRONG = 0.1, 0.05
"""Share of the box's longer side; share of the joints above `least`: a point less than is promised."""
HIDDEN, STEPS, DECAY, FOLDS = 12, 400, 3e-4, 3


class Joints(NamedTuple):
    """Of one file, n people. right, other_right: Thunder's joints, MultiPose's. raw: Thunder's own scores."""

    known: np.ndarray
    features: np.ndarray
    right: np.ndarray
    other_right: np.ndarray
    raw: np.ndarray


def read(path: Path) -> Joints:
    detector, rows = Detector(rotated_detection=False), []
    with np.load(path) as file:
        samples = [file[name] for name in ("images", "boxes", "keypoints", "known")]
    for image, box, truth, known in zip(*samples, strict=True):
        box = box.astype(np.float32)
        reading, guide = detector.top_down.read(image, crop_window(box), box)
        side = (box[2:] - box[:2]).max()
        right, other = (
            np.linalg.norm(pose[:, :2] - truth, axis=1) < WRONG * side for pose in (reading.pose, guide)
        )
        rows.append(
            (known, features(reading, guide, box), right, other & guide[:, 2].any(), reading.pose[:, 2])
        )
    return Joints(*map(np.stack, zip(*rows, strict=True)))


def fit(files: list[Joints], chosen: list[np.ndarray]) -> Layers:
    """chosen: which people of each file."""
    torch.manual_seed(0)
    x = np.concatenate([f.features[c][f.known[c]] for f, c in zip(files, chosen, strict=True)])
    y = np.concatenate([f.right[c][f.known[c]] for f, c in zip(files, chosen, strict=True)]).astype(
        np.float32
    )
    sizes = [int(f.known[c].sum()) for f, c in zip(files, chosen, strict=True)]
    weight = torch.from_numpy(
        np.concatenate([np.full(n, len(y) / n / len(files), np.float32) for n in sizes])
    )
    mean, scale = x.mean(0), x.std(0) + 1e-6
    kinds = int(KINDS.max()) + 1
    mean[-kinds:], scale[-kinds:] = 0, 1
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    inputs, targets = torch.from_numpy((x - mean) / scale), torch.from_numpy(y)
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            network(inputs)[:, 0], targets, reduction="none"
        )
        decay = sum((p**2).sum() for p in network.parameters() if p.ndim > 1)
        ((losses * weight).mean() + DECAY * decay).backward()
        optimizer.step()
    first, last = ([p.detach().numpy() for p in network[i].parameters()] for i in (0, 2))
    return Layers(mean, scale, first[0], first[1], last[0][0], last[1][0])


def least(odds: np.ndarray, right: np.ndarray) -> float:
    """The lowest odds above which at most MOST_WRONG of the joints are wrong."""
    order = np.argsort(-odds)
    wrong = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    return float(odds[order][np.nonzero(wrong <= MOST_WRONG)[0][-1]])


def across(files: list[Joints]) -> None:
    """Print what networks do on people whom they were not fitted on."""
    odds = [np.zeros(f.known.shape, np.float32) for f in files]
    for fold in range(FOLDS):
        held = [np.arange(len(f.known)) * FOLDS // len(f.known) == fold for f in files]  # copies lie together
        layers = fit(files, [~h for h in held])
        for f, h, o in zip(files, held, odds, strict=True):
            o[h] = log_odds(f.features[h], layers)
    for number, (o, f) in enumerate(zip(odds, files, strict=True)):
        limit = least(o[f.known], f.right[f.known])
        print(f"file {number}, not fitted on: from {limit:.2f}", words(o[f.known] > limit, f.right[f.known]))


def both(files: list[Joints]) -> Networks:
    everybody = [np.ones(len(f.known), bool) for f in files]
    other = [f._replace(right=f.other_right) for f in files]
    return Networks(fit(files, everybody), fit(other, everybody), 0.0)


def judged(file: Joints, networks: Networks) -> tuple[np.ndarray, np.ndarray]:
    """Odds of the known joints of the poses that are taken, and which of them are right."""
    odds, others = (log_odds(file.features, layers) for layers in (networks.thunder, networks.multipose))
    likely = [1 / (1 + np.exp(-rows)) for rows in (odds, others)]
    other = np.array([other_is_better(*rows) for rows in zip(*likely, strict=True)])
    odds = np.where(other[:, None], others, odds)
    right = np.where(other[:, None], file.other_right, file.right)
    return odds[file.known], right[file.known]


def words(kept: np.ndarray, right: np.ndarray) -> str:
    wrong = 1 - right[kept].mean()
    return (
        f"{kept.mean():.1%} of the joints are above, {wrong:.1%} of these wrong; {right.mean():.1%} are right"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=("fit", "measure"))
    parser.add_argument("samples", type=Path, nargs="+")
    parser.add_argument("--limits", type=Path, nargs="+", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = [read(path) for path in options.samples]
    if options.task == "fit":
        across(files)
        networks = both(files)
        limits = [read(path) for path in options.limits] or files
        networks = networks._replace(least=max(least(*judged(limit, networks)) for limit in limits))
        write(networks)
        return
    networks = shipped_networks()
    for path, file in zip(options.samples, files, strict=True):
        odds, right = judged(file, networks)
        given = np.log(THRESHOLD / (1 - THRESHOLD))
        print(f"{path.name}: of confidence > {THRESHOLD}, as given:", words(odds > given, right))
        print(f"  > {1 / (1 + np.exp(-networks.least)):.2f}:", words(odds > networks.least, right))
        print("  Thunder's own confidence > 0.3:", words(file.raw[file.known] > 0.3, file.right[file.known]))


def write(networks: Networks) -> None:
    values = {
        name: {part: np.asarray(v, np.float64).round(5).tolist() for part, v in layers._asdict().items()}
        for name, layers in zip(Networks._fields[:2], networks[:2], strict=True)
    }
    text = json.dumps(values | {"least": round(networks.least, 5)})
    atomic_write(SHIPPED / "detector/confidence.json", (text + "\n").encode())


if __name__ == "__main__":
    main()
