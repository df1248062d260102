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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import report_result
from dpmesh.body.files import population_body
from dpmesh.data.detector_noise import detected
from dpmesh.data.poses import PoseBank, SampledPoses
from dpmesh.data.synthetic.body import FastBody
from dpmesh.data.synthetic.generator import SyntheticPeople
from dpmesh.data.synthetic.keypoints import describe, guess_hidden, input_truth
from dpmesh.data.synthetic.scene import FLESH, draw_scenes, project
from dpmesh.inference.confidence import THRESHOLD
from dpmesh.inference.detections import box_iou
from dpmesh.inference.detector import Detector
from dpmesh.skeletons import COCO17, COCO_SIGMAS, JOINTS30

SEED = 987_002
VISIBLE, HIDDEN, CUT, UNKNOWN = range(4)
_COCO = COCO17.indices_in(JOINTS30)


class Answers(NamedTuple):
    """n people and what a detector says of them. truth, points: COCO-17, px; state: VISIBLE to UNKNOWN; given: 1 where
    the detector is confident. area: px² of the true joints' box. others, near: joints of up to four others, and which
    of them count."""

    truth: np.ndarray
    state: np.ndarray
    area: np.ndarray
    others: np.ndarray
    near: np.ndarray
    points: np.ndarray
    given: np.ndarray


def rendered(count: int, looks: Path | None, seed: int = SEED) -> Answers:
    """Of rendered people in the box of those of their joints that lie in the image."""
    bank, body, detector = SampledPoses(PoseBank.load("train")), population_body(), Detector()
    people, figure = SyntheticPeople(seed, bank, body, looks), FastBody(body)
    rng, rows = np.random.default_rng(seed), []
    for index in range(count):
        sample = people.sample(index)
        scene = draw_scenes(np.random.default_rng([seed, index]), 1, bank, figure)
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
        rows.append((
            known.points[0], state, known.area[0], known.near[0], known.near_flags[0],
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
        rows.append((
            truth, state, np.prod(np.ptp(truth, axis=0)), np.zeros((4, 17, 2)), np.zeros((4, 17)),
            found[:, :2], found[:, 2] > THRESHOLD,
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


def drawn(people: int = 3000) -> dict[str, Answers]:
    """What the noise models draw for other people, whose joints are hidden by chance."""
    rng = np.random.default_rng(SEED)
    scenes = draw_scenes(rng, people, SampledPoses(PoseBank.load("train")), FastBody(population_body()))
    known, hidden = input_truth(scenes), guess_hidden(rng, scenes)
    rows = list(_COCO)
    covered = hidden[:, rows]
    state = np.where(known.inside, np.where(covered, HIDDEN, VISIBLE), CUT)
    posefix = describe(rng, scenes, hidden)
    answers = {"PoseFix": (posefix["joints"][:, rows], posefix["visible"][:, rows] > 0)}
    for name, share in (("as rendered", 0.0), ("as photographed", 1.0)):
        points, given = detected(
            rng, known.points, known.inside, covered, known.area, known.near, known.near_flags, share
        )
        answers[name] = points, given > 0
    about = (known.points, state, known.area, known.near, known.near_flags)
    return {f"drawn, {name}": Answers(*about, *answer) for name, answer in answers.items()}


def statistics(answers: Answers) -> dict[str, dict[str, float | None]]:
    """Figures of the joints in each state, and of the people; shares in percent, errors in sigma·sqrt(area)."""
    flip = np.array(COCO17.flip)
    paired, given = flip != np.arange(17), answers.given
    unit = np.array(COCO_SIGMAS) * np.sqrt(answers.area)[:, None]

    def off(places: np.ndarray) -> np.ndarray:
        return np.linalg.norm(answers.points - places, axis=-1) / unit

    own, partners = off(answers.truth), off(answers.truth[:, flip])
    apart = paired & (np.linalg.norm(answers.truth - answers.truth[:, flip], axis=-1) > 2 * unit)
    exchanged = given & apart & (partners < own / 2)
    others = np.linalg.norm(answers.points[:, None] - answers.others, axis=-1) / unit[:, None]
    theirs = np.where(answers.near > 0, others, np.inf).min(1)
    other = given & (theirs < own / 2) & (own > 1.5) & ~exchanged
    right = given & ~exchanged & ~other

    result = dict[str, dict[str, float | None]]()
    for state, name in enumerate(("visible", "hidden", "cut")):
        of = answers.state == state
        if not of.any():
            continue
        shares = [given[i, of[i]].mean() for i in range(len(of)) if of[i].sum() >= 4]
        errors = own[of & right]
        result[name] = {
            "joints": int(of.sum()),
            "given": percent(given[of]),
            "given, sd of people": percent(np.array(shares), np.std),
            "error, median": round(float(np.median(errors)), 2) if len(errors) else None,
            "error, 90 %": round(float(np.quantile(errors, 0.9)), 2) if len(errors) else None,
            "exchanged": percent(exchanged[of & given & apart]),
            "another's": percent(other[of & given & np.isfinite(theirs)]),
        }
    many = (given & apart).sum(1) >= 3
    half = exchanged.sum(1) > (given & apart).sum(1) / 2
    result["people"] = {
        "people": len(given),
        "nothing given": percent(given.sum(1) == 0),
        "exchanged as a whole": percent(half[many]),
    }
    return result


def percent(values: np.ndarray, measure: Callable[[np.ndarray], Any] = np.mean) -> float | None:
    return round(100 * float(measure(values)), 1) if len(values) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("ask", "table"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--looks", type=Path)
    parser.add_argument("--pose2sim", type=Path)
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.step == "ask":
        ask(options)
        return
    sets = {path.stem: _load(path) for path in sorted(options.work.glob("*.npz"))} | drawn()
    report_result({name: statistics(answers) for name, answers in sets.items()}, options.json)


def ask(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    sets = {"rendered": rendered(options.people, options.looks)} if options.people else {}
    if options.pose2sim:
        sets["photographed"] = photographed(options.pose2sim, covered=False)
        sets["photographed, covered"] = photographed(options.pose2sim, covered=True)
    for name, answers in sets.items():
        np.savez_compressed(options.work / f"{name}.npz", **answers._asdict())


def _load(path: Path) -> Answers:
    with np.load(path) as file:
        return Answers(*(file[name] for name in Answers._fields))


if __name__ == "__main__":
    main()
