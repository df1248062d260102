"""People that the user gives instead of the detector: keypoints or boxes, as a file or as an array."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from dpmesh.pipeline.keypoint_files import read_boxes, read_keypoints
from jaxtyping import Float, UInt8

from dpmesh.errors import InputError
from dpmesh.pipeline.detect import Detection

Given = str | Path | np.ndarray | None
_ENLARGED = 1.2
"""A box made from joints alone is this much larger than they are: hands, feet and hair reach beyond them."""


@runtime_checkable
class PosesInBoxes(Protocol):
    def keypoints_in_boxes(
        self, image: UInt8[np.ndarray, "h w 3"], boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]: ...


def detections_of(
    image: UInt8[np.ndarray, "h w 3"], name: str, keypoints: Given, boxes: Given, detector: PosesInBoxes
) -> list[Detection]:
    """The given people of picture `name`; raises InputError for what cannot be used.

    keypoints: a COCO or OpenPose file, or (P, 17, 3). boxes: a file, or (P, 4); the pose is then looked for
    inside each. Both: box i belongs to person i.
    """
    size = (image.shape[0], image.shape[1])
    window = None
    if boxes is not None:
        window = _boxes(boxes) if isinstance(boxes, np.ndarray) else read_boxes(boxes, name, size)
    if keypoints is None:
        assert window is not None
        return list(detector.keypoints_in_boxes(image, window))
    if isinstance(keypoints, np.ndarray):
        people = [_person(person) for person in _keypoints(keypoints)]
    else:
        people = list(read_keypoints(keypoints, name, size))
    if window is None:
        return people
    if len(window) != len(people):
        raise InputError(
            f"{len(window)} boxes for {len(people)} people", where="boxes", fix="Give one box for each."
        )
    return [Detection(w, p.keypoints, p.score, p.keypoints30) for w, p in zip(window, people, strict=True)]


def _boxes(boxes: np.ndarray) -> Float[np.ndarray, "p 4"]:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise InputError("boxes must be P×4 finite numbers, x1 y1 x2 y2", where="boxes")
    boxes = boxes.astype(np.float32)
    if ((boxes[:, 2:] - boxes[:, :2]) <= 0).any():
        raise InputError("a box must have x1 < x2 and y1 < y2", where="boxes")
    return boxes


def _keypoints(keypoints: np.ndarray) -> Float[np.ndarray, "p 17 3"]:
    if keypoints.ndim != 3 or keypoints.shape[1:] != (17, 3):
        raise InputError("keypoints must be P×17×3: COCO order, x y confidence", where="keypoints")
    keypoints = keypoints.astype(np.float32)
    broken = ~np.isfinite(keypoints).all(-1)
    keypoints[broken] = 0  # an unseen joint, as in the files
    return keypoints


def _person(keypoints: Float[np.ndarray, "17 3"]) -> Detection:
    seen = keypoints[keypoints[:, 2] > 0, :2]
    if not len(seen):
        raise InputError("no joint of this person is seen", where="keypoints", fix="Give boxes as well.")
    low, high = seen.min(0), seen.max(0)
    half = max(float((high - low).max()), 1.0) / 2 * _ENLARGED
    middle = (low + high) / 2
    reach = np.maximum((high - low) / 2 * _ENLARGED, 0.25 * half)
    box = np.concatenate([middle - reach, middle + reach]).astype(np.float32)
    return Detection(box, keypoints, float(keypoints[keypoints[:, 2] > 0, 2].mean()))
