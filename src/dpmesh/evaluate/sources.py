"""People of data sets on disk as an `EvaluationSource`: images read and cropped, keypoints detected, bodies posed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Integer, UInt8
from numpy.typing import NDArray

from dpmesh.assets import find_asset, require_asset, sha256
from dpmesh.body.files import load_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.evaluate.interfaces import BodyTruth, Census, Gender, JointTruth, PersonRecord, Persons
from dpmesh.evaluate.protocol import CropRule, Protocol, Truth
from dpmesh.geometry.camera import crop_focal, crop_rotation, intrinsics
from dpmesh.geometry.crop import Crop
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.detector import Detector
from dpmesh.inference.images import read_image
from dpmesh.skeletons import COCO17, H36M17, JOINTS30, OPENPOSE18, SMPL24, Skeleton

NO_KEYPOINTS = "keypoints: none seen"
SHRUNK = "picture: annotated at another size"
_SKELETONS: dict[str, Skeleton] = {
    "openpose": OPENPOSE18,
    "hhrnet": COCO17,
    "hrnet": COCO17,
    "detector": COCO17,
    "annotated": H36M17,
}


class DiskSource:
    """An EvaluationSource of records. Images are read on demand; the last one is cached."""

    def __init__(self, protocol: Protocol, records: list[PersonRecord], census: Census) -> None:
        assert isinstance(protocol.crop, CropRule)
        self._rule = protocol.crop
        self.protocol, self.records, self.census = protocol, records, census
        self.bodies = GroundTruthBodies(protocol.truth)
        self.faces: Integer[np.ndarray, "f 3"] | None = self.bodies.faces
        self._detector = Detector() if protocol.keypoints.source == "detector" else None
        self._last: tuple[Path, np.ndarray] | None = None
        self._reported = _reported(protocol)

    def __len__(self) -> int:
        return len(self.records)

    def persons(self, indices: Sequence[int]) -> Persons:
        chosen = [self.records[i] for i in indices]
        fallbacks: Counter[str] = Counter()
        rows = [self._inputs(record, fallbacks) for record in chosen]
        crops, joints, visible, focal_crop, focal_image, turn, joint_visible = (
            np.stack(column) for column in zip(*rows, strict=True)
        )
        truth_joints, measured, vertices, pelvis = self._truths(chosen)
        return Persons(
            ids=tuple(r.id for r in chosen),
            sequences=tuple(r.sequence for r in chosen),
            crops=crops,
            joints=joints,
            visible=visible,
            focal_crop=focal_crop,
            focal_image=focal_image,
            turn=turn,
            truth_joints=truth_joints,
            measured=measured,
            truth_vertices=vertices,
            truth_pelvis=pelvis,
            joint_visible=joint_visible,
            fallbacks=+fallbacks,
        )

    def _inputs(self, record: PersonRecord, fallbacks: Counter[str]) -> tuple[np.ndarray, ...]:
        """A row of Persons' crops, joints, visible, focal_crop, focal_image, turn and joint_visible."""
        image = self._image(record.image)
        size = (image.shape[0], image.shape[1])
        keypoints, box = self._keypoints(record, image, fallbacks)
        observed = keypoints[:, 2] > self.protocol.keypoints.threshold
        points = keypoints[:, :2].astype(np.float64)
        crop, fallback = self._rule.window(points, observed, box, size)
        fallbacks[fallback] += bool(fallback)
        joints = crop.to_crop(points)
        visible = observed & (joints >= 0).all(1) & (joints < Crop.SIZE).all(1)
        fallbacks[NO_KEYPOINTS] += not visible.any()
        diagonal = float(np.hypot(*size))
        K = intrinsics(diagonal, size)
        if self.protocol.focal == "given" and record.K is not None:
            K, diagonal = record.K.astype(np.float64), float(np.sqrt(record.K[0, 0] * record.K[1, 1]))
        return (
            pixels(crop, image), joints.astype(np.float32), visible.astype(np.float32),
            np.array(crop_focal(K, crop), np.float32), np.array(diagonal, np.float32),
            crop_rotation(K, crop), self._visibility(visible),
        )  # fmt: skip

    def _keypoints(
        self, record: PersonRecord, image: UInt8[np.ndarray, "h w 3"], fallbacks: Counter[str]
    ) -> tuple[Float32[np.ndarray, "30 3"], Float[np.ndarray, "4"]]:
        """Keypoints and annotated box in pixels of the image on disk."""
        scale = 1.0
        if record.size is not None and record.size != image.shape[:2]:
            scale = image.shape[0] / record.size[0]
            if abs(image.shape[1] / record.size[1] / scale - 1) > 0.01:
                raise InputError(
                    f"the image is {image.shape[1]}×{image.shape[0]}, annotated as"
                    f" {record.size[1]}×{record.size[0]}",
                    where=str(record.image),
                    fix="Use the set's own images.",
                )
            fallbacks[SHRUNK] += 1
        box = record.box * scale
        if self._detector is not None:
            inside = np.clip(box, 0, [image.shape[1], image.shape[0]] * 2)
            if (inside[2:] - inside[:2] < 1).any():  # no part of the person is in the image
                return np.zeros((len(JOINTS30), 3), np.float32), box
            detections = self._detector.keypoints_in_boxes(image, inside[None].astype(np.float32))
            return detections[0].keypoints30, box
        assert record.keypoints is not None
        keypoints = record.keypoints.copy()
        keypoints[:, :2] *= scale
        return keypoints, box

    def _visibility(self, visible: Bool[np.ndarray, "30"]) -> Float[np.ndarray, "17"]:
        """Persons.joint_visible: 1 where the input keypoint is visible, NaN for joints that the source never has."""
        indices = H36M17.indices_in(JOINTS30)
        return np.array(
            [float(visible[i]) if known else np.nan for i, known in zip(indices, self._reported, strict=True)]
        )

    def _truths(
        self, records: list[PersonRecord]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        truths = [record.truth for record in records]
        bodies = [truth for truth in truths if isinstance(truth, BodyTruth)]
        if len(bodies) == len(truths):
            posed = self.bodies.pose(bodies)
            return posed.joints, np.ones(posed.joints.shape[:2]), posed.vertices, posed.pelvis
        joints = np.stack([truth.joints for truth in truths if isinstance(truth, JointTruth)])
        return joints[..., :3], (joints[..., 3] > 0).astype(np.float64), None, None

    def _image(self, path: Path) -> UInt8[np.ndarray, "h w 3"]:
        if self._last is None or self._last[0] != path:
            cv2.setNumThreads(1)
            self._last = (path, read_image(path).rgb)
        return self._last[1]


def _reported(protocol: Protocol) -> list[bool]:
    source = protocol.keypoints.source
    smpl = source == "annotated" and protocol.selection.dataset.startswith("3dpw")
    return reported_joints(SMPL24 if smpl else _SKELETONS[source])


def reported_joints(skeleton: Skeleton) -> list[bool]:
    """Which of Human3.6M's 17 joints keypoints of a skeleton have. Pelvis and Neck are means of hips and shoulders."""
    return [joint in {*skeleton.joints, "Pelvis", "Neck"} for joint in H36M17.joints]


def pixels(crop: Crop, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256 256 3"]:
    """The crop's pixels: bilinear, one sample a pixel, black outside, as published. `Crop.warp` averages instead."""
    matrix = np.array([[crop.scale, 0.0, -crop.x1 * crop.scale], [0.0, crop.scale, -crop.y1 * crop.scale]])
    side = (Crop.SIZE, Crop.SIZE)
    out = cv2.warpAffine(image, matrix, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return out.astype(np.uint8, copy=False)


@dataclass(frozen=True, eq=False)
class PosedTruth:
    """Ground-truth bodies, metres, camera frame; without translation where Truth.placed is "origin". joints:
    skeletons.H36M17."""

    vertices: Float32[np.ndarray, "b v 3"]
    joints: Float[np.ndarray, "b 17 3"]
    pelvis: Float[np.ndarray, "b 3"]


class GroundTruthBodies:
    """The bodies that true parameters are posed with: the user's licensed SMPL files by gender, and the regressor."""

    def __init__(self, truth: Truth) -> None:
        """Raises AssetError, with the command to run, for files that were not imported."""
        self.truth = truth
        needed: dict[str, tuple[Gender, ...]] = {
            "annotated": ("male", "female"),
            "neutral": ("neutral",),
            "none": (),
        }
        self.genders = needed[truth.gender]
        h36m = require_asset("h36m_regressor") if self.genders else None
        paths: dict[Gender, Path] = {g: require_asset(f"smpl_{g}") for g in self.genders}
        extra = find_asset("extra_regressor")
        used = [p for p in (h36m, *paths.values()) if p is not None]
        self.files: dict[str, str] = {path.name: sha256(path) for path in used}
        self.bodies = {g: BodyModel(load_body(p, h36m=h36m, extra=extra)).eval() for g, p in paths.items()}

    @property
    def faces(self) -> Integer[np.ndarray, "f 3"] | None:
        return next((body.faces.numpy() for body in self.bodies.values()), None)

    @torch.inference_mode()
    def pose(self, truths: Sequence[BodyTruth]) -> PosedTruth:
        """Pose each with the body of its gender."""
        rows: list[tuple[NDArray[Any], ...]] = [()] * len(truths)
        for gender, body in self.bodies.items():
            chosen = [i for i, truth in enumerate(truths) if _gender(self.truth, truth) == gender]
            if not chosen:
                continue
            betas = np.zeros((len(chosen), 10), np.float32)
            with np.errstate(over="ignore"):  # results.score counts a truth that is not finite
                pose = np.stack([truths[i].pose for i in chosen]).astype(np.float32)
                for row, i in enumerate(chosen):
                    betas[row, : len(truths[i].betas)] = truths[i].betas
            out = body(torch.from_numpy(betas), rotation_matrix(torch.from_numpy(pose)))
            vertices = out.vertices
            if self.truth.placed == "camera":
                transl = np.stack([self.translation(truths[i]) for i in chosen]).astype(np.float32)
                vertices = vertices + torch.from_numpy(transl)[:, None]
            joints = body.regress(vertices, "h36m17")
            pelvis = body.regress(vertices, "joints30")[:, 0]
            for row, i in enumerate(chosen):
                rows[i] = (vertices[row].numpy(), joints[row].double().numpy(), pelvis[row].double().numpy())
        return PosedTruth(*(np.stack([row[part] for row in rows]) for part in range(3)))

    def translation(self, truth: BodyTruth) -> NDArray[np.float64]:
        if truth.turned_about_pelvis is None:
            return truth.transl
        pelvis = _neutral_pelvis(truth.betas.tobytes())
        return truth.transl + truth.turned_about_pelvis @ pelvis - pelvis


def _gender(rule: Truth, truth: BodyTruth) -> Gender:
    return "neutral" if rule.gender == "neutral" else truth.gender


@cache
def _neutral_body() -> BodyModel:
    return BodyModel(load_body(require_asset("smpl_neutral")))


@cache
def _neutral_pelvis(betas: bytes) -> NDArray[np.float64]:
    """The pelvis at rest of the neutral body with these betas (bytes of a float64 array), metres."""
    shape = torch.zeros(1, 10)
    values = torch.from_numpy(np.frombuffer(betas)[:10].astype(np.float32))
    shape[0, : len(values)] = values
    rest = torch.eye(3).expand(1, 24, 3, 3)
    return _neutral_body()(shape, rest).joints[0, 0].double().numpy()
