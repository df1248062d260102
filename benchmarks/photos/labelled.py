"""Tests predictions on photographs against joints labelled by eye.

    python -m benchmarks.photos.labelled IMAGES [--variants shipped network flip] [--split report] [--json OUT.json]

IMAGES was written by `python -m benchmarks.photos.fetch IMAGES`. The predictor runs as for a user: image to bodies.
PCK@a: share of the labelled joints that are closer than a times the longer side of the labelled person's box (Yang and
Ramanan, TPAMI 2013); every joint of a missed person is wrong. `bodies`: the projected joints of the mesh; `keypoints`:
those that the detector gave to the model (a keypoint below the model's least confidence is wrong, too).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from benchmarks.machine import report_result
from benchmarks.photos.keypoints import distances, mirrored
from benchmarks.photos.labels import Labelled, Photograph, match, photographs
from dpmesh.inference.detections import box_iou
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.preprocess import MIN_DETECTED
from dpmesh.inference.scene import Person, Scene
from dpmesh.skeletons import COCO17

ROOT = Path(__file__).parents[2]
VARIANTS: dict[str, dict[str, bool]] = {
    "shipped": {},
    "network": {"refine": False},
    "flip": {"refine": False, "flip": True},
    "fast": {"fast": True},
}
"""Variant -> options. shipped: two passes, refined; fast: one pass, refined."""
PCK, CLOSE = 0.1, 0.05


@dataclass(frozen=True, eq=False)
class Row:
    """One labelled person.

    joints: COCO-17 indices of the labelled ones. body, keypoints: distances by the box's longer side, inf where not
    predicted. exchanged: shoulders and hips fit better with left and right exchanged; None where not testable.
    """

    image: str
    number: int
    person: Labelled
    found: bool
    joints: tuple[int, ...]
    body: Float[np.ndarray, " k"]
    keypoints: Float[np.ndarray, " k"]
    exchanged: bool | None

    @property
    def hidden(self) -> np.ndarray:
        """Which of the labelled joints cannot be seen."""
        return self.person.keypoints[list(self.joints), 2] == 1


@dataclass(frozen=True)
class FalsePerson:
    """A predicted person who is not there. ghost: no keypoint at all. second: overlaps a labelled person."""

    image: str
    box: tuple[int, ...]
    ghost: bool
    second: bool


def compare(photograph: Photograph, scene: Scene) -> tuple[list[Row], list[FalsePerson]]:
    """All who are labelled, and every predicted person who is false."""
    matches = match(photograph, [p.box for p in scene.people])
    rows = [
        _row(photograph.name, i, person, None if of is None else scene.people[of])
        for i, (person, of) in enumerate(zip(photograph.people, matches.of, strict=True))
    ]
    return rows, [_false(photograph, scene.people[i]) for i in matches.false]


def _row(image: str, number: int, person: Labelled, predicted: Person | None) -> Row:
    joints = tuple(int(j) for j in np.flatnonzero(person.keypoints[:, 2]))
    body = keypoints = np.full(len(joints), np.inf)
    exchanged = None
    if predicted is not None and joints:
        body = distances(predicted.joints2d, person.marked, person.box)
        found = predicted.keypoints2d[list(joints)].astype(np.float64)
        off = np.linalg.norm(found[:, :2] - person.keypoints[list(joints), :2], axis=1)
        keypoints = np.where(
            found[:, 2] >= MIN_DETECTED, off / max(np.ptp(person.box.reshape(2, 2), 0)), np.inf
        )
        verdict = mirrored(predicted.joints2d, person.marked, person.box)
        exchanged = verdict.failed if verdict.tested else None
    return Row(image, number, person, predicted is not None, joints, body, keypoints, exchanged)


def _false(photograph: Photograph, predicted: Person) -> FalsePerson:
    boxes = np.reshape([p.box for p in photograph.people], (-1, 4))
    overlaps = box_iou(predicted.box[None].astype(np.float64), boxes)
    return FalsePerson(
        photograph.name,
        tuple(round(float(v)) for v in predicted.box),
        not bool((predicted.keypoints2d[:, 2] >= MIN_DETECTED).any()),
        bool((overlaps > 0.1).any()),
    )


def summary(rows: Sequence[Row], false: Sequence[FalsePerson], images: int) -> dict[str, Any]:
    """PCK over all labelled joints together, recall over all people."""
    with_joints = [row for row in rows if row.joints]
    sides = [row.exchanged for row in rows if row.exchanged is not None]
    groups = {
        "all": with_joints,
        "not occluded, not cut": [r for r in with_joints if not (r.person.occluded or r.person.cut)],
        "occluded": [r for r in with_joints if r.person.occluded],
        "cut by the frame": [r for r in with_joints if r.person.cut],
        "detected": [r for r in with_joints if r.found],
    }
    return {
        "images": images,
        "people": len(rows),
        "found": sum(row.found for row in rows),
        "false_people": len(false),
        "of_them_ghosts": sum(f.ghost for f in false),
        "of_them_second_bodies": sum(f.second and not f.ghost for f in false),
        "images_with_false_people": len({f.image for f in false}),
        "images_with_ghosts": len({f.image for f in false if f.ghost}),
        "left_and_right_exchanged": f"{sum(sides)} of {len(sides)}",
        "joints": {name: _pck(group) for name, group in groups.items() if group},
        "wrong_joints": dict(Counter(cause for row in with_joints for cause in causes(row)).most_common()),
    }


def _pck(rows: Sequence[Row]) -> dict[str, Any]:
    body, keypoints = (np.concatenate([getattr(r, n) for r in rows]) for n in ("body", "keypoints"))
    hidden = np.concatenate([r.hidden for r in rows])
    return {
        "people": len(rows),
        "joints": len(body),
        "of_missed_people": int(sum(len(r.joints) for r in rows if not r.found)),
        "bodies_pck_0.1": _share(body, PCK),
        "bodies_pck_0.05": _share(body, CLOSE),
        "keypoints_pck_0.1": _share(keypoints, PCK),
        "keypoints_pck_0.05": _share(keypoints, CLOSE),
        "keypoints_given": round(float(np.isfinite(keypoints).mean()), 4),
        "hidden_bodies_pck_0.1": _share(body[hidden], PCK) if hidden.any() else None,
    }


def _share(off: np.ndarray, limit: float) -> float:
    return round(float((off < limit).mean()), 4)


def causes(row: Row) -> list[str]:
    """Why each wrong joint of a body (PCK@0.1) is wrong."""
    wrong = ~(row.body < PCK)
    if not row.found:
        return ["person missed"] * int(wrong.sum())
    off = row.keypoints[wrong]
    return [
        "no keypoint" if np.isinf(d) else "keypoint wrong" if d >= PCK else "body wrong, keypoint right"
        for d in off
    ]


def failing(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The people who were missed, or have a joint wrong by PCK@0.1."""
    listed: list[dict[str, Any]] = []
    for row in rows:
        wrong = ~(row.body < PCK)
        if row.found and not wrong.any():
            continue
        entry: dict[str, Any] = {"image": row.image, "box": [round(v) for v in row.person.box]}
        if not row.found:
            entry["missed"] = True
        if row.exchanged:
            entry["exchanged"] = True
        if row.joints:
            entry["pck_0.1"] = round(1 - float(wrong.mean()), 3)
        if row.found:
            names = [COCO17.joints[j] for j, bad in zip(row.joints, wrong, strict=True) if bad]
            entry["wrong"] = dict(zip(names, causes(row), strict=True))
        listed.append(entry)
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--split", choices=("tune", "report"), help="one half of the photographs")
    parser.add_argument("--pose-model")
    parser.add_argument("--person-model")
    parser.add_argument("--keep-unposed", action="store_true")
    parser.add_argument("--overlays", type=Path, help="write an overlay of each image into this folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen = [p for p in photographs(options.images, ROOT) if options.split in (None, p.split)]
    models = {n: v for n in ("pose_model", "person_model") if (v := getattr(options, n))}
    results: dict[str, Any] = {}
    for variant in options.variants:
        cv2.setNumThreads(1)
        predictor = Predictor.from_pretrained(options.weights, "cpu", 1, **VARIANTS[variant], **models)
        rows: list[Row] = []
        false: list[FalsePerson] = []
        for photograph in chosen:
            scene = predictor(photograph.rgb(), keep_unposed=options.keep_unposed)
            more, wrong = compare(photograph, scene)
            rows += more
            false += wrong
            if options.overlays:
                options.overlays.mkdir(parents=True, exist_ok=True)
                overlay = np.ascontiguousarray(scene.overlay()[..., ::-1])
                cv2.imwrite(str(options.overlays / f"{photograph.name}_{variant}.png"), overlay)
        splits = {p.name: p.split for p in chosen}
        results[variant] = {"all": summary(rows, false, len(chosen))}
        for split in sorted(set(splits.values())):
            results[variant][split] = summary(
                [r for r in rows if splits[r.image] == split],
                [f for f in false if splits[f.image] == split],
                list(splits.values()).count(split),
            )
        results[variant] |= {"failing": failing(rows), "false": [vars(f) for f in false]}
    command = "python -m benchmarks.photos.fetch IMAGES; python -m benchmarks.photos.labelled IMAGES"
    report_result(
        {"command": command, "weights": options.weights, **models, "split": options.split, **results},
        options.json,
    )


if __name__ == "__main__":
    main()
