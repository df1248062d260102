"""People in a picture: boxes and COCO keypoints, by two small models that ship with the package.

SSDLite-MobileNetV2 finds boxes; MoveNet MultiPose then reads a square crop around each box and the pose that
overlaps the box most is kept. `fast` runs MoveNet once on the whole picture instead (at most six people).
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from dpmesh.assets import shipped
from dpmesh.errors import AssetError, InputError
from dpmesh.geometry.crop import Crop, sample_window
from dpmesh.inference.rotated_detection import lean, surer, turned_window
from dpmesh.inference.suppression import box_iou, same_person, suppress
from dpmesh.io import open_regular
from dpmesh.skeletons import COCO17, JOINTS30, convert

MODELS = ("ssdlite_mobilenet_v2_coco.onnx", "movenet_multipose.onnx")
"""Files of shipped/detector: what finds boxes, what finds keypoints."""

BOX_SCORE, BOX_OVERLAP, BOX_SIDE = 0.4, 0.6, 640  # Measured on crowds; the box model takes at most 640 px.
POSE_SCORE, CROP_ENLARGED = 0.1, 1.3  # A pose in a box need not be sure of itself: the box already is.
MATCH_OVERLAP = 0.2  # A pose that overlaps its box less is someone else's.
FAST_SCORE, FAST_SIDE = 0.2, 384  # MoveNet is best at 256-384 px on the long side and worse above.
BAND = 12  # A side longer than 12 times the other is padded, so that resizing never leaves an empty picture.


@dataclass(frozen=True, eq=False)
class Detection:
    """One person in the full picture.

    box: x1 y1 x2 y2 px, right and bottom exclusive.
    keypoints: COCO-17, x y px and confidence in [0, 1]; 0 is unseen.
    score: of the person, in [0, 1].
    keypoints30: the same in skeletons.JOINTS30, with Pelvis and Neck; made from `keypoints` where not given.
    turned: whether the keypoints are those of a second look (rotated_detection.py).
    """

    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "17 3"]
    score: float
    keypoints30: Float32[np.ndarray, "30 3"] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    turned: bool = False

    def __post_init__(self) -> None:
        if not len(self.keypoints30):
            object.__setattr__(self, "keypoints30", convert(self.keypoints, COCO17, JOINTS30))

    @property
    def posed(self) -> bool:
        """Whether any joint was seen."""
        return bool(self.keypoints30[:, 2].any())


@dataclass(frozen=True)
class DetectionResult:
    """People, best score first, and how often something other than the plain path was taken.

    merged: outputs that explained a person already found.
    unposed: people whose box has no matching pose (their keypoints are all unseen).
    dropped: people beyond max_people.
    turned: people whose keypoints are those of a second look.
    """

    people: tuple[Detection, ...]
    merged: int = 0
    unposed: int = 0
    dropped: int = 0
    turned: int = 0


class Detector:
    """Finds people. Models are opened at first use; the same picture always gives the same answer.

    threads: of onnxruntime.  fast: one pass of the pose model over the whole picture.
    folder: other files of the same names, for comparing with the float32 originals.
    turn: look twice at people who lean (rotated_detection.py); never done on the fast path.
    """

    def __init__(
        self, threads: int = 1, fast: bool = False, folder: Path | None = None, turn: bool = True
    ) -> None:
        self.threads, self.fast, self.folder, self.turn = threads, fast, folder, turn

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        """People in an RGB picture. One without pixels raises InputError; a tiny one has nobody in it."""
        if image.size == 0:
            raise InputError("the picture has no pixels", where="image", fix="Give an H×W×3 uint8 RGB array.")
        if self.fast:
            return tidy(self.poses(image), max_people)
        boxes, scores = self.boxes(image)
        return tidy(self.keypoints_in_boxes(image, boxes, scores), max_people)

    def boxes(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, "n"]]:
        """Person boxes (xyxy px, inside the picture) and scores, best first, non-maxima suppressed."""
        padded = _pad_band(image)
        height, width = padded.shape[:2]
        scores, boxes = self._run(
            0, "image_tensor:0", _resize(padded, min(1.0, BOX_SIDE / max(height, width)))
        )
        scores, boxes = (
            scores[0, :, 0],
            boxes[0, :, 0],
        )  # (1917,) of persons; (1917, 4) ymin xmin ymax xmax, 0..1
        sure = scores >= BOX_SCORE
        found = _inside(boxes[sure][:, [1, 0, 3, 2]] * _scale(width, height), image.shape)
        real = _has_area(found)
        found, scores = found[real], scores[sure][real]
        kept = suppress(found, scores, BOX_OVERLAP)
        return found[kept], scores[kept]

    def keypoints_in_boxes(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        scores: Float32[np.ndarray, "n"] | None = None,
    ) -> tuple[Detection, ...]:
        """One Detection per box (xyxy px), in order, with the box and score as given (score 1 without).

        Where no pose overlaps the box, all joints are unseen. A box without area raises InputError.
        """
        scores = np.ones(len(boxes), np.float32) if scores is None else scores
        return tuple(self._pose_in_box(image, box, float(s)) for box, s in zip(boxes, scores, strict=True))

    def poses(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Detection, ...]:
        """The fast path: up to six people from one pass over the whole picture."""
        padded = _pad_band(image)
        scale = min(FAST_SIDE / max(padded.shape[:2]), 4.0)
        small = _resize(padded, scale)
        # The model wants multiples of 32; black below and to the right moves no pixel.
        below, right = (-side % 32 for side in small.shape[:2])
        poses, boxes, scores = self._movenet(np.pad(small, ((0, below), (0, right), (0, 0))))
        poses[..., :2] /= np.float32(scale)
        boxes = _inside(boxes / np.float32(scale), image.shape)
        good = (scores >= FAST_SCORE) & _has_area(boxes)
        found = zip(boxes[good], poses[good], scores[good], strict=True)
        return tuple(Detection(box, pose, float(score)) for box, pose, score in found)

    def _pose_in_box(
        self, image: UInt8[np.ndarray, "h w 3"], box: Float32[np.ndarray, "4"], score: float
    ) -> Detection:
        crop = _steady(Crop.around(box, CROP_ENLARGED))
        poses, boxes, scores = self._movenet(crop.warp(image))
        boxes = crop.to_image(boxes.reshape(6, 2, 2)).reshape(6, 4)
        overlaps = box_iou(box[None], boxes)[0] * (scores >= POSE_SCORE)
        best = int(overlaps.argmax())
        keypoints = np.zeros((17, 3), np.float32)
        if overlaps[best] >= MATCH_OVERLAP:
            keypoints[:, :2] = crop.to_image(poses[best, :, :2])
            keypoints[:, 2] = poses[best, :, 2]
        again = self._look_turned(image, crop, keypoints) if self.turn else None
        return Detection(box, keypoints if again is None else again, score, turned=again is not None)

    def _look_turned(
        self, image: UInt8[np.ndarray, "h w 3"], crop: Crop, keypoints: Float32[np.ndarray, "17 3"]
    ) -> Float32[np.ndarray, "17 3"] | None:
        """Better keypoints of somebody who leans, or None."""
        degrees = lean(keypoints)
        if not degrees:
            return None
        to_image = turned_window(crop, degrees)
        poses, _, _ = self._movenet(sample_window(image, to_image, (Crop.SIZE, Crop.SIZE)))
        poses[..., :2] = poses[..., :2] @ to_image[:, :2].T + to_image[:, 2]
        return surer(keypoints, poses, crop.side)

    def _movenet(
        self, canvas: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "6 17 3"], Float32[np.ndarray, "6 4"], Float32[np.ndarray, "6"]]:
        """Poses and boxes (px of the canvas, sides multiples of 32) and scores of up to six people."""
        rows = self._run(1, "input:0", canvas.astype(np.int32))[0][0].astype(np.float32)  # (6, 56)
        height, width = canvas.shape[:2]
        poses = rows[:, :51].reshape(6, 17, 3)[..., [1, 0, 2]]
        poses[..., :2] *= _scale(width, height)[:2]
        poses[..., 2] = poses[..., 2].clip(0, 1)
        return poses, rows[:, [52, 51, 54, 53]] * _scale(width, height), rows[:, 55]

    def _run(
        self, which: int, name: str, pixels: Shaped[np.ndarray, "h w 3"]
    ) -> list[Shaped[np.ndarray, "..."]]:
        session = self._pose_session if which else self._box_session
        return session.run(None, {name: pixels[None]})

    @cached_property
    def _box_session(self) -> Any:
        return _open(self._path(MODELS[0]), self.threads)

    @cached_property
    def _pose_session(self) -> Any:
        return _open(self._path(MODELS[1]), self.threads)

    def _path(self, name: str) -> Path:
        return self.folder / name if self.folder else shipped(f"detector/{name}")


def tidy(found: tuple[Detection, ...], max_people: int) -> DetectionResult:
    """Best score first; outputs that explain a person already there merged, the rest cut at max_people."""
    people: list[Detection] = []
    # Of two outputs that explain one person the posed one stays, even if its box scored less.
    for person in sorted(found, key=lambda p: (not p.posed, -p.score)):
        if not any(same_person(person.keypoints, person.box, other.keypoints, other.box) for other in people):
            people.append(person)
    kept = sorted(people, key=lambda p: -p.score)[:max_people]
    return DetectionResult(
        people=tuple(kept),
        merged=len(found) - len(people),
        unposed=sum(not person.posed for person in kept),
        dropped=len(people) - len(kept),
        turned=sum(person.turned for person in kept),
    )


def _open(path: Path, threads: int) -> Any:
    """An onnxruntime session: quiet, on the CPU, with a fixed number of threads."""
    with open_regular(path, AssetError):  # raises for a missing file, a Git LFS pointer, a web page
        pass
    import onnxruntime  # Here, because it takes longer to import than all the rest of this module.

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # Unused initializers of the converted graphs would be warned about.
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  onnxruntime's own classes share no base
        line = " ".join(str(error).split())[:120]
        raise AssetError(
            f"is not a readable ONNX file ({line})", where=str(path), fix="Install or download it again."
        ) from None


def _steady(crop: Crop) -> Crop:
    """The crop moved to steps of about a sixteenth to a thirty-second of its side.

    The pose model picks its answers from a grid, and where it is unsure another point can win when the crop
    moves by a fraction of a pixel. In steps, boxes that differ by that little (rounded weights, the next
    frame of a video) mostly give the very same crop.
    """
    step = 2.0 ** np.floor(np.log2(crop.side / 16))
    x1, y1, side = (float(np.round(value / step) * step) for value in (crop.x1, crop.y1, crop.side))
    return Crop(x1, y1, side)


def _scale(width: int, height: int) -> Float32[np.ndarray, "4"]:
    return np.asarray([width, height, width, height], np.float32)


def _inside(boxes: Float32[np.ndarray, "n 4"], shape: tuple[int, ...]) -> Float32[np.ndarray, "n 4"]:
    """Boxes cut at the edges of the picture."""
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
    """Black below or right of a very long or very small picture; pixels stay where they are."""
    height, width = image.shape[:2]
    short = max(-(-max(height, width) // BAND), 16)
    if min(height, width) >= short:
        return image
    return np.pad(image, ((0, max(0, short - height)), (0, max(0, short - width)), (0, 0)))
