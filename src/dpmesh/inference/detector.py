"""Person detection: boxes and COCO keypoints, by three small models that ship with the package.

SSDLite-MobileNetV2 detects boxes, and MoveNet MultiPose the poses of up to six people in the whole image: poses that no
box explains become people too. In a square crop around each person MoveNet Thunder detects the keypoints, and MultiPose
once more: whether both agree tells how likely each keypoint is right (`confidence`). MoveNet was mostly trained on
upright people: where the trunk is far from upright, both run again on the crop rotated by the trunk's angle, and the
second pose is kept if it is the same person's and more confident. `fast` takes MultiPose's poses of the whole image.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from dpmesh.errors import InputError
from dpmesh.inference.detections import (
    Detection,
    DetectionResult,
    explains,
    merge_detections,
    same_person,
    suppress,
)
from dpmesh.inference.options import ModelOptions
from dpmesh.inference.shipped_models import ShippedModels
from dpmesh.inference.top_down import SURE, Known, Readings, TopDown
from dpmesh.inference.user_models.person import PersonModel
from dpmesh.inference.user_models.pose import PoseModel

BOX_SCORE, BOX_OVERLAP, BOX_SIDE = 0.4, 0.6, 640  # Measured on crowds; the box model takes at most 640 px.
FAST_SCORE, FAST_SIDE = 0.15, 384  # MultiPose is most accurate at 256-384 px on the long side.
EXTRA_SCORE, EXTRA_SIDE, EXTRA_JOINTS = 0.16, 384, 7
"""A pose of the whole image that no box explains: least score, the longer side of the model's input, and least number
of joints in its own crop that are more likely right than not."""
LEAST_JOINTS = 2.5
"""Least sum of a person's confidences."""
CROWD, SMALL, TILE, TILE_EDGE = 5, 0.12, 0.5, 0.02
"""Tiles are searched for further people where there are this many, or where one is smaller than this share of the
image's longer side; side of a tile in sides of the image; poses this near an inner edge, in sides of the tile, are cut
and left out."""
BAND = 12  # A side longer than 12 times the other is padded, so that resizing never leaves an empty image.


Person = Readings | Known


class Detector:
    """Detects people. Deterministic. The models are opened at first use.

    threads: of onnxruntime. fast: one pass of the pose model over the whole image. folder: other model files of the
    same names, for comparing with the float32 originals. rotated_detection: detect twice where a person leans or lies;
    never with `fast` or a pose_model. person_model, pose_model: the user's, in place of the models that ship.
    """

    def __init__(
        self,
        threads: int = 1,
        fast: bool = False,
        folder: Path | None = None,
        rotated_detection: bool = True,
        person_model: PersonModel | None = None,
        pose_model: PoseModel | None = None,
    ) -> None:
        self.fast, self.rotated_detection = fast, rotated_detection
        self.person_model, self.pose_model = person_model, pose_model
        self._models = ShippedModels(threads, folder)
        self.top_down = TopDown(self._models, rotated_detection)

    @classmethod
    def from_options(cls, options: ModelOptions) -> "Detector":
        """Raises InputError, ConfigError for a model of the user that cannot be used."""
        person, pose, threads = options.person_model, options.pose_model, options.threads
        return cls(
            threads,
            options.fast,
            rotated_detection=options.rotated_detection,
            person_model=None if person is None else PersonModel(Path(person), threads),
            pose_model=None if pose is None else PoseModel(Path(pose), threads),
        )

    @property
    def estimates_roll(self) -> bool:
        """Whether a camera's roll is estimated, and people detected in the image turned upright (rolled.py)."""
        return self.rotated_detection and not self.fast

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        """The people in an RGB image; none in a tiny one. Raises InputError for an image without pixels."""
        if image.size == 0:
            raise InputError("the image has no pixels", where="image", fix="Give an H×W×3 uint8 RGB array.")
        if self.fast:
            return merge_detections(self.poses(image), max_people)
        boxes, scores = self.boxes(image)
        certain = self._readings(image, boxes, scores)
        more = [] if self.person_model else self._without_box(image, _people(certain))
        least = LEAST_JOINTS if self.pose_model is None else 0.0
        return merge_detections(told_apart(certain, more, least), max_people)

    def boxes(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, "n"]]:
        """Person boxes (xyxy px, inside the image) and scores, best first, after non-maximum suppression."""
        if self.person_model is not None:
            return self.person_model.boxes(image)
        padded = _pad_band(image)
        height, width = padded.shape[:2]
        small = _resize(padded, min(1.0, BOX_SIDE / max(height, width)))
        scores, boxes = self._models.boxes.run(None, {"image_tensor:0": small[None]})
        scores, boxes = (
            scores[0, :, 0],
            boxes[0, :, 0],
        )  # (1917,) of persons; (1917, 4) ymin xmin ymax xmax, 0..1
        confident = scores >= BOX_SCORE
        people = _inside(boxes[confident][:, [1, 0, 3, 2]] * _scale(width, height), image.shape)
        real = _has_area(people)
        people, scores = people[real], scores[confident][real]
        kept = suppress(people, scores, BOX_OVERLAP)
        return people[kept], scores[kept]

    def keypoints_in_boxes(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        scores: Float32[np.ndarray, "n"] | None = None,
    ) -> tuple[Detection, ...]:
        """One Detection per box (xyxy px), in order; without scores each is 1.

        Where no pose overlaps the box, no joint is visible. Raises InputError for a box without area.
        """
        scores = np.ones(len(boxes), np.float32) if scores is None else scores
        return _people(self._readings(image, boxes, scores))

    def _readings(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        scores: Float32[np.ndarray, "n"],
    ) -> list[Person]:
        """Of the person in each box, in order."""
        rows = zip(boxes, scores, strict=True)
        if self.pose_model is None:
            return [self.top_down.readings(image, box, float(score)) for box, score in rows]
        return [Known(self.pose_model.detect(image, box, float(score))) for box, score in rows]

    def poses(
        self, image: UInt8[np.ndarray, "h w 3"], least: float = FAST_SCORE, side: int = FAST_SIDE
    ) -> tuple[Detection, ...]:
        """Up to six people, of at least that score, from one pass of MultiPose over the whole image.

        side: the longer one of the model's input, px.
        """
        padded = _pad_band(image)
        scale = min(side / max(padded.shape[:2]), 4.0)
        small = _resize(padded, scale)
        # The model wants multiples of 32; black below and to the right moves no pixel.
        below, right = (-side % 32 for side in small.shape[:2])
        poses, boxes, scores = self.top_down.poses(np.pad(small, ((0, below), (0, right), (0, 0))))
        poses[..., :2] /= np.float32(scale)
        boxes = _inside(boxes / np.float32(scale), image.shape)
        good = (scores >= least) & _has_area(boxes)
        detected = zip(boxes[good], poses[good], scores[good], strict=True)
        return tuple(Detection(box, pose, float(score)) for box, pose, score in detected)

    def _without_box(self, image: UInt8[np.ndarray, "h w 3"], people: tuple[Detection, ...]) -> list[Person]:
        """Of MultiPose's poses that none of `people` explains: of the whole image, in a crowd of its tiles."""
        new = self._unexplained(image, self.poses(image, EXTRA_SCORE, EXTRA_SIDE), people)
        if not _crowded(people + _people(new), image.shape):
            return new
        for x1, y1, x2, y2 in tiles(*image.shape[:2]):
            shift, size = np.array([x1, y1, x1, y1], np.float32), _scale(x2 - x1, y2 - y1)
            poses = self.poses(np.ascontiguousarray(image[y1:y2, x1:x2]), EXTRA_SCORE)
            outer = np.array([x1 == 0, y1 == 0, x2 == image.shape[1], y2 == image.shape[0]])
            near = [np.abs(one.box - np.concatenate([[0, 0], size[2:]])) < TILE_EDGE * size for one in poses]
            whole = [one for one, at in zip(poses, near, strict=True) if not (at & ~outer).any()]
            moved = tuple(
                Detection(one.box + shift, one.keypoints + np.array([x1, y1, 0], np.float32), one.score)
                for one in whole
            )
            new += self._unexplained(image, moved, people + _people(new))
        return new

    def _unexplained(
        self, image: UInt8[np.ndarray, "h w 3"], poses: tuple[Detection, ...], people: tuple[Detection, ...]
    ) -> list[Person]:
        """Of the boxes of poses that are none of `people`'s."""
        new = [pose for pose in poses if not explains(people, pose)]
        if not new:
            return []
        boxes, scores = np.stack([one.box for one in new]), np.array([one.score for one in new], np.float32)
        return [one for one in self._readings(image, boxes, scores) if _many(one.person())]


def told_apart(certain: Sequence[Person], more: Sequence[Person], least: float) -> tuple[Detection, ...]:
    """The people, each with joints of their own: the likelier person's are decided first.

    certain: of boxes that hold a person: without joints where the sum of their confidences is below `least`. more: of
    other boxes. These, and boxes whose joints would be another's, need many joints of their own.
    """
    people: dict[int, Detection] = {}
    alone = [*_people(certain), *_people(more)]
    order = sorted(range(len(alone)), key=lambda i: -float(alone[i].keypoints[:, 2].sum()))
    for i in order:
        before = tuple(people.values())
        person = [*certain, *more][i].person(before)
        another = any(same_person(alone[i].keypoints, person.box, one.keypoints, one.box) for one in before)
        if i < len(certain) and not another:
            known = person.keypoints[:, 2].sum() >= least
        else:
            known = _many(person) and not explains(before, person)
        if known:
            people[i] = person
        elif i < len(certain):
            people[i] = Detection(person.box, np.zeros((17, 3), np.float32), person.score)
    return tuple(people[i] for i in sorted(people))


def _many(person: Detection) -> bool:
    return bool((person.keypoints[:, 2] > SURE).sum() >= EXTRA_JOINTS)


def _people(readings: Sequence[Person]) -> tuple[Detection, ...]:
    """Each person as if alone."""
    return tuple(one.person() for one in readings)


def tiles(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """x1 y1 x2 y2 of nine overlapping tiles of an image, each TILE of its sides."""
    h, w = (max(1, round(TILE * side)) for side in (height, width))
    across, down = ((0, (side - of) // 2, side - of) for side, of in ((width, w), (height, h)))
    return [(x, y, x + w, y + h) for y in down for x in across]


def _crowded(people: tuple[Detection, ...], shape: tuple[int, ...]) -> bool:
    """Whether there are many people, or small ones: then there may be more."""
    sizes = [float((one.box[2:] - one.box[:2]).max()) for one in people]
    return len(sizes) >= CROWD or min(sizes, default=np.inf) < SMALL * max(shape[:2])


def _scale(width: int, height: int) -> Float32[np.ndarray, "4"]:
    return np.asarray([width, height, width, height], np.float32)


def _inside(boxes: Float32[np.ndarray, "n 4"], shape: tuple[int, ...]) -> Float32[np.ndarray, "n 4"]:
    """Boxes cut at the edges of the image."""
    return np.clip(boxes, np.float32(0), _scale(shape[1], shape[0]))


def _has_area(boxes: Float32[np.ndarray, "n 4"]) -> Bool[np.ndarray, "n"]:
    """Which boxes are at least a pixel wide and high."""
    return np.all(boxes[:, 2:] - boxes[:, :2] >= 1, axis=-1)


def _resize(image: UInt8[np.ndarray, "h w 3"], scale: float) -> UInt8[np.ndarray, "h2 w2 3"]:
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    # INTER_AREA averages what it leaves out; enlarging has nothing to average.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _pad_band(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Black below or right of a very long or very small image; pixels stay where they are."""
    height, width = image.shape[:2]
    short = max(-(-max(height, width) // BAND), 16)
    if min(height, width) >= short:
        return image
    return np.pad(image, ((0, max(0, short - height)), (0, max(0, short - width)), (0, 0)))
