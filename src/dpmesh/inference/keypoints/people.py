"""From the people of a keypoint file to detections: points cleaned, boxes and scores completed, faults counted."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32, Float64

from dpmesh.errors import InputError
from dpmesh.inference.detections import Detection
from dpmesh.inference.keypoints.boxes import refuse_box
from dpmesh.inference.keypoints.raw import FileImage, FilePerson, Format
from dpmesh.inference.keypoints.scale import to_pixels
from dpmesh.skeletons import COCO17, JOINTS30, convert

FAR_OUTSIDE = 0.5
"""A point further outside than this share of the image's long side is a mistake: not visible."""
MARGIN = 0.15
"""Margin of a box around keypoints, in its long sides: heads and hands extend beyond their joints."""
_OUTSIDE = 0.05
"""How far outside a point may lie and still extend the box, in long sides of the image."""


@dataclass(frozen=True)
class KeypointPeople:
    """People of one image, and what was forgiven in reading them.

    non_finite: points with NaN, infinity or null; far_outside: points far from the image; both are not visible then.
    skipped: entries without a visible joint and without a box, crowds, and other classes than persons.
    malformed: entries that cannot be read, next to others that can. no_label_file: 1 where a folder of labels
    has a file for other images, and none for this one.
    """

    people: tuple[Detection, ...]
    non_finite: int = 0
    far_outside: int = 0
    skipped: int = 0
    malformed: int = 0
    no_label_file: int = 0


def joined(parts: Iterable[KeypointPeople]) -> KeypointPeople:
    """All people, and the sums of the counts."""
    parts = list(parts)
    counts = [field.name for field in fields(KeypointPeople) if field.name != "people"]
    people = tuple(person for part in parts for person in part.people)
    return KeypointPeople(people, **{name: sum(getattr(part, name) for part in parts) for name in counts})


def people_of(
    image: FileImage, form: Format, scale: float, image_size: tuple[int, int], path: str
) -> KeypointPeople:
    """The people of one image of the file `path`. Raises InputError.

    scale: what confidences are divided by. image_size: (h, w) px.
    """
    read: list[tuple[FilePerson, str]] = []
    faults: list[InputError] = []
    for where, row in image.rows:
        try:
            read.append((image.read(row), where))
        except InputError as error:
            faults.append(InputError(error.what, where=f"{path}: {where}", fix=error.fix))
    wanted = [person for person, _ in read if not person.skip]
    skipped = len(read) - len(wanted)
    if faults and not wanted:
        raise faults[0]
    try:
        in_pixels = to_pixels(wanted, image, image_size, form.fractions, "canvas")
    except InputError as error:
        raise InputError(error.what, where=path, fix=error.fix) from None
    people: list[Detection] = []
    non_finite = far_outside = 0
    for person in in_pixels:
        points, broken, far = cleaned(person.points, image_size, scale)
        non_finite, far_outside = non_finite + broken, far_outside + far
        visible = points[points[:, 2] > 0]
        box = _usable_box(person.box, image_size)
        if not len(visible) and box is None:
            skipped += 1
            continue
        box = _around(visible, image_size) if box is None else box
        score = float(visible[:, 2].mean()) if len(visible) else 0.0
        if person.score is not None and np.isfinite(person.score):
            score = float(np.clip(person.score / scale, 0, 1))
        exact = points.astype(np.float32)
        coco, joints30 = (convert(exact, person.joints, joints) for joints in (COCO17, JOINTS30))
        people.append(Detection(box, coco, score, joints30))
    return KeypointPeople(tuple(people), non_finite, far_outside, skipped, len(faults))


def cleaned(
    points: Float64[np.ndarray, "j 3"], size: tuple[int, int], scale: float = 1.0
) -> tuple[Float64[np.ndarray, "j 3"], int, int]:
    """Points with confidences in [0, 1] and unusable points zero; how many were not finite; how many far outside.

    size: (h, w) px. scale: what confidences are divided by.
    """
    points = points.copy()
    points[:, 2] /= scale
    broken = ~np.isfinite(points).all(-1)
    reach = FAR_OUTSIDE * max(size)
    limit = np.asarray([size[1], size[0]]) + reach
    with np.errstate(invalid="ignore"):
        far = ~broken & (points[:, 2] > 0) & ((points[:, :2] < -reach) | (points[:, :2] > limit)).any(-1)
    points[broken | far] = 0
    points[:, 2] = points[:, 2].clip(0, 1)
    points[points[:, 2] == 0] = 0
    return points, int(broken.sum()), int(far.sum())


def _usable_box(
    box: tuple[float, float, float, float] | None, size: tuple[int, int]
) -> Float32[np.ndarray, "4"] | None:
    """The file's box, if a pose can be detected in it."""
    if box is None or not np.isfinite(box).all():
        return None
    try:
        refuse_box(box, "", size)
    except InputError:
        return None
    return np.asarray(box, np.float32)


def _around(visible: Float64[np.ndarray, "k 3"], size: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    """Box around visible points with a margin; at least a twentieth of the image's long side, around few points.

    Points outside the image extend it only where fewer than two lie inside: they are guesses.
    """
    long_side = max(size)
    xy, near = visible[:, :2], _OUTSIDE * long_side
    inside = ((xy >= -near) & (xy <= np.asarray([size[1], size[0]]) + near)).all(1)
    xy = xy[inside] if inside.sum() >= 2 else xy
    low, high = xy.min(0), xy.max(0)
    extent = max(float((high - low).max()), long_side / 20)
    return np.concatenate([low - MARGIN * extent, high + MARGIN * extent]).astype(np.float32)
