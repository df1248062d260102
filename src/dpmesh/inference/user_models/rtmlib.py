"""rtmlib's solutions (`Body`, `BodyWithFeet`, `Wholebody`) as detector. The package itself is not imported."""

from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from dpmesh.errors import ConfigError, InputError
from dpmesh.inference.detections import Detection, DetectionResult, merge_detections
from dpmesh.skeletons import COCO17, HALPE26, JOINTS30, WHOLEBODY133, convert

_BY_COUNT = {len(joints): joints for joints in (COCO17, HALPE26, WHOLEBODY133)}


class RTMLibDetector:
    """A `PersonDetector` of an rtmlib solution: `predictor.detector = RTMLibDetector(rtmlib.Body())`.

    rtmlib reports no scores of boxes: a person's is the mean confidence of the joints. Raises ConfigError for a
    solution without separate models of persons and poses (RTMO), or with OpenPose's joints.
    """

    name = "rtmlib"
    """As scenes record it."""

    def __init__(self, solution: Any) -> None:
        self.solution = solution
        if not hasattr(solution, "det_model") or not hasattr(solution, "pose_model"):
            raise ConfigError("has no models of persons and poses", where=type(solution).__name__)
        if getattr(solution.det_model, "det_mode", "human") != "human":
            raise ConfigError(
                "detects other things than people", where=type(solution).__name__, fix='Use det_mode="human".'
            )
        if getattr(solution.pose_model, "to_openpose", False):
            raise ConfigError(
                "has OpenPose's joints", where=type(solution).__name__, fix="Use to_openpose=False."
            )

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        """The people in an RGB image."""
        height, width = image.shape[:2]
        found = np.asarray(self.solution.det_model(_bgr(image)), np.float32).reshape(-1, 4)
        boxes = found.clip(0, np.asarray([width, height, width, height], np.float32))
        boxes = boxes[np.all(boxes[:, 2:] - boxes[:, :2] >= 1, axis=1)]
        return merge_detections(self.keypoints_in_boxes(image, boxes), max_people)

    def keypoints_in_boxes(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        scores: Float32[np.ndarray, "n"] | None = None,
    ) -> tuple[Detection, ...]:
        """One Detection per box (xyxy px), in order. Raises InputError for an unknown number of joints."""
        if not len(boxes):
            return ()
        xy, confidence = map(np.asarray, self.solution.pose_model(_bgr(image), bboxes=list(boxes)))
        if xy.shape[:2] not in {(len(boxes), count) for count in _BY_COUNT}:
            raise InputError(f"keypoints of shape {xy.shape} for {len(boxes)} boxes", where="rtmlib")
        points = np.concatenate([xy, np.clip(confidence, 0, 1)[..., None]], 2).astype(np.float32)
        joints = _BY_COUNT[points.shape[1]]
        means = points[:, :17, 2].mean(1) if scores is None else scores
        return tuple(
            Detection(box, convert(p, joints, COCO17), float(score), convert(p, joints, JOINTS30))
            for box, p, score in zip(boxes.astype(np.float32), points, means, strict=True)
        )


def _bgr(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.ascontiguousarray(image[..., ::-1])
