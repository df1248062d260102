"""From an image to the model's inputs: decode it, detect its people or take the user's, crop each of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from dpmesh.errors import InputError
from dpmesh.geometry.camera import crop_focal, intrinsics
from dpmesh.geometry.crop import Crop
from dpmesh.inference.confidence import THRESHOLD
from dpmesh.inference.detections import Detection, PersonDetector
from dpmesh.inference.image_sources import source_path
from dpmesh.inference.images import DecodedImage, read_image
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.rolled import RolledDetector, detect_people
from dpmesh.inference.scene import FocalSource
from dpmesh.inference.user_detections import user_detections
from dpmesh.types import Inputs

EXPAND = 1.2
"""Side of the square crop, in longer sides of the person's box."""
MOST_DETECTED = 1000
"""People that a detector is asked for; max_people applies to those who have keypoints."""
MIN_DETECTED, MIN_SUPPLIED = THRESHOLD, 0.05
"""Confidence up to which a joint counts as not visible: of the detector, and of the user's keypoints."""

WIDEST, NARROWEST = 0.01, 1000.0
"""Range of focal lengths, in diagonals of the image: 0.4 mm and 43 m of a full-frame camera."""

ImageSource = str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor
"""What `images.read_image` accepts."""


@dataclass(eq=False)
class PreparedImage:
    """An image with its people and their crops, ready for the model.

    source, sha256: of its file, else empty. K: intrinsics, image pixels. min_confidence: up to which a joint counts as
    not visible. fallbacks: how often each fallback was taken. crops: one per person. roll: degrees that upright things
    lean clockwise.
    """

    source: str
    sha256: str
    image: DecodedImage
    K: Float[np.ndarray, "3 3"]
    focal_source: FocalSource
    people: list[Detection]
    min_confidence: float
    fallbacks: Counter[str]
    crops: list[Crop]
    roll: float = 0.0

    @property
    def persons(self) -> list["PersonInput"]:
        """Its people one by one."""
        pairs = zip(self.people, self.crops, strict=True)
        return [PersonInput(self, person, crop) for person, crop in pairs]


class PersonInput(NamedTuple):
    """One person of a prepared image."""

    prepared: PreparedImage
    detection: Detection
    crop: Crop


def prepare_image(
    detector: PersonDetector,
    image: ImageSource,
    options: PredictOptions,
    only_image: bool = True,
    inputs: Sequence[str] = (),
) -> PreparedImage:
    """Decode an image, detect its people or take those of the options, and crop them.

    only_image: no other image is processed, so a keypoint file that names no image belongs to this one.
    inputs: paths of all images that are processed: an entry of a file of keypoints or boxes serves one of them.
    Raises InputError.
    """
    name = source_path(image)
    decoded = read_image(image, options.max_pixels)
    height, width = decoded.rgb.shape[:2]
    focal, focal_source = choose_focal(options.focal, options.fov, decoded.exif_focal, (height, width))
    if options.max_people < 1:
        raise InputError("max_people must be at least 1", where="max_people")
    if options.keypoints is None and options.boxes is None:
        people, counts, roll = _detect(detector, decoded.rgb, options, focal)
        min_confidence = MIN_DETECTED
    else:
        roll = options.roll or 0.0
        turning = RolledDetector(detector, roll) if roll else detector
        people, counts = user_detections(decoded.rgb, name, options, turning, only_image, inputs)
        min_confidence = MIN_DETECTED if options.keypoints is None else MIN_SUPPLIED
        counts["dropped"] = max(0, len(people) - options.max_people)
        people = sorted(people, key=lambda p: -p.score)[: options.max_people]
    K = intrinsics(focal, (height, width))
    crops = [Crop.around(person.box, EXPAND, roll) for person in people]
    return PreparedImage(
        name, decoded.sha256, decoded, K, focal_source, people, min_confidence, counts, crops, roll
    )


def _detect(
    detector: PersonDetector, image: UInt8[np.ndarray, "h w 3"], options: PredictOptions, focal: float
) -> tuple[list[Detection], Counter[str], float]:
    """The detector's people, the fallbacks and the roll. Those without a keypoint are dropped before max_people is
    applied."""
    most = max(MOST_DETECTED, options.max_people)
    result, roll = detect_people(detector, image, most, focal, options.roll)
    posed = [person for person in result.people if options.keep_unposed or _has_keypoint(person)]
    people = posed[: options.max_people]
    counts = Counter(
        merged=result.merged,
        unposed=sum(not person.posed for person in people),
        unposed_dropped=len(result.people) - len(posed),
        dropped=result.dropped + len(posed) - len(people),
        turned=sum(person.rotated for person in people),
    )
    return people, counts, roll


def _has_keypoint(person: Detection) -> bool:
    """Whether the model would take any joint as visible."""
    return bool(_visible(person, Crop.around(person.box, EXPAND), MIN_DETECTED).any())


def model_inputs(
    persons: Sequence[PersonInput], camera: Literal["crop", "image"], device: torch.device
) -> Inputs:
    """The model's inputs for some people. Joints outside their crop are not visible. camera: DPMeshConfig.camera.

    Joints that are not visible keep their coordinates, and those that no detector provides have the image's origin:
    the released models, whose prompt has all joints, were evaluated this way.
    """
    crops = np.stack([person.crop.warp(person.prepared.image.rgb) for person in persons])
    joints, visible = np.zeros((len(persons), 30, 2), np.float32), np.zeros((len(persons), 30), np.float32)
    confidence = np.stack([person.detection.keypoints30[:, 2].clip(0, 1) for person in persons])
    for i, person in enumerate(persons):
        joints[i] = person.crop.to_crop(person.detection.keypoints30[:, :2].astype(np.float64))
        visible[i] = visible_joints(*person)
        person.prepared.fallbacks["no_keypoints"] += not visible[i].any()
    focal = np.array([_focal(camera, person) for person in persons], np.float32)
    rgb = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255
    rest = (torch.from_numpy(array).to(device) for array in (joints, visible, focal, confidence))
    return Inputs(rgb, *rest)


def visible_joints(prepared: PreparedImage, person: Detection, crop: Crop) -> Bool[np.ndarray, "30"]:
    """The joints that the model takes as visible: confident enough, and inside the person's crop."""
    return _visible(person, crop, prepared.min_confidence)


def _visible(person: Detection, crop: Crop, min_confidence: float) -> Bool[np.ndarray, "30"]:
    xy = crop.to_crop(person.keypoints30[:, :2].astype(np.float64))
    confident = person.keypoints30[:, 2] > min_confidence
    return confident & (xy >= 0).all(1) & (xy < Crop.SIZE).all(1)


def _focal(camera: Literal["crop", "image"], person: PersonInput) -> float:
    prepared = person.prepared
    if camera == "image":
        return float(np.hypot(*prepared.image.rgb.shape[:2]))
    return crop_focal(prepared.K, person.crop)


def choose_focal(
    focal: float | None, fov: float | None, exif: float | None, size: tuple[int, int]
) -> tuple[float, FocalSource]:
    """Focal length in px of an image (h, w), and its source. fov: horizontal, degrees.

    Raises InputError for a focal length outside NARROWEST and WIDEST; in EXIF such a value is ignored.
    """
    if focal is not None and fov is not None:
        raise InputError("both a focal length and a field of view", where="focal", fix="Use one of them.")
    diagonal = float(np.hypot(*size))
    least, most = diagonal * WIDEST, diagonal * NARROWEST
    if focal is not None:
        if not least <= focal <= most:  # nor NaN
            what = f"must be a positive number of pixels, for this image between {least:.3g} and {most:.3g}"
            raise InputError(what, where="focal")
        return float(focal), "given"
    if fov is not None:
        if not 0 < fov < 180:
            raise InputError("must lie between 0 and 180 degrees", where="fov")
        half_width = size[1] / 2
        focal = float(half_width / np.tan(np.deg2rad(fov) / 2))
        if not least <= focal <= most:
            narrow, wide = (np.rad2deg(2 * np.arctan(half_width / f)) for f in (most, least))
            what = f"must lie between {narrow:.3g} and {wide:.4g} degrees for this image"
            raise InputError(what, where="fov")
        return focal, "given"
    if exif is not None and least <= exif <= most:
        return exif, "exif"
    return diagonal, "diagonal"
