"""People supplied by the user instead of the detector: keypoints or boxes, as a file or as an array."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from dpmesh.errors import InputError
from dpmesh.inference.detections import Detection, PersonDetector
from dpmesh.inference.keypoints.boxes import Boxes, few_enough, read_boxes, refuse_box
from dpmesh.inference.keypoints.files import read_keypoint_file
from dpmesh.inference.keypoints.formats import JOINT_ORDERS
from dpmesh.inference.keypoints.people import cleaned
from dpmesh.inference.keypoints.raw import FileImage, FilePerson, with_flags
from dpmesh.inference.keypoints.scale import to_pixels
from dpmesh.inference.options import PredictOptions
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

UserInput = str | Path | np.ndarray | Tensor | Sequence[Any] | None
_ENLARGED = 1.2
"""Size of a box around joints, relative to their extent: hands, feet and hair reach beyond them."""
_BY_COUNT: Mapping[int, Skeleton] = {
    len(joints): joints
    for joints in (COCO17, OPENPOSE18, OPENPOSE25, HALPE26, JOINTS30, WHOLEBODY133, HALPE136)
}


def user_detections(
    image: UInt8[np.ndarray, "h w 3"],
    name: str,
    options: PredictOptions,
    detector: PersonDetector,
    only_image: bool = True,
    inputs: Sequence[str] = (),
) -> tuple[list[Detection], Counter[str]]:
    """The user's people of the image at the path `name`, and how many faults of the input were forgiven.

    From the options' keypoints, boxes and format. Without keypoints the detector finds the pose in each box;
    with both, each person gets the box that holds their joints. only_image: no other image is processed.
    inputs: paths of all images that are processed: an entry of a file serves one of them.
    Raises InputError.
    """
    size = (image.shape[0], image.shape[1])
    keypoints, boxes = (
        cast("str | Path | np.ndarray | None", value) for value in (options.keypoints, options.boxes)
    )
    window: Boxes | None = None
    if boxes is not None:
        from_array = isinstance(boxes, np.ndarray)
        window = _boxes(boxes, size) if from_array else read_boxes(boxes, name, size, only_image, inputs)
    counts = Counter(skipped=0 if window is None else window.skipped)
    if keypoints is None:
        assert window is not None
        people = list(detector.keypoints_in_boxes(image, window.xyxy, window.scores))
        counts += Counter(unposed=sum(not p.posed for p in people), turned=sum(p.rotated for p in people))
        return people, counts
    if isinstance(keypoints, np.ndarray):
        people, forgiven = _people(_keypoints(keypoints, options.format), size, window)
        counts += forgiven
    else:
        read = read_keypoint_file(Path(keypoints), name, size, only_image, options.format, inputs)
        people = list(read.people)
        forgiven = ("non_finite", "far_outside", "skipped", "malformed", "no_label_file")
        counts += Counter({field: getattr(read, field) for field in forgiven})
    if window is not None:
        people = _with_boxes(people, window)
    return people, counts


def _with_boxes(people: list[Detection], boxes: Boxes) -> list[Detection]:
    """Each person with the box that holds most of their visible joints; raises InputError where that is ambiguous."""
    if len(boxes.xyxy) != len(people):
        raise InputError(
            f"{len(boxes.xyxy)} boxes for {len(people)} people", where="boxes", fix="Use one box for each."
        )
    if not people:
        return []
    from scipy.optimize import linear_sum_assignment  # here: slow to import

    inside = np.array([[_share_inside(person, box) for box in boxes.xyxy] for person in people])
    rows, columns = linear_sum_assignment(-inside)
    if (inside[rows, columns] < 0.5).any():
        i = int(rows[np.argmin(inside[rows, columns])])
        raise InputError(
            f"no box holds the joints of person {i}",
            where="boxes",
            fix="Use one box x1,y1,x2,y2 px for each person.",
        )
    return [replace(people[i], box=boxes.xyxy[j]) for i, j in zip(rows, columns, strict=True)]


def _share_inside(person: Detection, box: Float32[np.ndarray, "4"]) -> float:
    visible = person.keypoints[person.keypoints[:, 2] > 0, :2]
    if not len(visible):
        return 1.0
    return float(((visible >= box[:2]) & (visible <= box[2:])).all(1).mean())


def _boxes(boxes: np.ndarray, size: tuple[int, int]) -> Boxes:
    rows = boxes[None] if boxes.shape == (4,) else boxes
    real = rows.dtype.kind in "iuf" and rows.ndim == 2 and rows.shape[1] == 4
    if not real or not np.isfinite(rows.astype(np.float64)).all():
        raise InputError("boxes must be P×4 finite numbers, x1 y1 x2 y2", where="boxes")
    few_enough(len(rows), "boxes")
    for i, row in enumerate(rows):
        refuse_box([float(v) for v in row], f"boxes[{i}]", size)
    return Boxes(rows.astype(np.float32), np.ones(len(rows), np.float32))


def _keypoints(keypoints: np.ndarray, order: str | None) -> list[FilePerson]:
    """People of an array; the joint order is named, or follows from the number of joints.

    Without a third number all points but 0, 0 are visible.
    """
    array = keypoints[None] if keypoints.ndim == 2 else keypoints
    if array.ndim != 3 or array.shape[2] not in (2, 3) or array.dtype.kind not in "fiu":
        shape = "×".join(map(str, keypoints.shape))
        raise InputError(
            f"keypoints must be P×J×3 (x, y, confidence) or P×J×2, not {shape}", where="keypoints"
        )
    count = array.shape[1]
    if order is not None and order not in JOINT_ORDERS:
        raise InputError(
            f"unknown joint order {order!r}", where="format", fix=f"Choose of: {', '.join(JOINT_ORDERS)}."
        )
    joints = JOINT_ORDERS[order] if order else _BY_COUNT.get(count)
    if joints is None or len(joints) != count:
        orders = [f'"{name}"' for name, joints in JOINT_ORDERS.items() if len(joints) == count]
        known = ", ".join(f"{n} ({joints.name})" for n, joints in _BY_COUNT.items())
        fix = f"Name their order: format={' or '.join(orders)}." if orders else f"Known by number: {known}."
        what = f"{count} joints, {order} has {len(joints)}" if joints else f"{count} joints of unknown order"
        raise InputError(what, where="keypoints", fix=fix)
    array = array.astype(np.float64)
    return [FilePerson(with_flags(p) if array.shape[2] == 2 else p, joints) for p in array]


def _people(
    read: list[FilePerson], size: tuple[int, int], boxes: Boxes | None
) -> tuple[list[Detection], Counter[str]]:
    """People of an array, cleaned as those of a file; raises InputError for one without a visible joint or a box."""
    counts = Counter[str]()
    people: list[Detection] = []
    placed = to_pixels(read, FileImage((), [], lambda row: row), size, "never", "array")
    for i, person in enumerate(placed):
        points, broken, far = cleaned(person.points, size)
        counts += Counter(non_finite=broken, far_outside=far)
        visible = points[points[:, 2] > 0]
        if not len(visible) and boxes is None:
            raise InputError("no joint of this person is visible", where=f"keypoints[{i}]", fix="Add boxes.")
        box = np.zeros(4, np.float32) if not len(visible) else around(visible, size)
        exact, score = points.astype(np.float32), float(visible[:, 2].mean()) if len(visible) else 1.0
        coco = convert(exact, person.joints, COCO17)
        joints = None if person.joints is COCO17 else convert(exact, person.joints, JOINTS30)
        people.append(Detection(box, coco, score) if joints is None else Detection(box, coco, score, joints))
    return people, counts


def around(visible: Float64[np.ndarray, "k 3"], size: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    low, high = visible[:, :2].min(0), visible[:, :2].max(0)
    middle, least = (low + high) / 2, max(size) / 20  # a lone joint gets a box too
    reach = np.maximum((high - low) * _ENLARGED, least) / 2
    return np.concatenate([middle - reach, middle + reach]).astype(np.float32)
