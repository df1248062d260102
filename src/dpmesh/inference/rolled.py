"""Detection for a camera that is rolled about its axis: people are detected in the image turned upright.

Detectors were trained on upright people, and so was the network: its crops are turned too (geometry/crop.py).
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32, UInt8

from dpmesh.geometry.crop import sample_window
from dpmesh.inference.camera_roll import camera_roll
from dpmesh.inference.detections import Detection, DetectionResult, PersonDetector

LEAST_KEPT = 0.97
"""An estimated roll is dropped where less than this share of the keypoints' confidence is left in the turned image."""


class RolledDetector:
    """A detector for images whose upright things lean `roll` degrees clockwise. Boxes and keypoints are those of the
    image as it is."""

    def __init__(self, detector: PersonDetector, roll: float) -> None:
        self.detector, self.roll = detector, roll

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        to_image, size = upright_window(image.shape[:2], self.roll)
        result = self.detector(sample_window(image, to_image, size), max_people)
        people = tuple(self._back(person, to_image, image.shape[:2]) for person in result.people)
        return replace(result, people=people)

    def keypoints_in_boxes(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        scores: Float32[np.ndarray, "n"] | None = None,
    ) -> tuple[Detection, ...]:
        """One Detection per box of the image, with that box."""
        to_image, size = upright_window(image.shape[:2], self.roll)
        upright = sample_window(image, to_image, size)
        turned = [_inside(upright_box(box, to_image, self.roll), size) for box in boxes]
        rows = np.stack(turned) if turned else np.zeros((0, 4), np.float32)
        people = self.detector.keypoints_in_boxes(upright, rows, scores)
        pairs = zip(people, boxes, strict=True)
        return tuple(replace(self._back(p, to_image, image.shape[:2]), box=box) for p, box in pairs)

    def _back(
        self, person: Detection, to_image: Float[np.ndarray, "2 3"], size: tuple[int, ...]
    ) -> Detection:
        """The person in the image as it is."""
        return replace(
            person,
            box=_inside(leaning_box(person.box, to_image, self.roll), size),
            keypoints=_moved(person.keypoints, to_image),
            keypoints30=_moved(person.keypoints30, to_image),
        )


def detect_people(
    detector: PersonDetector, image: UInt8[np.ndarray, "h w 3"], most: int, focal: float, roll: float | None
) -> tuple[DetectionResult, float]:
    """The people of an image, and the roll for which they were detected, degrees.

    roll: None estimates it, for a detector with `estimates_roll`. One with `turns_images` turns the image itself.
    """
    if roll is not None:
        turn = roll and not getattr(detector, "turns_images", False)
        return (RolledDetector(detector, roll) if turn else detector)(image, most), roll
    level = detector(image, most)
    if not level.people or not getattr(detector, "estimates_roll", False):
        return level, 0.0
    if not (estimate := camera_roll(image, focal)):
        return level, 0.0
    turned = RolledDetector(detector, estimate)(image, most)
    kept = _certainty(turned) >= LEAST_KEPT * _certainty(level)
    return (turned, estimate) if kept else (level, 0.0)


def upright_window(size: tuple[int, ...], roll: float) -> tuple[Float[np.ndarray, "2 3"], tuple[int, int]]:
    """Affine map from pixels of the image turned upright to those of the image (size: h, w), and the size that shows
    all of it."""
    height, width = size
    t = np.deg2rad(roll)
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    w, h = (int(np.ceil(side - 1e-6)) for side in np.abs(turn) @ [width, height])
    start = np.array([width - 1, height - 1]) / 2 - turn @ [(w - 1) / 2, (h - 1) / 2]
    return np.column_stack([turn, start]), (h, w)


def leaning_box(
    box: Float[np.ndarray, "4"], to_image: Float[np.ndarray, "2 3"], roll: float
) -> Float[np.ndarray, "4"]:
    """The box in the image around what fills a box of the upright image as an ellipse does."""
    middle = to_image[:, :2] @ (box[:2] + box[2:]) / 2 + to_image[:, 2]
    half = np.sqrt(_squares(roll) @ ((box[2:] - box[:2]) / 2).astype(np.float64) ** 2)
    return np.concatenate([middle - half, middle + half])


def upright_box(
    box: Float[np.ndarray, "4"], to_image: Float[np.ndarray, "2 3"], roll: float
) -> Float[np.ndarray, "4"]:
    """The inverse of `leaning_box`; a square where the roll is near 45 degrees, or no ellipse fits."""
    middle = to_image[:, :2].T @ ((box[:2] + box[2:]) / 2 - to_image[:, 2])
    half = ((box[2:] - box[:2]) / 2).astype(np.float64)
    squares = np.full(2, half.max() ** 2)
    if abs(np.cos(2 * np.deg2rad(roll))) > _SINGULAR:
        solved = np.linalg.solve(_squares(roll), half**2)
        squares = solved if solved.min() > (_NARROWEST * half.max()) ** 2 else squares
    return np.concatenate([middle - np.sqrt(squares), middle + np.sqrt(squares)])


_SINGULAR, _NARROWEST = 0.2, 0.1


def _squares(roll: float) -> Float[np.ndarray, "2 2"]:
    """From the squared half axes of an upright ellipse to those of the box around the leaning one."""
    c, s = np.cos(np.deg2rad(roll)) ** 2, np.sin(np.deg2rad(roll)) ** 2
    return np.array([[c, s], [s, c]])


def _moved(
    points: Float32[np.ndarray, "n 3"], to_image: Float[np.ndarray, "2 3"]
) -> Float32[np.ndarray, "n 3"]:
    """Points that are not visible move too, but for those that are nowhere (all 0)."""
    moved = np.column_stack([points[:, :2] @ to_image[:, :2].T + to_image[:, 2], points[:, 2]])
    return np.where(np.abs(points).max(1, keepdims=True) > 0, moved, 0).astype(np.float32)


def _inside(box: Float[np.ndarray, "4"], size: tuple[int, ...]) -> Float32[np.ndarray, "4"]:
    """The part of a box inside an image (size: h, w); of one outside the nearest pixel."""
    limit = np.array([size[1], size[0]], np.float64)
    low = np.clip(box[:2], 0, limit - 1)
    return np.concatenate([low, np.clip(box[2:], low + 1, limit)]).astype(np.float32)


def _certainty(result: DetectionResult) -> float:
    return sum(float(person.keypoints[:, 2].sum()) for person in result.people)
