"""Person detection: boxes and COCO keypoints, by two small models that ship with the package.

SSDLite-MobileNetV2 detects boxes. MoveNet MultiPose detects poses in a square crop around each box, and the pose that
overlaps the box most is kept. MoveNet was mostly trained on upright people: where the trunk is far from upright, it
runs again on the crop rotated by the trunk's angle, and the second pose is kept if it is the same person's and more
confident. `fast` runs MoveNet once on the whole image instead (at most six people).
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped, UInt8

from dpmesh.assets import shipped
from dpmesh.errors import AssetError, InputError
from dpmesh.geometry.crop import Crop, sample_window
from dpmesh.inference.detections import Detection, DetectionResult, box_iou, merge_detections, suppress
from dpmesh.inference.options import ModelOptions
from dpmesh.inference.user_models.onnx_file import session_options
from dpmesh.inference.user_models.person import PersonModel
from dpmesh.inference.user_models.pose import PoseModel
from dpmesh.io import open_regular
from dpmesh.skeletons import COCO17

MODELS = ("ssdlite_mobilenet_v2_coco.onnx", "movenet_multipose.onnx", "movenet_thunder.onnx")
"""Files of shipped/detector: the box model and the keypoint model."""

BOX_SCORE, BOX_OVERLAP, BOX_SIDE = 0.4, 0.6, 640  # Measured on crowds; the box model takes at most 640 px.
POSE_SCORE, CROP_ENLARGED = 0.1, 1.3  # The box has passed BOX_SCORE, so a low pose score is enough.
MATCH_OVERLAP = 0.2  # A pose that overlaps its box less is another person's.
FAST_SCORE, FAST_SIDE = 0.2, 384  # MoveNet is most accurate at 256-384 px on the long side.
BAND = 12  # A side longer than 12 times the other is padded, so that resizing never leaves an empty image.
MIN_LEAN, ROTATION_STEP = 20.0, 15.0
"""Degrees off vertical from which the crop is rotated, and the step of its angle: with steps the angle stays the same
over the frames of a video."""
MIN_GAIN, MAX_SHIFT = 0.05, 0.04
"""How much higher the second pose's mean confidence must be, and how far its trunk may be from the first's (share of
the crop's side)."""
_TRUNK = np.array([COCO17.index(f"{side}_{part}") for part in ("Shoulder", "Hip") for side in "LR"])
_TRUNK_VISIBLE = 0.2
"""Least confidence of the trunk's joints."""

Pose = Float32[np.ndarray, "17 3"]


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
        self.threads, self.fast, self.folder = threads, fast, folder
        self.rotated_detection = rotated_detection
        self.person_model, self.pose_model = person_model, pose_model

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

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        """The people in an RGB image; none in a tiny one. Raises InputError for an image without pixels."""
        if image.size == 0:
            raise InputError("the image has no pixels", where="image", fix="Give an H×W×3 uint8 RGB array.")
        if self.fast:
            return merge_detections(self.poses(image), max_people)
        boxes, scores = self.boxes(image)
        return merge_detections(self.keypoints_in_boxes(image, boxes, scores), max_people)

    def boxes(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, "n"]]:
        """Person boxes (xyxy px, inside the image) and scores, best first, after non-maximum suppression."""
        if self.person_model is not None:
            return self.person_model.boxes(image)
        padded = _pad_band(image)
        height, width = padded.shape[:2]
        scores, boxes = self._run(
            0, "image_tensor:0", _resize(padded, min(1.0, BOX_SIDE / max(height, width)))
        )
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
        if self.pose_model is not None:
            detect = self.pose_model.detect
            return tuple(detect(image, box, float(s)) for box, s in zip(boxes, scores, strict=True))
        return tuple(self._pose_in_box(image, box, float(s)) for box, s in zip(boxes, scores, strict=True))

    def poses(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Detection, ...]:
        """The fast path: up to six people from one pass over the whole image."""
        padded = _pad_band(image)
        scale = min(FAST_SIDE / max(padded.shape[:2]), 4.0)
        small = _resize(padded, scale)
        # The model wants multiples of 32; black below and to the right moves no pixel.
        below, right = (-side % 32 for side in small.shape[:2])
        poses, boxes, scores = self._movenet(np.pad(small, ((0, below), (0, right), (0, 0))))
        poses[..., :2] /= np.float32(scale)
        boxes = _inside(boxes / np.float32(scale), image.shape)
        good = (scores >= FAST_SCORE) & _has_area(boxes)
        detected = zip(boxes[good], poses[good], scores[good], strict=True)
        return tuple(Detection(box, pose, float(score)) for box, pose, score in detected)

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
        rotated = self._detect_rotated(image, crop, keypoints) if self.rotated_detection else None
        return Detection(box, keypoints if rotated is None else rotated, score, rotated=rotated is not None)

    def _detect_rotated(
        self, image: UInt8[np.ndarray, "h w 3"], crop: Crop, keypoints: Float32[np.ndarray, "17 3"]
    ) -> Float32[np.ndarray, "17 3"] | None:
        """Better keypoints of a person who leans, from the rotated crop; None where there are none."""
        degrees = lean(keypoints)
        if not degrees:
            return None
        to_image = rotated_window(crop, degrees)
        poses, _, _ = self._movenet(sample_window(image, to_image, (Crop.SIZE, Crop.SIZE)))
        poses[..., :2] = poses[..., :2] @ to_image[:, :2].T + to_image[:, 2]
        return better_pose(keypoints, poses, crop.side)

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
        return open_session(self._path(MODELS[0]), self.threads)

    @cached_property
    def _pose_session(self) -> Any:
        return open_session(self._path(MODELS[1]), self.threads)

    def _path(self, name: str) -> Path:
        return self.folder / name if self.folder else shipped(f"detector/{name}")


def lean(pose: Pose) -> float:
    """Angle of the trunk (hips to shoulders) in degrees clockwise from the image's up, rounded to ROTATION_STEP.

    0 where no second detection is needed: within MIN_LEAN of upright, or a joint of the trunk not visible.
    """
    trunk = pose[_TRUNK]
    if (trunk[:, 2] < _TRUNK_VISIBLE).any():
        return 0.0
    x, y = trunk[:2, :2].mean(0) - trunk[2:, :2].mean(0)
    angle = float(np.rad2deg(np.arctan2(x, -y)))
    return ROTATION_STEP * float(np.round(angle / ROTATION_STEP)) if abs(angle) >= MIN_LEAN else 0.0


def rotated_window(crop: Crop, degrees: float) -> Float[np.ndarray, "2 3"]:
    """Affine map from pixels of the rotated crop to the image's.

    A person who leans `degrees` clockwise is upright in the rotated crop.
    """
    t, middle = np.deg2rad(degrees), (Crop.SIZE - 1) / 2
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    start = crop.to_image(np.full(2, middle)) - turn @ np.full(2, middle) / crop.scale
    return np.column_stack([turn / crop.scale, start])


def better_pose(first: Pose, rotated: Float32[np.ndarray, "n 17 3"], side: float) -> Pose | None:
    """Of the rotated crop's poses (image pixels) the one whose trunk is nearest the first pose's, if it is better.

    Better: its mean confidence is higher by MIN_GAIN, and its trunk within MAX_SHIFT. side: of the crop, px.
    """
    off = np.linalg.norm(rotated[:, _TRUNK, :2] - first[_TRUNK, :2], axis=-1).mean(1)
    best = int(off.argmin())
    better = rotated[best, :, 2].mean() >= first[:, 2].mean() + MIN_GAIN
    return rotated[best] if better and off[best] <= MAX_SHIFT * side else None


def open_session(path: Path, threads: int) -> Any:
    """An onnxruntime session: quiet, on the CPU, with a fixed number of threads."""
    with open_regular(path, AssetError):  # raises for a missing file, a Git LFS pointer, a web page
        pass
    import onnxruntime  # Here: slow to import.

    try:
        return onnxruntime.InferenceSession(
            str(path), session_options(threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001  onnxruntime's own classes share no base
        line = " ".join(str(error).split())[:120]
        raise AssetError(
            f"is not a readable ONNX file ({line})", where=str(path), fix="Install or download it again."
        ) from None


def _steady(crop: Crop) -> Crop:
    """The crop moved to steps of about a sixteenth to a thirty-second of its side.

    The pose model picks its points from a grid, and where it is not confident another point can win when the crop
    moves by a fraction of a pixel. With steps, boxes that differ by that little (rounded weights, the next frame of a
    video) mostly give the same crop.
    """
    step = 2.0 ** np.floor(np.log2(crop.side / 16))
    x1, y1, side = (float(np.round(value / step) * step) for value in (crop.x1, crop.y1, crop.side))
    return Crop(x1, y1, side)


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
