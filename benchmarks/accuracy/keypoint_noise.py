"""What the shipped detector's keypoints are like, and what the training's noise models draw in their place.

    python -m benchmarks.accuracy.keypoint_noise ask WORK [--people 600] [--looks FILE] [--pose2sim DATA]
    python -m benchmarks.accuracy.keypoint_noise table WORK [--json FILE]

`ask` runs the detector on rendered people of the training's generator (another seed) in the boxes of what the image
shows of them, and on the tuning half of pose2sim, and keeps its answers. `table` prints, for joints in sight, hidden
and cut off by the image: the share that is given, and of the given ones the distance to the ground truth in units of
sigma·sqrt(area), the share nearer to the left-right partner's place, and to another person's joint; and how much the
joints of one person have in common. The noise models draw keypoints for the same people.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dpmesh.body.files import free_body
from dpmesh.data.poses import PoseBank, SampledPoses
from dpmesh.data.synthetic.generator import SyntheticPeople
from dpmesh.data.synthetic.keypoints import input_truth
from dpmesh.data.synthetic.scene import FLESH, draw_scenes, project
from dpmesh.inference.confidence import THRESHOLD
from dpmesh.inference.detections import box_iou
from dpmesh.inference.detector import Detector
from dpmesh.skeletons import COCO17, JOINTS30

SEED = 987_002
VISIBLE, HIDDEN, CUT, UNKNOWN = range(4)
_COCO = COCO17.indices_in(JOINTS30)


class Answers(NamedTuple):
    """n people and what a detector says of them. truth, points: COCO-17, px; state: VISIBLE to UNKNOWN; given: 1 where
    the detector is confident. area: px² of the true joints' box. others, near: joints of up to four others, and which
    of them count. toward: cosine between the chest's normal and the way to the camera, 1 for one who faces it."""

    truth: np.ndarray
    state: np.ndarray
    area: np.ndarray
    others: np.ndarray
    near: np.ndarray
    toward: np.ndarray
    points: np.ndarray
    given: np.ndarray


def rendered(count: int, looks: Path | None, seed: int = SEED) -> Answers:
    """Of rendered people in the box of those of their joints that lie in the image."""
    bank, body, detector = SampledPoses(PoseBank.load("train")), free_body(), Detector()
    people = SyntheticPeople(seed, bank, body, looks)
    rng, rows = np.random.default_rng(seed), []
    for index in range(count):
        sample = people.sample(index)
        scene = draw_scenes(np.random.default_rng([seed, index]), 1, bank, people._body)
        known, frame = input_truth(scene), scene.frame[0]
        at = scene.people.joints + scene.transl[:, None]
        joints = project(at, scene.focal)[0]
        inside = joints[((joints >= frame[:2]) & (joints < frame[2:])).all(1)]
        if len(inside) < 4:
            continue
        flesh = FLESH * scene.focal[0] / at[0, :, 2].mean()
        box = _cut(np.concatenate([inside.min(0) - flesh, inside.max(0) + flesh]), frame)
        box = _cut(box + rng.normal(0, 0.02, 4) * (box[2:] - box[:2]).max(), frame)
        if (box[2:] - box[:2]).min() < 4:
            continue
        found = detector.keypoints_in_boxes(sample.crop, box[None].astype(np.float32))[0].keypoints
        visible = sample.joint_visible[list(_COCO)] > 0
        state = np.where(known.inside[0], np.where(visible, VISIBLE, HIDDEN), CUT)
        left, right, hips = (at[0, JOINTS30.index(name)] for name in ("L_Shoulder", "R_Shoulder", "Pelvis"))
        rows.append((
            known.points[0], state, known.area[0], known.near[0], known.near_flags[0], _toward(left, right, hips),
            found[:, :2], found[:, 2] > THRESHOLD,
        ))  # fmt: skip
    return Answers(*map(np.stack, zip(*rows, strict=True)))


def _cut(box: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return np.clip(box, np.tile(frame[:2], 2), np.tile(frame[2:], 2))


def photographed(data: Path, *, covered: bool) -> Answers:
    """Of the man in the tuning half of pose2sim, where the detector finds him; the joints of his face are unknown, and
    so is what he hides himself. covered: a block of another part of the image lies over him, and half of the images
    end above his feet."""
    from dpmesh.evaluate.registry import open_source
    from dpmesh.evaluate.whole_images import WholeImageSource
    from dpmesh.inference.images import read_image

    source = open_source("pose2sim-tuning", data)
    assert isinstance(source, WholeImageSource)
    content = json.loads((data / "pose2sim.json").read_text())
    joints, cameras = np.array(content["joints"]), content["cameras"]
    detector, rng, rows = Detector(), np.random.default_rng(SEED), []
    for record in source.records:
        image = read_image(data / "clean" / record.sequence / record.image.name).rgb
        camera, frame = cameras[record.sequence], content["frames"].index(int(record.image.stem))
        R, t, K = (np.array(camera[key]) for key in ("R", "t", "K"))
        at = joints[frame, :, :3] @ R.T + t
        truth = (at @ K.T)[:, :2] / at[:, 2:]
        state = np.where(np.arange(17) < 5, UNKNOWN, VISIBLE)
        if covered:
            image, state = cover(rng, image, truth, state)
        people = detector(image).people
        boxes = np.stack([one.box for one in people]) if people else np.zeros((0, 4), np.float32)
        overlaps = box_iou(record.box[None].astype(np.float32), boxes)[0]
        if not len(people) or overlaps.max() < 0.25:
            continue
        found = people[int(overlaps.argmax())].keypoints
        left, right, hips = at[5], at[6], at[11:13].mean(0)
        rows.append((
            truth, state, np.prod(np.ptp(truth, axis=0)), np.zeros((4, 17, 2)), np.zeros((4, 17)),
            _toward(left, right, hips), found[:, :2], found[:, 2] > THRESHOLD,
        ))  # fmt: skip
    return Answers(*map(np.stack, zip(*rows, strict=True)))


def cover(
    rng: np.random.Generator, image: np.ndarray, truth: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The image with a block over the person, perhaps cut; and the joints' state then."""
    low, high = truth.min(0), truth.max(0)
    size = ((high - low).max() * rng.uniform(0.15, 0.45, 2)).astype(int)
    x1, y1 = (low + (high - low) * rng.random(2) - size / 2).clip(0, None).astype(int)
    out, (height, width) = image.copy(), image.shape[:2]
    block = out[y1 : y1 + size[1], x1 : x1 + size[0]]
    fx, fy = rng.integers(0, width - size[0]), rng.integers(0, height - size[1])
    block[:] = image[fy : fy + block.shape[0], fx : fx + block.shape[1]]
    under = ((truth >= [x1, y1]) & (truth < [x1 + size[0], y1 + size[1]])).all(1)
    state = np.where((state == VISIBLE) & under, HIDDEN, state)
    if rng.random() < 0.5:
        bottom = int(rng.uniform(low[1] + 0.35 * (high[1] - low[1]), high[1]))
        out, state = out[:bottom].copy(), np.where((truth[:, 1] > bottom) & (state != UNKNOWN), CUT, state)
    return out, state


def _toward(left: np.ndarray, right: np.ndarray, hips: np.ndarray) -> float:
    normal = np.cross(left - right, (left + right) / 2 - hips)
    return float(-(normal @ hips) / np.linalg.norm(normal) / np.linalg.norm(hips))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("ask", "table"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--people", type=int, default=600)
    parser.add_argument("--looks", type=Path)
    parser.add_argument("--pose2sim", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sets = {"rendered": rendered(options.people, options.looks)} if options.people else {}
    if options.pose2sim:
        sets["photographed"] = photographed(options.pose2sim, covered=False)
        sets["photographed, covered"] = photographed(options.pose2sim, covered=True)
    for name, answers in sets.items():
        np.savez_compressed(options.work / f"{name}.npz", **answers._asdict())


if __name__ == "__main__":
    main()
