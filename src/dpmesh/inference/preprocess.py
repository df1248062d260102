"""A picture read, its people found, their crops made ready for the model: the start of every verb on pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from dpmesh.errors import InputError
from dpmesh.geometry.camera import crop_focal, intrinsics
from dpmesh.geometry.crop import Crop
from dpmesh.inference.detector import Detection, DetectionResult
from dpmesh.inference.images import MAX_PIXELS, Picture, read_image
from dpmesh.inference.options import MAX_PEOPLE
from dpmesh.inference.scene import FocalSource
from dpmesh.inference.user_detections import Given, detections_of
from dpmesh.types import Inputs

EXPAND = 1.25
"""The square window is this much larger than the person's box."""
SURE_DETECTED, SURE_GIVEN = 0.2, 0.05
"""Below this confidence a joint counts as unseen: of the detector, and of keypoints that the user gave."""

WIDEST, NARROWEST = 0.01, 1000.0
"""Focal lengths in diagonals of the picture: 0.4 mm and 43 m of a full-frame camera. Lenses lie well within."""

Source = str | Path | Image.Image | np.ndarray


@runtime_checkable
class FindsPeople(Protocol):
    """What is asked of a detector (`detect.Detector`)."""

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = ...) -> DetectionResult: ...

    def keypoints_in_boxes(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32] | None = None,
    ) -> tuple[Detection, ...]: ...


@dataclass(eq=False)
class Job:
    """A picture whose people wait for the model. source, sha256: of its file, else empty. K: image pixels.

    sure: confidence below which a joint counts as unseen. fallbacks: how often each makeshift was taken.
    crops: one for each person.
    """

    source: str
    sha256: str
    picture: Picture
    K: Float[np.ndarray, "3 3"]
    focal_source: FocalSource
    people: list[Detection]
    sure: float
    fallbacks: Counter[str]
    crops: list[Crop]

    @property
    def work(self) -> list["Work"]:
        return [(self, person, crop) for person, crop in zip(self.people, self.crops, strict=True)]


Work = tuple[Job, Detection, Crop]
"""One person of a job."""


def read_job(
    detector: FindsPeople,
    image: Source,
    keypoints: Given = None,
    boxes: Given = None,
    focal: float | None = None,
    fov: float | None = None,
    max_people: int | None = None,
    max_pixels: int = MAX_PIXELS,
    only_image: bool = True,
    keypoint_format: str | None = None,
) -> Job:
    """Arguments as of `Predictor.__call__`; only_image: no other picture is in play. Raises InputError."""
    named = str(image) if isinstance(image, (str, Path)) else ""
    picture = read_image(image, max_pixels)
    height, width = picture.rgb.shape[:2]
    used, focal_source = choose_focal(focal, fov, picture.exif_focal, (height, width))
    limit = MAX_PEOPLE if max_people is None else max_people
    if limit < 1:
        raise InputError("max_people must be at least 1", where="max_people")
    if keypoints is None and boxes is None:
        found = detector(picture.rgb, limit)
        people, sure = list(found.people), SURE_DETECTED
        counts = Counter(
            merged=found.merged, unposed=found.unposed, dropped=found.dropped, turned=found.turned
        )
    else:
        people, counts = detections_of(
            picture.rgb, named, keypoints, boxes, detector, only_image, keypoint_format
        )
        sure = SURE_DETECTED if keypoints is None else SURE_GIVEN
        counts["dropped"] = max(0, len(people) - limit)
        people = sorted(people, key=lambda p: -p.score)[:limit]
    K = intrinsics(used, (height, width))
    crops = [Crop.around(person.box, EXPAND) for person in people]
    return Job(named, picture.sha256, picture, K, focal_source, people, sure, counts, crops)


def model_inputs(part: Sequence[Work], camera: Literal["crop", "image"], device: torch.device) -> Inputs:
    """The model's inputs for some people; joints outside their crop are unseen. camera: DPMeshConfig.camera.

    Unseen joints keep their coordinates, and those that no detector gives have the picture's origin: a prompt
    of all joints (released models) was evaluated with just these.
    """
    crops = np.stack([crop.warp(job.picture.rgb) for job, _, crop in part])
    joints, visible = np.zeros((len(part), 30, 2), np.float32), np.zeros((len(part), 30), np.float32)
    for i, (job, person, crop) in enumerate(part):
        joints[i] = crop.to_crop(person.keypoints30[:, :2].astype(np.float64))
        seen = visible_joints(job, person, crop)
        visible[i] = seen
        job.fallbacks["no_keypoints"] += not seen.any()
    focal = np.array([_focal(camera, job, crop) for job, _, crop in part], np.float32)
    rgb = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255
    rest = (torch.from_numpy(a).to(device) for a in (joints, visible, focal))
    return Inputs(rgb, *rest)


def visible_joints(job: Job, person: Detection, crop: Crop) -> Bool[np.ndarray, "30"]:
    """The joints that a model is given as visible: sure enough, and inside the person's crop."""
    xy = crop.to_crop(person.keypoints30[:, :2].astype(np.float64))
    return (person.keypoints30[:, 2] > job.sure) & (xy >= 0).all(1) & (xy < Crop.SIZE).all(1)


def _focal(camera: Literal["crop", "image"], job: Job, crop: Crop) -> float:
    return float(np.hypot(*job.picture.rgb.shape[:2])) if camera == "image" else crop_focal(job.K, crop)


def choose_focal(
    focal: float | None, fov: float | None, exif: float | None, size: tuple[int, int]
) -> tuple[float, FocalSource]:
    """Focal length in px of a picture (h, w) and where it came from. fov: degrees across the width.

    Raises InputError for a lens that no camera has (NARROWEST, WIDEST); one of that kind in the EXIF data is ignored.
    """
    if focal is not None and fov is not None:
        raise InputError("both a focal length and a field of view", where="focal", fix="Give one of them.")
    diagonal = float(np.hypot(*size))
    least, most = diagonal * WIDEST, diagonal * NARROWEST
    if focal is not None:
        if not least <= focal <= most:  # nor NaN
            told = f"must be a positive number of pixels, of this picture between {least:.3g} and {most:.3g}"
            raise InputError(told, where="focal")
        return float(focal), "given"
    if fov is not None:
        if not 0 < fov < 180:
            raise InputError("must lie between 0 and 180 degrees", where="fov")
        wide = size[1] / 2
        used = float(wide / np.tan(np.deg2rad(fov) / 2))
        if not least <= used <= most:
            narrow, broad = (np.rad2deg(2 * np.arctan(wide / f)) for f in (most, least))
            told = f"must lie between {narrow:.3g} and {broad:.4g} degrees for this picture"
            raise InputError(told, where="fov")
        return used, "given"
    if exif is not None and least <= exif <= most:
        return exif, "exif"
    return diagonal, "diagonal"
