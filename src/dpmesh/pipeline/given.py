"""People that the user gives instead of the detector: keypoints or boxes, as a file or as an array."""

from collections import Counter
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from dpmesh.errors import InputError
from dpmesh.pipeline.detect import Detection
from dpmesh.pipeline.keypoint_files import KeypointPeople, read_boxes, read_keypoint_file

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
        window = _boxes(boxes) if isinstance(boxes, np.ndarray) else read_boxes(boxes, name, size)
    if keypoints is None:
        assert window is not None
        people = list(detector.keypoints_in_boxes(image, window))
        return people, Counter(unposed=sum(not p.posed for p in people), turned=sum(p.turned for p in people))
    if isinstance(keypoints, np.ndarray):
        array = _keypoints(keypoints)
        read = KeypointPeople(tuple(_person(p, size) for p in array))
    else:
        read = read_keypoint_file(Path(keypoints), name, size, only_image)
    people = list(read.people)
    if window is not None:
        if len(window) != len(people):
            raise InputError(
                f"{len(window)} boxes for {len(people)} people", where="boxes", fix="Give one box for each."
            )
        pairs = zip(window, people, strict=True)
        people = [Detection(box, p.keypoints, p.score, p.keypoints30) for box, p in pairs]
    return people, Counter(non_finite=read.non_finite, far_outside=read.far_outside, skipped=read.skipped)


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


def _person(keypoints: Float[np.ndarray, "17 3"], size: tuple[int, int]) -> Detection:
    seen = keypoints[keypoints[:, 2] > 0, :2]
    if not len(seen):
        raise InputError("no joint of this person is seen", where="keypoints", fix="Give boxes as well.")
    low, high = seen.min(0), seen.max(0)
    middle, least = (low + high) / 2, max(size) / 20  # so that a lone joint has a box too
    reach = np.maximum((high - low) * _ENLARGED, least) / 2
    box = np.concatenate([middle - reach, middle + reach]).astype(np.float32)
    return Detection(box, keypoints, float(keypoints[keypoints[:, 2] > 0, 2].mean()))
