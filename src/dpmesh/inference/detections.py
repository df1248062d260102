"""Detected people: their data types, and merging several detections of one person."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from dpmesh.skeletons import COCO17, COCO_SIGMAS, JOINTS30, convert


@dataclass(frozen=True, eq=False)
class Detection:
    """One person, in pixels of the full image (x right, y down).

    box: x1 y1 x2 y2, right and bottom exclusive.
    keypoints: COCO-17, x y and confidence in [0, 1]; 0 is not visible.
    score: of the person, in [0, 1].
    keypoints30: the same in skeletons.JOINTS30, with Pelvis and Neck; converted from `keypoints` by default.
    rotated: whether the keypoints come from the rotated crop (`Detector`).
    """

    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "17 3"]
    score: float
    keypoints30: Float32[np.ndarray, "30 3"] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    rotated: bool = False

    def __post_init__(self) -> None:
        if not len(self.keypoints30):
            object.__setattr__(self, "keypoints30", convert(self.keypoints, COCO17, JOINTS30))

    @property
    def posed(self) -> bool:
        """Whether any joint is visible."""
        return bool(self.keypoints30[:, 2].any())


@dataclass(frozen=True)
class DetectionResult:
    """People, highest score first, and how many detections are not among them.

    merged: detections that were of a person already detected.
    dropped: people beyond max_people.
    """

    people: tuple[Detection, ...]
    merged: int = 0
    dropped: int = 0


@runtime_checkable
class PersonDetector(Protocol):
    """The interface of a detector (`detector.Detector`): `predictor.detector = YourDetector()` uses your own.

    The image is RGB. `__call__` detects the people, highest score first, at most max_people of them;
    `keypoints_in_boxes` gives one Detection for each of the user's boxes, in order. A text attribute `name` is recorded
    in scenes.
    """

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = ...) -> DetectionResult: ...

    def keypoints_in_boxes(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        scores: Float32[np.ndarray, "n"] | None = None,
    ) -> tuple[Detection, ...]: ...


def detector_record(detector: PersonDetector) -> dict[str, object]:
    """The name of a detector that has one, as scenes record it."""
    name = getattr(detector, "name", None)
    return {"detector": name} if isinstance(name, str) else {}


def merge_detections(detections: tuple[Detection, ...], max_people: int) -> DetectionResult:
    """Keep one detection per person, and the `max_people` with the highest scores."""
    people: list[Detection] = []
    # Of two detections of one person the posed one stays, even if its box has the lower score.
    for person in sorted(detections, key=lambda p: (not p.posed, -p.score)):
        if not any(same_person(person.keypoints, person.box, other.keypoints, other.box) for other in people):
            people.append(person)
    kept = sorted(people, key=lambda p: -p.score)[:max_people]
    return DetectionResult(
        people=tuple(kept),
        merged=len(detections) - len(people),
        dropped=len(people) - len(kept),
    )


_VARIANCES = (2 * np.asarray(COCO_SIGMAS, np.float64)) ** 2


def box_area(boxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n"]:
    """Areas in px² of xyxy boxes; 0 where a box is empty or inverted."""
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)


def box_iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of every pair of xyxy boxes; 0 for a pair of empty ones."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = box_area(np.concatenate([low, high], -1))
    union = box_area(a)[:, None] + box_area(b)[None] - common
    return np.where(union > 0, common / np.maximum(union, 1e-9), 0.0)


def suppress(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, "n"], limit: float
) -> Int[np.ndarray, "k"]:
    """Greedy non-maximum suppression: the indices kept, best first.

    No kept box has a higher IoU than `limit` with a better one.
    """
    order = np.argsort(-scores, kind="stable")
    overlaps = box_iou(boxes, boxes)
    kept: list[int] = []
    for index in order:
        if all(overlaps[index, better] <= limit for better in kept):
            kept.append(int(index))
    return np.asarray(kept, np.int64)


def keypoint_similarity(
    a: Float32[np.ndarray, "17 3"], b: Float32[np.ndarray, "17 3"], area: float, confidence: float = 0.2
) -> float:
    """COCO's object-keypoint similarity in [0, 1] over joints that are visible in both (at least `confidence`).

    area: the person's size in px², as in COCO's evaluation. 0 where fewer than three joints are shared.
    """
    both = (a[:, 2] >= confidence) & (b[:, 2] >= confidence)
    if both.sum() < 3 or area <= 0:
        return 0.0
    squared = ((a[both, :2].astype(np.float64) - b[both, :2]) ** 2).sum(-1)
    return float(np.exp(-squared / (2 * area * _VARIANCES[both])).mean())


def same_person(
    keypoints_a: Float32[np.ndarray, "17 3"],
    box_a: Float32[np.ndarray, "4"],
    keypoints_b: Float32[np.ndarray, "17 3"],
    box_b: Float32[np.ndarray, "4"],
) -> bool:
    """Whether two detections are of one person.

    The keypoints decide: boxes of two people in front of each other overlap as much as two boxes of one person. The
    boxes decide only where fewer than three joints are shared; a box without a pose is easily another one's.
    """
    overlap = float(box_iou(box_a[None], box_b[None])[0, 0])
    shared = int(((keypoints_a[:, 2] >= 0.2) & (keypoints_b[:, 2] >= 0.2)).sum())
    if shared < 3:
        one_posed = bool(keypoints_a[:, 2].any()) != bool(keypoints_b[:, 2].any())
        return overlap > (0.5 if one_posed else 0.85)
    # The smaller box: half a body inside a whole one is the same person only if it is so on its own scale.
    area = float(box_area(np.stack([box_a, box_b])).min())
    return overlap > 0.1 and keypoint_similarity(keypoints_a, keypoints_b, area) > 0.6


def explains(people: tuple[Detection, ...], pose: Detection) -> bool:
    """Whether a pose of the whole image is one of the people already detected: as `same_person`, more tolerant."""
    for one in people:
        shared = int(((one.keypoints[:, 2] >= 0.2) & (pose.keypoints[:, 2] >= 0.2)).sum())
        if shared < 3:
            known = float(box_iou(one.box[None], pose.box[None])[0, 0]) > 0.5
        else:
            area = float(box_area(np.stack([one.box, pose.box])).min())
            known = keypoint_similarity(one.keypoints, pose.keypoints, area) > 0.3
        if known:
            return True
    return False
