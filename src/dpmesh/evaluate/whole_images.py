"""People of whole images as an `EvaluationSource`: detected and cropped as in `dpmesh predict`, then matched."""

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Integer

from dpmesh.evaluate.interfaces import Census, JointTruth, PersonRecord, Persons
from dpmesh.evaluate.protocol import MISSED, Protocol, WholeImage
from dpmesh.evaluate.sources import reported_joints
from dpmesh.geometry.camera import crop_focal, crop_rotation, project
from dpmesh.geometry.crop import Crop
from dpmesh.inference.detections import PersonDetector
from dpmesh.inference.detector import Detector
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.preprocess import EXPAND, PersonInput, PreparedImage, prepare_image, visible_joints
from dpmesh.skeletons import COCO17, H36M17, JOINTS30

_BODY = [name for name in COCO17.joints if name in H36M17.joints and name != "Nose"]
"""Joints of both sets that mean the same: ankles to hips, shoulders to wrists."""
_IN_COCO = [COCO17.index(name) for name in _BODY]
_IN_H36M = [H36M17.index(name) for name in _BODY]


class WholeImageSource:
    """An EvaluationSource of records with measured joints. detector: may be replaced before the first image."""

    def __init__(self, protocol: Protocol, records: list[PersonRecord], census: Census) -> None:
        assert isinstance(protocol.crop, WholeImage)
        self._rule = protocol.crop
        self.protocol, self.records, self.census = protocol, records, census
        self.faces: Integer[np.ndarray, "f 3"] | None = None
        self.detector: PersonDetector = Detector()
        self._reported = reported_joints(COCO17)

    def __len__(self) -> int:
        return len(self.records)

    def persons(self, indices: Sequence[int]) -> Persons:
        cv2.setNumThreads(1)
        chosen = [self.records[i] for i in indices]
        prepared = [self._prepare(record) for record in chosen]
        found = [self.match(one, record) for one, record in zip(prepared, chosen, strict=True)]
        missed = np.array([one is None for one in found])
        rows = [
            _inputs(one, image, record) for one, image, record in zip(found, prepared, chosen, strict=True)
        ]
        crops, joints, visible, focal, turn, confidence = (
            np.stack(column) for column in zip(*rows, strict=True)
        )
        truths = np.stack([_joint_truth(record) for record in chosen])
        h36m = np.array(H36M17.indices_in(JOINTS30))
        return Persons(
            ids=tuple(record.id for record in chosen),
            sequences=tuple(record.sequence for record in chosen),
            crops=crops,
            joints=joints,
            visible=visible,
            focal_crop=focal,
            focal_image=np.array([np.hypot(*one.image.rgb.shape[:2]) for one in prepared], np.float32),
            turn=turn,
            truth_joints=truths[..., :3],
            measured=truths[..., 3],
            truth_vertices=None,
            truth_pelvis=None,
            joint_visible=np.where(self._reported, visible[:, h36m], np.nan),
            fallbacks=+Counter({MISSED: int(missed.sum())}),
            confidence=confidence,
            missed=missed,
        )

    def _prepare(self, record: PersonRecord) -> PreparedImage:
        focal = None if record.K is None else float(np.sqrt(record.K[0, 0] * record.K[1, 1]))
        return prepare_image(self.detector, record.image, PredictOptions(focal=focal))

    def match(self, prepared: PreparedImage, record: PersonRecord) -> PersonInput | None:
        """The detected person that the record is of; None for a miss (protocol.WholeImage)."""
        assert record.K is not None
        truth = _joint_truth(record)[_IN_H36M]
        side = float((record.box[2:] - record.box[:2]).max())
        people = prepared.persons
        off = [
            keypoint_distance(
                person.detection.keypoints, project(truth[:, :3], record.K), prepared.min_confidence
            )
            for person in people
        ]
        best = int(np.argmin(off)) if off else 0
        return people[best] if off and off[best] <= self._rule.match * side else None


def keypoint_distance(
    keypoints: Float[np.ndarray, "17 3"], truth: Float[np.ndarray, "12 2"], min_confidence: float
) -> float:
    """Median distance, px, of the visible keypoints (COCO-17) from the true joints in the image; inf without any."""
    body = keypoints[_IN_COCO]
    visible = body[:, 2] > min_confidence
    return (
        float(np.median(np.linalg.norm(body[visible, :2] - truth[visible], axis=1)))
        if visible.any()
        else np.inf
    )


def _joint_truth(record: PersonRecord) -> Float[np.ndarray, "17 4"]:
    assert isinstance(record.truth, JointTruth)
    return record.truth.joints


def _inputs(
    person: PersonInput | None, image: PreparedImage, record: PersonRecord
) -> tuple[np.ndarray | np.float32, ...]:
    """A row of Persons' crops, joints, visible, focal_crop, turn and confidence; of a miss the annotated box without
    joints."""
    box = record.box.astype(np.float32)
    crop = Crop.around(box, EXPAND, image.roll) if person is None else person.crop
    joints = np.zeros((30, 2), np.float32)
    visible, confidence = np.zeros((2, 30), np.float32)
    if person is not None:
        joints = crop.to_crop(person.detection.keypoints30[:, :2].astype(np.float64)).astype(np.float32)
        visible = visible_joints(*person).astype(np.float32)
        confidence = person.detection.keypoints30[:, 2].clip(0, 1)
    focal, turn = np.float32(crop_focal(image.K, crop)), crop_rotation(image.K, crop)
    return crop.warp(image.image.rgb), joints, visible, focal, turn, confidence
