"""Records on disk as a `Source`: pictures opened, windows cut, detector asked, true bodies posed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt8

from dpmesh.errors import InputError
from dpmesh.evaluate import sources as crops
from dpmesh.evaluate.interfaces import BodyTruth, Census, JointTruth, Persons, Record
from dpmesh.evaluate.protocol import CropRule, Protocol
from dpmesh.evaluate.true_bodies import TruthBodies
from dpmesh.geometry.camera import crop_focal, crop_rotation, intrinsics
from dpmesh.geometry.crop import Crop
from dpmesh.inference.detector import Detector
from dpmesh.inference.images import read_image
from dpmesh.skeletons import COCO17, H36M17, JOINTS30, OPENPOSE18, SMPL24, Skeleton

UNPOSED = "keypoints: none seen"
SHRUNK = "picture: annotated at another size"
_GIVES: dict[str, Skeleton] = {
    "openpose": OPENPOSE18,
    "hhrnet": COCO17,
    "hrnet": COCO17,
    "detector": COCO17,
    "annotated": H36M17,
}


class DiskSource:
    """See records.Source. Pictures are read when their persons are asked for; the last one is kept."""

    def __init__(self, protocol: Protocol, records: list[Record], census: Census) -> None:
        assert isinstance(protocol.crop, CropRule)  # of files
        self._rule = protocol.crop
        self.protocol, self.records, self.census = protocol, records, census
        self.truth = TruthBodies(protocol.truth)
        self.faces: Integer[np.ndarray, "f 3"] | None = self.truth.faces
        self._detector = Detector() if protocol.keypoints.source == "detector" else None
        self._last: tuple[Path, np.ndarray] | None = None
        self._known = _reported(protocol)

    def __len__(self) -> int:
        return len(self.records)

    def persons(self, indices: Sequence[int]) -> Persons:
        chosen = [self.records[i] for i in indices]
        fallbacks: Counter[str] = Counter()
        shown = [self._look(record, fallbacks) for record in chosen]
        cut, joints, visible, focal_crop, focal_image, turn, seen = (
            np.stack(column) for column in zip(*shown, strict=True)
        )
        truth_joints, measured, vertices, pelvis = self._truths(chosen)
        return Persons(
            ids=tuple(r.id for r in chosen),
            sequences=tuple(r.sequence for r in chosen),
            crops=cut,
            joints=joints,
            visible=visible,
            focal_crop=focal_crop,
            focal_image=focal_image,
            turn=turn,
            truth_joints=truth_joints,
            measured=measured,
            truth_vertices=vertices,
            truth_pelvis=pelvis,
            seen=seen,
            fallbacks=+fallbacks,
        )

    def _look(self, record: Record, fallbacks: Counter[str]) -> tuple[np.ndarray, ...]:
        """A row of Persons' crops, joints, visible, focal_crop, focal_image, turn and seen."""
        image = self._picture(record.picture)
        size = (image.shape[0], image.shape[1])
        keypoints, box = self._given(record, image, fallbacks)
        sure = keypoints[:, 2] > self.protocol.keypoints.threshold
        points = keypoints[:, :2].astype(np.float64)
        crop, taken = crops.window(self._rule, points, sure, box, size)
        fallbacks[taken] += bool(taken)
        at = crop.to_crop(points)
        visible = sure & (at >= 0).all(1) & (at < Crop.SIZE).all(1)
        fallbacks[UNPOSED] += not visible.any()
        diagonal = float(np.hypot(*size))
        K = intrinsics(diagonal, size)
        if self.protocol.focal == "given" and record.K is not None:
            K, diagonal = record.K.astype(np.float64), float(np.sqrt(record.K[0, 0] * record.K[1, 1]))
        return (
            crops.pixels(crop, image), at.astype(np.float32), visible.astype(np.float32),
            np.array(crop_focal(K, crop), np.float32), np.array(diagonal, np.float32),
            crop_rotation(K, crop), self._sight(visible),
        )  # fmt: skip

    def _given(
        self, record: Record, image: UInt8[np.ndarray, "h w 3"], fallbacks: Counter[str]
    ) -> tuple[Float32[np.ndarray, "30 3"], Float[np.ndarray, "4"]]:
        """Keypoints and annotated box in pixels of the picture as it lies on the disk."""
        scale = 1.0
        if record.size is not None and record.size != image.shape[:2]:
            scale = image.shape[0] / record.size[0]
            if abs(image.shape[1] / record.size[1] / scale - 1) > 0.01:
                raise InputError(
                    f"the picture is {image.shape[1]}×{image.shape[0]}, annotated as"
                    f" {record.size[1]}×{record.size[0]}",
                    where=str(record.picture),
                    fix="Use the set's own pictures.",
                )
            fallbacks[SHRUNK] += 1
        box = record.box * scale
        if self._detector is not None:
            inside = np.clip(box, 0, [image.shape[1], image.shape[0]] * 2)
            if (inside[2:] - inside[:2] < 1).any():  # nothing of the person is in the picture
                return np.zeros((len(JOINTS30), 3), np.float32), box
            found = self._detector.keypoints_in_boxes(image, inside[None].astype(np.float32))
            return found[0].keypoints30, box
        assert record.keypoints is not None
        keypoints = record.keypoints.copy()
        keypoints[:, :2] *= scale
        return keypoints, box

    def _sight(self, visible: Bool[np.ndarray, "30"]) -> Float[np.ndarray, "17"]:
        """A joint counts as in sight where its keypoint was given; NaN for joints that the source never reports."""
        at = H36M17.indices_in(JOINTS30)
        return np.array(
            [float(visible[i]) if known else np.nan for i, known in zip(at, self._known, strict=True)]
        )

    def _truths(
        self, records: list[Record]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        truths = [record.truth for record in records]
        bodies = [truth for truth in truths if isinstance(truth, BodyTruth)]
        if len(bodies) == len(truths):
            posed = self.truth.pose(bodies)
            return posed.joints, np.ones(posed.joints.shape[:2]), posed.vertices, posed.pelvis
        joints = np.stack([truth.joints for truth in truths if isinstance(truth, JointTruth)])
        return joints[..., :3], (joints[..., 3] > 0).astype(np.float64), None, None

    def _picture(self, path: Path) -> UInt8[np.ndarray, "h w 3"]:
        if self._last is None or self._last[0] != path:
            cv2.setNumThreads(1)
            self._last = (path, read_image(path).rgb)
        return self._last[1]


def _reported(protocol: Protocol) -> list[bool]:
    """Which of Human3.6M's 17 joints a keypoint source can report (Pelvis and Neck as means of hips, shoulders)."""
    source = protocol.keypoints.source
    smpl = source == "annotated" and protocol.selection.dataset.startswith("3dpw")
    given = {*(SMPL24 if smpl else _GIVES[source]).joints, "Pelvis", "Neck"}
    return [joint in given for joint in H36M17.joints]


# The window of a picture that the model is shown, by a protocol's CropRule, and its pixels.


BOX_FALLBACK, PICTURE_FALLBACK = "box: the annotated one", "box: the whole picture"


def window(
    rule: CropRule,
    points: Float[np.ndarray, "n 2"],
    seen: Bool[np.ndarray, " n"],
    annotated: Float[np.ndarray, "4"],
    size: tuple[int, int],
) -> tuple[Crop, str]:
    """The crop around the seen points (image px) of a picture of `size` (h, w), and the fallback taken, if any.

    Fewer than two points, points on one spot, or a box outside the picture give no window: then the annotated box
    (x1 y1 x2 y2), then the picture, so that nobody is left out.
    """
    if seen.sum() > 1:
        low, high = points[seen].min(0), points[seen].max(0)
        half = (high - low) / 2 * rule.joints
        middle = (low + high) / 2
        crop = _square(rule, np.concatenate([middle - half, middle + half]), size)
        if crop is not None:
            return crop, ""
    if rule.fallback == "annotated corners taken for x y w h":
        annotated = np.concatenate([annotated[:2], annotated[:2] + annotated[2:]])
    crop = _square(rule, annotated, size)
    if crop is not None:
        return crop, BOX_FALLBACK
    whole = _square(rule, np.array([0.0, 0.0, size[1], size[0]]), size)
    if whole is None:
        raise InputError(f"a picture of {size[1]}×{size[0]} pixels has no window", where="picture")
    return whole, PICTURE_FALLBACK


def _square(rule: CropRule, box: Float[np.ndarray, "4"], size: tuple[int, int]) -> Crop | None:
    """Brought inside (a box that begins outside is shifted, not cut: so in 3DCrowdNet and after), squared, enlarged.

    None for a box without extent inside the picture.
    """
    x1, y1 = max(0.0, box[0]), max(0.0, box[1])
    x2 = min(size[1] - 1.0, x1 + max(0.0, box[2] - box[0] - 1))
    y2 = min(size[0] - 1.0, y1 + max(0.0, box[3] - box[1] - 1))
    side = max(x2 - x1, y2 - y1) * rule.square
    if not (np.isfinite([x1, y1, x2, y2]).all() and x2 >= x1 and y2 >= y1 and side > 0):
        return None
    return Crop((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side)


def pixels(crop: Crop, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256 256 3"]:
    """Bilinear, one sample a pixel, black outside: as published, unlike `Crop.warp`, which averages when it shrinks."""
    matrix = np.array([[crop.scale, 0.0, -crop.x1 * crop.scale], [0.0, crop.scale, -crop.y1 * crop.scale]])
    side = (Crop.SIZE, Crop.SIZE)
    out = cv2.warpAffine(image, matrix, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return out.astype(np.uint8, copy=False)
