"""People in photographs, labelled by eye (`labels.json`, COCO's format), and which predicted body is whose.

`README.md` beside this file says how they were labelled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from benchmarks.photos.images import Image
from dpmesh.decode import LARGEST_IMAGE
from dpmesh.errors import InputError
from dpmesh.inference.detections import box_area, box_iou
from dpmesh.io import read_bytes, read_json

LABELS = Path(__file__).parent / "labels.json"
MATCH = 0.25
"""Least IoU of a predicted box with a labelled one. Labelled boxes hold the visible part only."""
Split = Literal["tune", "report"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """A person. box: x1 y1 x2 y2 of the visible part, image pixels. keypoints: COCO-17, x y v; v is 2 for visible, 1
    for hidden and 0 for not labelled. crowd: a region with several people who are not labelled one by one.
    """

    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "17 3"]
    occluded: bool
    cut: bool
    crowd: bool

    @property
    def marked(self) -> Float[np.ndarray, "17 3"]:
        """Keypoints with confidence 1 where labelled, else 0 (the form of `keypoints.distances`)."""
        return np.column_stack([self.keypoints[:, :2], self.keypoints[:, 2] > 0])


@dataclass(frozen=True, eq=False)
class Photograph:
    """name: stem of the file. split: prediction may be tuned on "tune" only."""

    name: str
    path: Path
    size: tuple[int, int]
    split: Split
    everybody: tuple[Labelled, ...]

    @property
    def people(self) -> tuple[Labelled, ...]:
        return tuple(person for person in self.everybody if not person.crowd)

    def rgb(self) -> Image:
        """Raises InputError: also where the image has another size than the labels."""
        decoded = cv2.imdecode(
            np.frombuffer(read_bytes(self.path, LARGEST_IMAGE), np.uint8), cv2.IMREAD_COLOR
        )
        if decoded is None or decoded.shape[1::-1] != self.size:
            raise InputError(
                f"is not the image of {self.size[0]}×{self.size[1]} px that was labelled",
                where=str(self.path),
                fix="Fetch it: python -m benchmarks.photos.fetch IMAGES.",
            )
        return np.ascontiguousarray(decoded[..., ::-1])


def photographs(folder: Path, root: Path, labels: Path = LABELS) -> Iterator[Photograph]:
    """All of them, by name. folder: of `benchmarks.photos.fetch`; root: with examples/."""
    read = read_json(labels)
    for image in sorted(read["images"], key=lambda i: str(i["file_name"])):
        path = Path(image["file_name"])
        yield Photograph(
            path.stem,
            (root if path.parts[0] == "examples" else folder) / path,
            (image["width"], image["height"]),
            image["split"],
            tuple(_labelled(a) for a in read["annotations"] if a["image_id"] == image["id"]),
        )


def _labelled(annotation: dict) -> Labelled:
    x, y, w, h = annotation["bbox"]
    return Labelled(
        np.array([x, y, x + w, y + h], np.float64),
        np.array(annotation["keypoints"], np.float64).reshape(17, 3),
        annotation.get("occluded", False),
        annotation.get("cut", False),
        bool(annotation["iscrowd"]),
    )


@dataclass(frozen=True)
class Matches:
    """of: index of the predicted person for each of `Photograph.people`, None where there is none. false: predicted
    people who are not there, or a second body of one; those mostly in a crowd's region are in neither.
    """

    of: tuple[int | None, ...]
    false: tuple[int, ...]


def match(photograph: Photograph, boxes: Sequence[Float[np.ndarray, "4"]]) -> Matches:
    """One to one, with the greatest sum of IoU of boxes; pairs below `MATCH` are none."""
    people = photograph.people
    of: list[int | None] = [None] * len(people)
    predicted = np.reshape(boxes, (-1, 4)).astype(np.float64)
    overlaps = box_iou(np.reshape([p.box for p in people], (-1, 4)), predicted)
    for row, column in zip(*linear_sum_assignment(-overlaps), strict=True):
        if overlaps[row, column] >= MATCH:
            of[row] = int(column)
    crowds = np.reshape([p.box for p in photograph.everybody if p.crowd], (-1, 4))
    false = [i for i in range(len(predicted)) if i not in of and not _inside(predicted[i], crowds)]
    return Matches(tuple(of), tuple(false))


def _inside(box: Float[np.ndarray, "4"], regions: Float[np.ndarray, "n 4"]) -> bool:
    """Whether half of the box or more is in one region."""
    low, high = np.maximum(box[:2], regions[:, :2]), np.minimum(box[2:], regions[:, 2:])
    return bool((box_area(np.concatenate([low, high], -1)) >= 0.5 * box_area(box[None])).any())
