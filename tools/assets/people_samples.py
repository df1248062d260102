"""Makes the people on whom the keypoints' confidence is fitted, half of them hidden.

    python -m tools.assets.people_samples rendered OUT.npz [--count 700]
    python -m tools.assets.people_samples photographs OUT.npz IMAGE... --pose-model FILE --person-model FILE

rendered: synthetic people with the training's motions. photographs: people in photographs, and copies of them behind a
block, behind another photograph's person, or cut by the frame; their joints are those that a larger pose model (one of
--pose-model's kinds) is sure of on the uncovered photograph.
Arrays of the files: images (n, 256, 256, 3), boxes (n, 4) xyxy, keypoints (n, 17, 2) px, known (n, 17).
"""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpmesh.body.files import population_body
from dpmesh.data.poses import PoseBank, SampledPoses
from dpmesh.data.synthetic.generator import SyntheticPeople
from dpmesh.data.synthetic.scene import FLESH, draw_scenes, project
from dpmesh.geometry import CROP
from dpmesh.geometry.crop import Crop
from dpmesh.inference.user_models.person import PersonModel
from dpmesh.inference.user_models.pose import PoseModel
from dpmesh.skeletons import COCO17
from tools.assets.build_detector import read_rgb

SEED = 987001
"""Not one of the training's or the benchmark's."""
SURE = 0.6
"""Confidence of the larger model from which a joint counts as known."""
COPIES = 6
SMALL = 100
"""Px: smaller people are copied a third as often."""

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Image, box, keypoints, known."""


def rendered(count: int) -> list[Sample]:
    bank, body, samples = SampledPoses(PoseBank.load("train")), population_body(), list[Sample]()
    people = SyntheticPeople(SEED, bank, body)
    for index in range(count):
        image = people.sample(index).crop
        scene = draw_scenes(np.random.default_rng([SEED, index]), 1, bank, people._body)
        frame, at = scene.frame[0], scene.people.joints + scene.transl[:, None]
        joints = project(at, scene.focal)[0]
        inside = joints[((joints >= frame[:2]) & (joints < frame[2:])).all(1)]
        if len(inside) < 4:
            continue
        flesh = FLESH * scene.focal[0] / at[0, :, 2].mean()
        box = np.concatenate([inside.min(0) - flesh, inside.max(0) + flesh])
        keypoints = project(scene.people.coco + scene.transl[:, None], scene.focal)[0]
        samples.append((image, cut(box, frame), keypoints, np.ones(17, bool)))
    return samples


def cut(box: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The box inside the frame, both xyxy."""
    return np.clip(box, np.tile(frame[:2], 2), np.tile(frame[2:], 2))


def photographs(paths: list[Path], pose_model: Path, person_model: Path) -> list[Sample]:
    pose, person, rng = PoseModel(pose_model), PersonModel(person_model), np.random.default_rng(5)
    people: list[tuple[Any, ...]] = []
    for path in paths:
        image = read_rgb(path)
        for box, score in zip(*person.boxes(image), strict=True):
            side = float((box[2:] - box[:2]).max())
            points = pose.keypoints(image, box)
            if score < 0.45 or side < 40 or (points[:, 2] > 0.5).sum() < 8:
                continue
            crop = Crop.around(box, 1.5)
            corners = np.array([[0.0, 0], image.shape[1::-1], box[:2], box[2:]])
            top_left, bottom_right, *inner = crop.to_crop(corners)
            frame = np.clip(np.concatenate([top_left, bottom_right]), 0, CROP)
            points[:, :2] = crop.to_crop(points[:, :2].astype(np.float64))
            people.append((crop.warp(image), points, np.concatenate(inner), frame, side))
    samples = []
    for image, points, box, frame, side in people:
        sure = points[:, 2] > SURE
        samples.append((image, cut(box, frame), points[:, :2], sure))
        for copy in range(COPIES if side > SMALL else COPIES // 3):
            covered, edges, free = occlude(rng, copy % 3, image, points, box, frame, people)
            inside = ((points[:, :2] >= edges[:2]) & (points[:, :2] < edges[2:])).all(1)
            if (inside & free).sum() >= 3:
                longer = float((box[2:] - box[:2]).max())
                seen = cut(box, edges) + rng.normal(0, 0.02, 4) * longer
                samples.append((covered, seen, points[:, :2], sure))
    return samples


def occlude(
    rng: np.random.Generator, kind: int, image: Any, points: Any, box: Any, frame: Any, people: list[Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image behind another person (0) or a block (1), or cut (2); its frame; which joints are not covered."""
    side, middle = float((box[2:] - box[:2]).max()), (box[:2] + box[2:]) / 2
    mask, out, edges = np.zeros((CROP, CROP), np.uint8), image.copy(), frame.copy()
    other, pose, around = people[rng.integers(len(people))][:3]
    if kind == 0:
        grown = side / float((around[2:] - around[:2]).max()) * rng.uniform(0.9, 1.5)
        to = middle + rng.normal(0, 0.3, 2) * side * np.array([0.8, 0.5])
        affine = np.column_stack([grown * np.eye(2), to - grown * (around[:2] + around[2:]) / 2])
        mask = cv2.warpAffine(silhouette(pose), affine, (CROP, CROP))
        out[mask > 0] = cv2.warpAffine(other, affine, (CROP, CROP))[mask > 0]
    elif kind == 1:
        at, size = box[:2] + rng.random(2) * (box[2:] - box[:2]), side * rng.uniform(0.15, 0.5, 2)
        if rng.random() < 0.5:
            cv2.rectangle(mask, *(tuple(map(int, at + s * size / 2)) for s in (-1, 1)), 1, -1)
        else:
            cv2.ellipse(mask, (tuple(at), tuple(size), rng.uniform(0, 180)), 1, -1)
        x, y, width = rng.integers(0, 128), rng.integers(0, 128), rng.integers(20, 128)
        texture = cv2.resize(other[y : y + width, x : x + width], (CROP, CROP))
        out[mask > 0] = texture[mask > 0] if rng.random() < 0.6 else rng.integers(0, 255, 3)
    else:
        edge, left = rng.choice(4, p=[0.2, 0.2, 0.1, 0.5]), rng.uniform(0.35, 0.85)
        size = (box[2:] - box[:2])[edge % 2]
        edges[edge] = (
            max(edges[edge], box[edge + 2] - left * size)
            if edge < 2
            else min(edges[edge], box[edge - 2] + left * size)
        )
        x1, y1, x2, y2 = np.rint(edges).astype(int)
        out = np.zeros_like(image)
        out[y1:y2, x1:x2] = image[y1:y2, x1:x2]
    x, y = np.clip(np.rint(points[:, :2]), 0, CROP - 1).astype(int).T
    return out, edges, mask[y, x] == 0


def silhouette(pose: np.ndarray) -> np.ndarray:
    """A person's rough outline from their joints: thick limbs, a trunk, a head."""
    mask = np.zeros((CROP, CROP), np.uint8)
    at = [tuple(int(v) for v in point) for point in np.rint(pose[:, :2])]
    width = max(3, int(0.28 * np.linalg.norm(pose[[5, 6], :2].mean(0) - pose[[11, 12], :2].mean(0))))
    for a, b in COCO17.limbs:
        cv2.line(mask, at[a], at[b], 1, width)
    cv2.fillConvexPoly(mask, np.array([at[j] for j in (5, 6, 12, 11)]), 1)
    cv2.circle(mask, at[0], int(1.1 * width), 1, -1)
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=("rendered", "photographs"))
    parser.add_argument("out", type=Path)
    parser.add_argument("images", type=Path, nargs="*")
    parser.add_argument("--count", type=int, default=700)
    parser.add_argument("--pose-model", type=Path)
    parser.add_argument("--person-model", type=Path)
    options = parser.parse_args()
    if options.kind == "rendered":
        samples = rendered(options.count)
    else:
        samples = photographs(options.images, options.pose_model, options.person_model)
    names = ("images", "boxes", "keypoints", "known")
    np.savez_compressed(
        options.out, **dict(zip(names, map(np.stack, zip(*samples, strict=True)), strict=True))
    )
    print(f"{len(samples)} people in {options.out}")


if __name__ == "__main__":
    main()
