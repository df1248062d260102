"""Boxes and keypoints that explain the same person: overlap, similarity, suppression, merging."""

import numpy as np
from jaxtyping import Float, Float32, Int

from dpmesh.skeletons import COCO_SIGMAS

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
    """Greedy non-maximum suppression: indices that stay, best first; none overlaps a better one by more."""
    order = np.argsort(-scores, kind="stable")
    overlaps = box_iou(boxes, boxes)
    kept: list[int] = []
    for index in order:
        if all(overlaps[index, better] <= limit for better in kept):
            kept.append(int(index))
    return np.asarray(kept, np.int64)


def keypoint_similarity(
    a: Float32[np.ndarray, "17 3"], b: Float32[np.ndarray, "17 3"], area: float, seen: float = 0.2
) -> float:
    """COCO's object-keypoint similarity in [0, 1] over joints that both see (confidence >= seen).

    area: the person's size in px², as in COCO's evaluation. Fewer than three shared joints say nothing: 0.
    """
    both = (a[:, 2] >= seen) & (b[:, 2] >= seen)
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
    """Whether two outputs explain one person.

    Boxes of two people before each other overlap as much as two boxes on one person; their keypoints do not.
    So the keypoints decide, and the boxes only where the keypoints say nothing.
    """
    overlap = float(box_iou(box_a[None], box_b[None])[0, 0])
    shared = int(((keypoints_a[:, 2] >= 0.2) & (keypoints_b[:, 2] >= 0.2)).sum())
    if shared < 3:
        return overlap > 0.85
    # The smaller box: a half body inside a whole one is the same person only if it is so on its own scale.
    area = float(box_area(np.stack([box_a, box_b])).min())
    return overlap > 0.1 and keypoint_similarity(keypoints_a, keypoints_b, area) > 0.6
