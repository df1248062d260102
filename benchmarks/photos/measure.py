"""Tests predicted bodies on real photographs.

    python -m benchmarks.photos.measure IMAGES [--weights W] [--json OUT.json]

IMAGES was written by `python -m benchmarks.photos.fetch IMAGES`; the photos of examples/ are used too. All variants
get the same detections. The film's camera stands still, so its floor is one plane through all frames.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core

import argparse
import hashlib
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.machine import commit, machine
from benchmarks.photos.images import film, stills
from benchmarks.photos.person import Examiner, Row
from benchmarks.photos.summary import on_floors, summary
from dpmesh.assets import shipped
from dpmesh.body.files import free_body
from dpmesh.inference.detections import Detection, DetectionResult
from dpmesh.inference.detector import Detector
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Person, Scene

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = (
    "PCK@0.1 of the box at least 0.85; no person upside down, inside out, or with a limb through the trunk"
)
VARIANTS = ("network", "refine")
ON_THE_HOUSE = 480
"""Px of the film: people whose box ends above this row stand on the little house, not on the floor."""


class CachedDetector:
    """Detects once for each image: all variants get the same detections."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.results: dict[bytes, DetectionResult] = {}

    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in self.results:
            self.results[key] = self.detector(image, max_people)
        return self.results[key]

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]:
        return self.detector.keypoints_in_boxes(image, boxes, scores)


def predictors(weights: str) -> dict[str, Predictor]:
    detector = CachedDetector(Detector())
    made = {name: Predictor.from_pretrained(weights, "cpu", 1, refine=name == "refine") for name in VARIANTS}
    for predictor in made.values():
        predictor.detector = detector
    return made


def report(rows: list[Row], images: int, empty: list[str], fallbacks: Counter[str]) -> dict[str, object]:
    return {"pictures": images, "nobody_found_in": empty, "fallbacks": dict(fallbacks), **summary(rows)}


def _row(examiner: Examiner, group: str, image: str, number: int, person: Person) -> Row:
    row = examiner.row(image, number, person)
    return replace(row, foot=None) if group == "film" and person.box[3] < ON_THE_HOUSE else row


def failures(rows: list[Row]) -> list[dict[str, object]]:
    """The people with a failure or a PCK below 0.85."""
    failing: list[dict[str, object]] = []
    for row in rows:
        hits = np.array(row.distances) < 0.1
        pck = round(float(hits.mean()), 3) if len(hits) else None
        if row.failures or (pck is not None and pck < 0.85):
            bones = {"bones": row.through_trunk} if row.through_trunk else {}
            high = {} if row.above_floor is None else {"above_floor_m": round(row.above_floor, 2)}
            size = {"stature_m": round(row.stature, 2)} if math.isfinite(row.stature) else {}
            failing.append(
                {"picture": row.image, "person": row.person, "what": row.failures, "pck": pck}
                | bones
                | high
                | size
            )
    return failing


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame of the film")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    examiner = Examiner(free_body())
    made = {name: p for name, p in predictors(options.weights).items() if name in options.variants}
    results: dict[str, dict[str, object]] = {name: {} for name in made}
    people: dict[str, list[Row]] = {name: [] for name in made}
    for group, images in (
        ("photographs", stills(options.images, EXAMPLES)),
        ("film", film(options.images, options.every)),
    ):
        rows: dict[str, list[Row]] = {name: [] for name in made}
        empty: list[str] = []
        fallbacks: dict[str, Counter[str]] = {name: Counter() for name in made}
        count = 0
        for image_name, image in images:
            count += 1
            for name, predictor in made.items():
                scene: Scene = predictor(image)
                fallbacks[name] += Counter(scene.fallbacks)
                rows[name] += [_row(examiner, group, image_name, i, p) for i, p in enumerate(scene.people)]
            if not scene.people:
                empty.append(image_name)
        for name in made:
            placed = on_floors(rows[name], one_camera=group == "film")
            results[name][group] = report(placed, count, empty, fallbacks[name])
            people[name] += placed
    for name in made:
        results[name]["together"] = summary(people[name])
        results[name]["failing"] = failures(people[name])
    folder = Path(options.weights)
    file = (
        folder if folder.is_dir() else shipped(f"{options.weights}/config.json").parent
    ) / "model.safetensors"
    result = {
        "command": "python -m benchmarks.photos.fetch PICTURES; python -m benchmarks.photos.measure PICTURES",
        "commit": commit(),
        "machine": machine(),
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "limit": LIMIT,
        **results,
    }
    text = json.dumps(result, indent=1, allow_nan=False)
    print(json.dumps({name: results[name]["together"] for name in made}, indent=1))
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
