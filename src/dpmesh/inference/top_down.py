"""Keypoints of the person in a box, by MoveNet Thunder, with MultiPose's second opinion."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8

from dpmesh.geometry.crop import Crop, sample_window
from dpmesh.inference.confidence import THRESHOLD, better, confidences
from dpmesh.inference.detections import Detection, box_iou
from dpmesh.inference.movenet import (
    Pose,
    Reading,
    exchange_sides,
    person_pose,
    read_multipose,
    read_thunder,
    same_sides,
)
from dpmesh.inference.shipped_models import ShippedModels
from dpmesh.skeletons import COCO17

POSE_SCORE, CROP_ENLARGED = 0.1, 1.2  # The box has passed the box model, so a low pose score is enough.
MATCH_OVERLAP = 0.2  # A pose that overlaps its box less is another person's.
MIN_LEAN, ROTATION_STEP = 20.0, 15.0
"""Degrees off vertical from which the crop is rotated, and the step of its angle: with steps the angle stays the same
over the frames of a video."""
MIN_GAIN, MAX_SHIFT = 0.05, 0.06
"""How much higher the second pose's mean confidence must be, and how far its trunk may be from the first's (share of
the crop's side)."""
TAKEN, SURE = 0.05, 0.5
"""Two people do not have the same joint at one place: within this share of the smaller box's longer side it is the
likelier person's, if its confidence is higher than that."""
MIN_DISSENT = 0.03
"""How much better the poses must agree with left and right exchanged, in longer sides of the box."""
_FLIP = np.array(COCO17.flip)
_MIRRORED = np.array([[-1.0, 0, Crop.SIZE - 1], [0, 1, 0], [0, 0, 1]])
"""From pixels of the mirrored crop to those of the crop."""
_TRUNK = np.array([COCO17.index(f"{side}_{part}") for part in ("Shoulder", "Hip") for side in "LR"])
_TRUNK_VISIBLE = 0.2
"""Least score of the trunk's joints, of either model."""


class Readings(NamedTuple):
    """What both models say of the person in a box (xyxy px), image pixels.

    upright, rotated: Thunder's pose and MultiPose's of either crop, with confidences; rotated is None where there was
    no second detection. first: the pose from which the angle was taken. side: of the crop.
    """

    box: Float32[np.ndarray, "4"]
    score: float
    upright: tuple[Pose, Pose]
    rotated: tuple[Pose, Pose] | None
    first: Pose
    side: float

    def person(self, others: tuple[Detection, ...] = ()) -> Detection:
        """The more likely pose. No joint is visible where none is likely. others: people with joints of their own,
        which this person does not have (`without`)."""
        keypoints = better(*(without(pose, self.box, others) for pose in self.upright))
        rotated = None
        if self.rotated is not None:
            again = better(*(without(pose, self.box, others) for pose in self.rotated))
            rotated = better_pose(keypoints, self.first, again, self.side)
        keypoints = keypoints if rotated is None else rotated
        if not (keypoints[:, 2] > THRESHOLD).any():
            keypoints = np.zeros((17, 3), np.float32)
        return Detection(self.box, keypoints, self.score, rotated=rotated is not None)


class Known(NamedTuple):
    """A detection of the user's model."""

    detection: Detection

    def person(self, others: tuple[Detection, ...] = ()) -> Detection:
        return self.detection


def without(pose: Pose, box: Float32[np.ndarray, "4"], others: tuple[Detection, ...]) -> Pose:
    """The pose with confidence 0 for joints that are others': near the same joint of theirs."""
    confidence = pose[:, 2].copy()
    for other in others:
        near = TAKEN * min(float((one[2:] - one[:2]).max()) for one in (box, other.box))
        off = np.linalg.norm(pose[:, :2] - other.keypoints[:, :2], axis=1)
        confidence[(off < near) & (other.keypoints[:, 2] > SURE)] = 0
    return np.column_stack([pose[:, :2], confidence])


class TopDown:
    """rotated: detect twice where a person leans or lies."""

    def __init__(self, models: ShippedModels, rotated: bool) -> None:
        self._models, self.rotated = models, rotated

    def detect(
        self, image: UInt8[np.ndarray, "h w 3"], box: Float32[np.ndarray, "4"], score: float
    ) -> Detection:
        """The person in a box (xyxy px). No joint is visible where none is likely. Raises InputError."""
        return self.readings(image, box, score).person()

    def readings(
        self, image: UInt8[np.ndarray, "h w 3"], box: Float32[np.ndarray, "4"], score: float
    ) -> Readings:
        """Raises InputError."""
        crop = _steady(Crop.around(box, CROP_ENLARGED))
        reading, guide = self.read(image, rotated_window(crop, 0.0), box)
        rotated = None
        first = guide if lean(guide) else reading.pose
        if self.rotated and (degrees := lean(first)):
            rotated = confidences(*self.read(image, rotated_window(crop, degrees), box, first), box)
        return Readings(box, score, confidences(reading, guide, box), rotated, first, crop.side)

    def read(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        to_image: Float[np.ndarray, "2 3"],
        box: Float32[np.ndarray, "4"],
        first: Pose | None = None,
    ) -> tuple[Reading, Pose]:
        """Of the person in a box: Thunder's reading and MultiPose's pose (scores 0 where it has none), image pixels.

        to_image: affine map from pixels of the crop. first: their pose, where it is known from another crop. Where both
        models agree on the joints but not on which are left, both vote again on the mirrored crop.
        """
        reading, guide = self._read(image, to_image, box, first)
        if same_sides(reading.pose, guide, box) >= -MIN_DISSENT:
            return reading, guide
        mirrored = None if first is None else first[_FLIP]
        again, other = self._read(image, to_image @ _MIRRORED, box, mirrored)
        voters = (reading.pose, guide, again.pose[_FLIP], other[_FLIP])
        if sum(same_sides(reading.pose, voter, box) for voter in voters) < 0:
            pose, regressed, centre = reading
            reading = Reading(exchange_sides(pose), exchange_sides(regressed), centre)
        return reading, guide if same_sides(reading.pose, guide, box) >= 0 else exchange_sides(guide)

    def _read(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        to_image: Float[np.ndarray, "2 3"],
        box: Float32[np.ndarray, "4"],
        first: Pose | None,
    ) -> tuple[Reading, Pose]:
        canvas = sample_window(image, to_image, (Crop.SIZE, Crop.SIZE))
        poses, boxes, scores = self.poses(canvas)
        poses[..., :2] = _moved(poses[..., :2], to_image)
        guide = np.zeros((17, 3), np.float32)
        if first is None:
            overlaps = box_iou(box[None], _moved(boxes.reshape(6, 2, 2), to_image).reshape(6, 4))[0]
            best = int((overlaps * (scores >= POSE_SCORE)).argmax())
            if overlaps[best] >= MATCH_OVERLAP and scores[best] >= POSE_SCORE:
                guide = poses[best]
        else:
            guide = poses[int(_trunk_shift(first, poses).argmin())]
        readings = [
            Reading(
                np.column_stack([_moved(one.pose[:, :2], to_image), one.pose[:, 2]]),
                _moved(one.regressed, to_image),
                one.centre,
            )
            for one in read_thunder(
                self._models.thunder.run(None, {"input:0": canvas[None].astype(np.int32)})
            )
        ]
        return person_pose(readings, guide, box), guide

    def poses(
        self, canvas: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "6 17 3"], Float32[np.ndarray, "6 4"], Float32[np.ndarray, "6"]]:
        """Poses and boxes (px of the canvas, sides multiples of 32) and scores of up to six people."""
        rows = self._models.multipose.run(None, {"input:0": canvas[None].astype(np.int32)})[0]
        return read_multipose(rows, canvas.shape[1], canvas.shape[0])


def crop_window(box: Float32[np.ndarray, "4"], degrees: float = 0.0) -> Float[np.ndarray, "2 3"]:
    """Affine map from pixels of the keypoint models' crop around a box to the image's. Raises InputError."""
    return rotated_window(_steady(Crop.around(box, CROP_ENLARGED)), degrees)


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


def better_pose(keypoints: Pose, first: Pose, rotated: Pose, side: float) -> Pose | None:
    """The rotated crop's keypoints (image pixels) if they are better than those of the upright crop.

    Better: their mean confidence is higher by MIN_GAIN, and their trunk within MAX_SHIFT of the first pose's, from
    which the angle was taken. side: of the crop, px.
    """
    better = rotated[:, 2].mean() >= keypoints[:, 2].mean() + MIN_GAIN
    return rotated if better and _trunk_shift(first, rotated[None])[0] <= MAX_SHIFT * side else None


def _trunk_shift(first: Pose, others: Float32[np.ndarray, "n 17 3"]) -> Float32[np.ndarray, "n"]:
    """How far the trunks' joints are from the first's, px."""
    return np.linalg.norm(others[:, _TRUNK, :2] - first[_TRUNK, :2], axis=-1).mean(1)


def _moved(
    points: Shaped[np.ndarray, "*n 2"], affine: Float[np.ndarray, "2 3"]
) -> Float32[np.ndarray, "*n 2"]:
    return (points @ affine[:, :2].T + affine[:, 2]).astype(np.float32)


def _steady(crop: Crop) -> Crop:
    """The crop moved to steps of about a sixteenth to a thirty-second of its side.

    The pose model picks its points from a grid, and where it is not confident another point can win when the crop
    moves by a fraction of a pixel. With steps, boxes that differ by that little (rounded weights, the next frame of a
    video) mostly give the same crop.
    """
    step = 2.0 ** np.floor(np.log2(crop.side / 16))
    x1, y1, side = (float(np.round(value / step) * step) for value in (crop.x1, crop.y1, crop.side))
    return Crop(x1, y1, side)
