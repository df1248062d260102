"""Fits the network of inference/confidence.py, and measures it.

    python -m tools.assets.fit_confidence fit SAMPLES.npz...      # writes src/dpmesh/shipped/detector/confidence.json
    python -m tools.assets.fit_confidence measure SAMPLES.npz...  # what is shipped, on other samples

The samples are those of tools/assets/people_samples.py; each file has the same weight. A joint is right within a tenth
of the box's longer side. `least` is chosen on joints that the network was not fitted on (five folds of images).
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dpmesh.assets import SHIPPED
from dpmesh.inference.confidence import KINDS, Layers, features, log_odds, shipped_layers
from dpmesh.inference.detector import Detector
from dpmesh.inference.top_down import crop_window
from dpmesh.io import atomic_write

WRONG, MOST_WRONG = 0.1, 0.06
"""Share of the box's longer side; share of the joints above `least`."""
HIDDEN, STEPS, DECAY, FOLDS = 12, 400, 3e-4, 5


class Joints(NamedTuple):
    """Of one file, n people. raw: Thunder's own scores."""

    known: np.ndarray
    features: np.ndarray
    right: np.ndarray
    raw: np.ndarray


def read(path: Path) -> Joints:
    detector, rows = Detector(rotated_detection=False), []
    with np.load(path) as file:
        samples = [file[name] for name in ("images", "boxes", "keypoints", "known")]
    for image, box, truth, known in zip(*samples, strict=True):
        box = box.astype(np.float32)
        reading, guide = detector.top_down.read(image, crop_window(box), box)
        off = np.linalg.norm(reading.pose[:, :2] - truth, axis=1) / (box[2:] - box[:2]).max()
        rows.append((known, features(reading, guide, box), off < WRONG, reading.pose[:, 2]))
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
    return Layers(mean, scale, first[0], first[1], last[0][0], float(last[1][0]), 0.0)


def least(odds: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """The lowest odds above which at most MOST_WRONG of the joints are wrong."""
    order = np.argsort(-odds)
    wrong = np.cumsum((weight * ~right)[order]) / np.cumsum(weight[order])
    return float(odds[order][np.nonzero(wrong <= MOST_WRONG)[0][-1]])


def fit_all(files: list[Joints]) -> Layers:
    odds = [np.zeros(f.known.shape, np.float32) for f in files]
    for fold in range(FOLDS):
        held = [np.arange(len(f.known)) * FOLDS // len(f.known) == fold for f in files]  # copies lie together
        layers = fit(files, [~h for h in held])
        for f, h, o in zip(files, held, odds, strict=True):
            o[h] = log_odds(f.features[h], layers)
    known = [f.known for f in files]
    together = [
        np.concatenate([a[k] for a, k in zip(arrays, known, strict=True)])
        for arrays in (odds, [f.right for f in files])
    ]
    weight = np.concatenate([np.full(int(k.sum()), 1 / k.sum()) for k in known])
    limit = least(all_odds, right, weight)
    for number, (o, f) in enumerate(zip(odds, files, strict=True)):
        print(f"file {number}, not fitted on:", words(o[f.known] > limit, f.right[f.known]))
    return fit(files, [np.ones(len(f.known), bool) for f in files])._replace(least=limit)


def words(kept: np.ndarray, right: np.ndarray) -> str:
    wrong = 1 - right[kept].mean()
    return (
        f"{kept.mean():.1%} of the joints are above, {wrong:.1%} of these wrong; {right.mean():.1%} are right"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=("fit", "measure"))
    parser.add_argument("samples", type=Path, nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = [read(path) for path in options.samples]
    if options.task == "fit":
        layers = fit_all(files)
        values = {n: np.asarray(v, np.float64).round(5).tolist() for n, v in layers._asdict().items()}
        atomic_write(SHIPPED / "detector/confidence.json", (json.dumps(values) + "\n").encode())
        return
    layers = shipped_layers()
    for path, file in zip(options.samples, files, strict=True):
        known, odds = file.known, log_odds(file.features, layers)
        print(f"{path.name}:", words(odds[known] > layers.least, file.right[known]))
        print("  Thunder's own confidence > 0.3:", words(file.raw[known] > 0.3, file.right[known]))


if __name__ == "__main__":
    main()
