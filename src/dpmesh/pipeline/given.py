"""People that the user gives instead of the detector: keypoints or boxes, as a file or as an array."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8
from scipy.optimize import linear_sum_assignment

from dpmesh.errors import InputError
from dpmesh.pipeline.detect import Detection
from dpmesh.pipeline.keypoints.boxes import Boxes, read_boxes
from dpmesh.pipeline.keypoints.files import read_keypoint_file
from dpmesh.pipeline.keypoints.formats import JOINT_ORDERS
from dpmesh.pipeline.keypoints.raw import FileImage, FilePerson, with_flags
from dpmesh.pipeline.keypoints.scale import to_pixels
from dpmesh.skeletons import (
    COCO17,
    HALPE26,
    HALPE136,
    JOINTS30,
    OPENPOSE18,
    OPENPOSE25,
    WHOLEBODY133,
    Skeleton,
    convert,
)

Given = str | Path | np.ndarray | None
_ENLARGED = 1.2
"""A box made from joints alone is this much larger than they are: hands, feet and hair reach beyond them."""
_BY_COUNT: Mapping[int, Skeleton] = {
    len(joints): joints
    for joints in (COCO17, OPENPOSE18, OPENPOSE25, HALPE26, JOINTS30, WHOLEBODY133, HALPE136)
}


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
    keypoint_format: str | None = None,
) -> tuple[list[Detection], Counter[str]]:
    """The user's people of the image at the path `name`, and what was forgiven; raises InputError.

    keypoints: a file or folder (keypoints/formats.py), or an array (P, J, 2 or 3), or (J, 2 or 3) of one person.
    boxes: a file, text, or (P, 4); the pose is then looked for inside each. Both: each person gets the box that holds
    their joints. only_image: no other image is in play. keypoint_format: a name of formats.FORMAT_NAMES.
    """
    size = (image.shape[0], image.shape[1])
    window: Boxes | None = None
    if boxes is not None:
        window = _boxes(boxes) if isinstance(boxes, np.ndarray) else read_boxes(boxes, name, size)
    counts = Counter(skipped=0 if window is None else window.skipped)
    if keypoints is None:
        assert window is not None
        people = list(detector.keypoints_in_boxes(image, window.xyxy, window.scores))
        counts += Counter(unposed=sum(not p.posed for p in people), turned=sum(p.turned for p in people))
        return people, counts
    if isinstance(keypoints, np.ndarray):
        people = [_person(p, size) for p in _keypoints(keypoints, keypoint_format)]
    else:
        read = read_keypoint_file(Path(keypoints), name, size, only_image, keypoint_format)
        people = list(read.people)
        forgiven = ("non_finite", "far_outside", "skipped", "malformed")
        counts += Counter({field: getattr(read, field) for field in forgiven})
    if window is not None:
        people = _with_boxes(people, window)
    return people, counts


def _with_boxes(people: list[Detection], boxes: Boxes) -> list[Detection]:
    """Each person with the box that holds most of their visible joints; raises InputError where that is not clear."""
    if len(boxes.xyxy) != len(people):
        raise InputError(
            f"{len(boxes.xyxy)} boxes for {len(people)} people", where="boxes", fix="Give one box for each."
        )
    if not people:
        return []
    inside = np.array([[_share_inside(person, box) for box in boxes.xyxy] for person in people])
    rows, columns = linear_sum_assignment(-inside)
    if (inside[rows, columns] < 0.5).any():
        i = int(rows[np.argmin(inside[rows, columns])])
        raise InputError(
            f"no box holds the joints of person {i}",
            where="boxes",
            fix="Give one box x1,y1,x2,y2 px for each person.",
        )
    return [replace(people[i], box=boxes.xyxy[j]) for i, j in zip(rows, columns, strict=True)]


def _share_inside(person: Detection, box: Float32[np.ndarray, "4"]) -> float:
    visible = person.keypoints[person.keypoints[:, 2] > 0, :2]
    if not len(visible):
        return 1.0
    return float(((visible >= box[:2]) & (visible <= box[2:])).all(1).mean())


def _boxes(boxes: np.ndarray) -> Boxes:
    if boxes.ndim == 1 and boxes.shape == (4,):
        boxes = boxes[None]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise InputError("boxes must be P×4 finite numbers, x1 y1 x2 y2", where="boxes")
    boxes = boxes.astype(np.float32)
    if ((boxes[:, 2:] - boxes[:, :2]) <= 0).any():
        raise InputError("a box must have x1 < x2 and y1 < y2", where="boxes")
    return Boxes(boxes, np.ones(len(boxes), np.float32))


def _keypoints(keypoints: np.ndarray, order: str | None) -> list[FilePerson]:
    """People of an array, by the number of joints or a named order; without a third number all but 0, 0 are visible."""
    array = keypoints[None] if keypoints.ndim == 2 else keypoints
    if array.ndim != 3 or array.shape[2] not in (2, 3) or array.dtype.kind not in "fiu":
        shape = "×".join(map(str, keypoints.shape))
        raise InputError(
            f"keypoints must be P×J×3 (x, y, confidence) or P×J×2, not {shape}", where="keypoints"
        )
    joints = JOINT_ORDERS.get(order) if order else _BY_COUNT.get(array.shape[1])
    if joints is None or len(joints) != array.shape[1]:
        known = ", ".join(f"{n} ({joints.name})" for n, joints in _BY_COUNT.items())
        raise InputError(
            f"{array.shape[1]} joints" + (f" are not {order}'s" if order else ""),
            where="keypoints",
            fix=f"Known by their number: {known}; others by keypoint_format: {', '.join(JOINT_ORDERS)}.",
        )
    array = array.astype(np.float64)
    return [FilePerson(with_flags(p) if array.shape[2] == 2 else p, joints) for p in array]


def _person(person: FilePerson, size: tuple[int, int]) -> Detection:
    people = to_pixels([person], FileImage((), [], lambda row: row), size, "never", "array")
    points = people[0].points.copy()
    points[~np.isfinite(points).all(-1)] = 0  # not visible, as in the files
    points[:, 2] = points[:, 2].clip(0, 1)
    visible = points[points[:, 2] > 0]
    if not len(visible):
        raise InputError("no joint of this person is visible", where="keypoints", fix="Give boxes as well.")
    low, high = visible[:, :2].min(0), visible[:, :2].max(0)
    middle, least = (low + high) / 2, max(size) / 20  # so that a lone joint has a box too
    reach = np.maximum((high - low) * _ENLARGED, least) / 2
    box = np.concatenate([middle - reach, middle + reach]).astype(np.float32)
    exact, score = points.astype(np.float32), float(visible[:, 2].mean())
    coco = convert(exact, person.joints, COCO17)
    if person.joints is COCO17:
        return Detection(box, coco, score)
    return Detection(box, coco, score, convert(exact, person.joints, JOINTS30))
