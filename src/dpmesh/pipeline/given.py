"""People that the user gives instead of the detector: keypoints or boxes, as a file or as an array."""

from collections import Counter
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from dpmesh.errors import InputError
from dpmesh.pipeline.detect import Detection
from dpmesh.pipeline.keypoint_files import (
    KeypointPeople,
    checked_box,
    cleaned,
    few_enough,
    read_boxes,
    read_keypoint_file,
)

Given = str | Path | np.ndarray | None
_ENLARGED = 1.2
"""A box made from joints alone is this much larger than they are: hands, feet and hair reach beyond them."""


@runtime_checkable
class PosesInBoxes(Protocol):
    def keypoints_in_boxes(
        self, image: UInt8[np.ndarray, "h w 3"], boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]: ...


def detections_of(
    image: UInt8[np.ndarray, "h w 3"],
    name: str,
    keypoints: Given,
    boxes: Given,
    detector: PosesInBoxes,
    only_image: bool = True,
) -> tuple[list[Detection], Counter[str]]:
    """The given people of picture `name`, and what was forgiven; raises InputError for what cannot be used.

    keypoints: a COCO or OpenPose file, or (P, 17, 3). boxes: a file, text, or (P, 4); the pose is then looked
    for inside each. Both: box i belongs to person i. only_image: no other picture is in play.
    """
    size = (image.shape[0], image.shape[1])
    window = None
    if boxes is not None:
        window = _boxes(boxes, size) if isinstance(boxes, np.ndarray) else read_boxes(boxes, name, size)
    if keypoints is None:
        assert window is not None
        people = list(detector.keypoints_in_boxes(image, window))
        return people, Counter(unposed=sum(not p.posed for p in people), turned=sum(p.turned for p in people))
    if isinstance(keypoints, np.ndarray):
        read = _people(keypoints, size, window)
    else:
        read = read_keypoint_file(Path(keypoints), name, size, only_image)
    people = list(read.people)
    if window is not None:
        _one_each(len(window), len(people))
        pairs = zip(window, people, strict=True)
        people = [Detection(box, p.keypoints, p.score, p.keypoints30) for box, p in pairs]
    return people, Counter(non_finite=read.non_finite, far_outside=read.far_outside, skipped=read.skipped)


def _one_each(boxes: int, people: int) -> None:
    if boxes != people:
        raise InputError(f"{boxes} boxes for {people} people", where="boxes", fix="Give one box for each.")


def _boxes(boxes: np.ndarray, size: tuple[int, int]) -> Float[np.ndarray, "p 4"]:
    rows = _numbers(boxes, "boxes")
    if rows.ndim != 2 or rows.shape[1] != 4 or not np.isfinite(rows).all():
        raise InputError("boxes must be P×4 finite numbers, x1 y1 x2 y2", where="boxes")
    few_enough(len(rows), "boxes")
    checked = [checked_box([float(v) for v in row], f"boxes[{i}]", size) for i, row in enumerate(rows)]
    return np.stack(checked) if checked else np.zeros((0, 4), np.float32)


def _people(
    keypoints: np.ndarray, size: tuple[int, int], boxes: Float[np.ndarray, "p 4"] | None
) -> KeypointPeople:
    """People of an array, cleaned as those of a file; raises InputError for one who is not seen and has no box."""
    rows = _numbers(keypoints, "keypoints")
    if rows.ndim != 3 or rows.shape[1:] != (17, 3):
        raise InputError("keypoints must be P×17×3: COCO order, x y confidence", where="keypoints")
    if boxes is not None:
        _one_each(len(boxes), len(rows))
    people: list[Detection] = []
    non_finite = far_outside = 0
    for i, row in enumerate(rows):
        points, broken, far = cleaned(row, size)
        non_finite, far_outside = non_finite + broken, far_outside + far
        people.append(_person(points.astype(np.float32), size, None if boxes is None else boxes[i], i))
    return KeypointPeople(tuple(people), non_finite, far_outside)


def _numbers(array: np.ndarray, where: str) -> np.ndarray:
    """In float64; raises InputError for an array of anything else than real numbers."""
    if array.dtype.kind not in "iuf":
        raise InputError(f"must be an array of numbers; this is {array.dtype}", where=where)
    return array.astype(np.float64)


def _person(
    keypoints: Float[np.ndarray, "17 3"],
    size: tuple[int, int],
    box: Float[np.ndarray, "4"] | None,
    index: int,
) -> Detection:
    seen = keypoints[keypoints[:, 2] > 0]
    if not len(seen) and box is None:
        raise InputError(
            "no joint of this person is seen", where=f"keypoints[{index}]", fix="Give boxes as well."
        )
    score = float(seen[:, 2].mean()) if len(seen) else 1.0
    if box is None:
        low, high = seen[:, :2].min(0), seen[:, :2].max(0)
        middle, least = (low + high) / 2, max(size) / 20  # so that a lone joint has a box too
        reach = np.maximum((high - low) * _ENLARGED, least) / 2
        box = np.concatenate([middle - reach, middle + reach]).astype(np.float32)
    return Detection(box, keypoints, score)
