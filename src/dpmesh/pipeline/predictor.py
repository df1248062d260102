"""Pictures in, scenes out: `Predictor.from_pretrained("embedded")("photo.jpg")`."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from dpmesh.body.model import BodyModel
from dpmesh.errors import ConfigError, DPMeshError, InputError
from dpmesh.geometry.camera import crop_focal, intrinsics, project
from dpmesh.geometry.crop import Crop
from dpmesh.model import DPMesh, Inputs, Prediction
from dpmesh.pipeline.detect import Detection, DetectionResult, Detector
from dpmesh.pipeline.given import Given, detections_of
from dpmesh.pipeline.images import MAX_PIXELS, Picture, read_image
from dpmesh.pipeline.place import place
from dpmesh.pipeline.scene import FocalSource, Person, Scene
from dpmesh.skeletons import JOINTS30

EXPAND = 1.25
"""The square window is this much larger than the person's box."""
MAX_PEOPLE = 20
_SURE_DETECTED, _SURE_GIVEN = 0.2, 0.05
"""Below this confidence a joint counts as unseen: of the detector, and of keypoints that the user gave."""
_PICTURES = 16
"""At most so many decoded pictures wait for one batch of people."""

Source = str | Path | Image.Image | np.ndarray


@runtime_checkable
class MakesBodies(Protocol):
    """What is asked of a model (`model.DPMesh`)."""

    body: BodyModel
    provenance: dict[str, Any]

    @property
    def camera(self) -> Literal["crop", "image"]: ...

    def __call__(self, inputs: Inputs) -> Prediction: ...


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
class _Job:
    """A picture whose people wait for the model."""

    source: str
    sha256: str
    picture: Picture
    K: Float[np.ndarray, "3 3"]
    focal_source: FocalSource
    people: list[Detection]
    sure: float
    fallbacks: Counter[str]
    crops: list[Crop] = field(default_factory=list)


class Predictor:
    """A model and a detector. Not thread-safe; one picture's answer does not depend on the others."""

    def __init__(self, model: MakesBodies, detector: FindsPeople, name: str = "", batch: int = 8) -> None:
        """model: in evaluation mode, on its device. batch: people at once."""
        self.model, self.detector, self.name, self.batch = model, detector, name, batch
        self.device = model.body.faces.device

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path = "embedded",
        device: str = "auto",
        threads: int | None = None,
        fast: bool = False,
    ) -> "Predictor":
        """weights: a shipped name or a folder. device: "auto" (CUDA where there is one, else the CPU), "cpu",
        "cuda", "mps". threads: of torch and the detector, for this process. fast: the one-pass detector.

        Raises WeightsError, AssetError, ConfigError.
        """
        place_on = pick_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        model = DPMesh.from_pretrained(weights).to(place_on).eval()
        detector = Detector(threads=threads or 1, fast=fast)
        return cls(model, detector, str(weights), batch=8 if place_on.type == "cpu" else 32)

    def __call__(
        self,
        image: Source,
        keypoints: Given = None,
        boxes: Given = None,
        focal: float | None = None,
        fov: float | None = None,
        max_people: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Scene:
        """Everybody in one picture.

        image: a path, a PIL image, or an RGB array (H, W, 3) uint8. keypoints: a file (COCO or OpenPose) or
        an array (P, 17, 3) COCO-17, x y confidence, image px, instead of the detector. boxes: a file or an
        array (P, 4) xyxy px. focal: px of this image; fov: degrees across its width; without them EXIF, then
        the image diagonal. Raises InputError.
        """
        job = self._read(image, keypoints, boxes, focal, fov, max_people, max_pixels)
        return self._run([job])[0]

    def predict_many(
        self,
        paths: Iterable[str | Path],
        keypoints: Given = None,
        boxes: Given = None,
        focal: float | None = None,
        fov: float | None = None,
        max_people: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[Path, Scene | DPMeshError]]:
        """The same for many files, in order, people batched across pictures; a bad file gives its error."""
        waiting: list[tuple[Path, _Job | DPMeshError]] = []
        files = [Path(path) for path in paths]
        for path in files:
            try:
                job = self._read(path, keypoints, boxes, focal, fov, max_people, max_pixels, len(files) == 1)
            except DPMeshError as error:
                job = error
            waiting.append((path, job))
            people = sum(len(j.people) for _, j in waiting if isinstance(j, _Job))
            if people >= self.batch or len(waiting) >= _PICTURES:
                yield from self._finish(waiting)
                waiting = []
        yield from self._finish(waiting)

    def _finish(
        self, waiting: list[tuple[Path, _Job | DPMeshError]]
    ) -> Iterator[tuple[Path, Scene | DPMeshError]]:
        scenes = iter(self._run([job for _, job in waiting if isinstance(job, _Job)]))
        for path, job in waiting:
            yield path, next(scenes) if isinstance(job, _Job) else job

    def _read(
        self,
        image: Source,
        keypoints: Given,
        boxes: Given,
        focal: float | None,
        fov: float | None,
        max_people: int | None,
        max_pixels: int,
        only_image: bool = True,
    ) -> _Job:
        named = str(image) if isinstance(image, (str, Path)) else ""
        picture = read_image(image, max_pixels)
        height, width = picture.rgb.shape[:2]
        used, focal_source = choose_focal(focal, fov, picture.exif_focal, (height, width))
        limit = MAX_PEOPLE if max_people is None else max_people
        if limit < 1:
            raise InputError("max_people must be at least 1", where="max_people")
        if keypoints is None and boxes is None:
            found = self.detector(picture.rgb, limit)
            people, sure = list(found.people), _SURE_DETECTED
            counts = Counter(merged=found.merged, unposed=found.unposed, dropped=found.dropped)
        else:
            name = Path(named).name
            people, counts = detections_of(picture.rgb, name, keypoints, boxes, self.detector, only_image)
            sure = _SURE_DETECTED if keypoints is None else _SURE_GIVEN
            counts["dropped"] = max(0, len(people) - limit)
            people = sorted(people, key=lambda p: -p.score)[:limit]
        digest = hashlib.sha256(Path(named).read_bytes()).hexdigest() if named else ""
        K = intrinsics(used, (height, width))
        job = _Job(named, digest, picture, K, focal_source, people, sure, counts)
        job.crops = [Crop.around(person.box, EXPAND) for person in people]
        return job

    @torch.inference_mode()
    def _run(self, jobs: list[_Job]) -> list[Scene]:
        work = [
            (job, person, crop) for job in jobs for person, crop in zip(job.people, job.crops, strict=True)
        ]
        found: dict[int, list[Person]] = {id(job): [] for job in jobs}
        for start in range(0, len(work), self.batch):
            part = work[start : start + self.batch]
            bodies = place(
                self.model.body,
                self.model(self._inputs(part)),
                [crop for *_, crop in part],
                [job.K for job, *_ in part],
                self.model.camera,
            )
            for (job, person, _), body in zip(part, bodies, strict=True):
                job.fallbacks["translation"] += not body.solved
                found[id(job)].append(
                    Person(
                        box=person.box.astype(np.float32),
                        keypoints2d=person.keypoints.astype(np.float32),
                        score=float(person.score),
                        joints2d=project(body.joints3d, job.K).astype(np.float32),
                        **{n: getattr(body, n) for n in _BODY_FIELDS},
                    )
                )
        return [self._scene(job, tuple(found[id(job)])) for job in jobs]

    def _inputs(self, part: list[tuple[_Job, Detection, Crop]]) -> Inputs:
        """The model's inputs for some people; joints outside their crop are unseen.

        Unseen joints keep their coordinates, and those that no detector gives have the picture's origin: a prompt
        of all joints (released models) was evaluated with just these.
        """
        crops = np.stack([crop.warp(job.picture.rgb) for job, _, crop in part])
        joints, visible = np.zeros((len(part), 30, 2), np.float32), np.zeros((len(part), 30), np.float32)
        for i, (job, person, crop) in enumerate(part):
            xy = crop.to_crop(person.keypoints30[:, :2].astype(np.float64))
            seen = (person.keypoints30[:, 2] > job.sure) & (xy >= 0).all(1) & (xy < Crop.SIZE).all(1)
            joints[i], visible[i] = xy, seen
            job.fallbacks["no_keypoints"] += not seen.any()
        focal = np.array([self._focal(job, crop) for job, _, crop in part], np.float32)
        rgb = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() / 255
        rest = (torch.from_numpy(a).to(self.device) for a in (joints, visible, focal))
        return Inputs(rgb, *rest)

    def _focal(self, job: _Job, crop: Crop) -> float:
        if self.model.camera == "image":
            return float(np.hypot(*job.picture.rgb.shape[:2]))
        return crop_focal(job.K, crop)

    def _scene(self, job: _Job, people: tuple[Person, ...]) -> Scene:
        height, width = job.picture.rgb.shape[:2]
        return Scene(
            K=job.K,
            image_size=(height, width),
            joint_names=JOINTS30.joints,
            faces=self.model.body.faces.cpu().numpy().astype(np.int32),
            people=people,
            image=job.picture.rgb,
            source=job.source,
            source_sha256=job.sha256,
            focal_source=job.focal_source,
            fallbacks={name: int(n) for name, n in sorted(job.fallbacks.items()) if n},
            notes=job.picture.notes,
            weights={"name": self.name, "provenance": dict(self.model.provenance)},
        )


_BODY_FIELDS = ("global_orient", "body_pose", "betas", "transl", "vertices", "joints3d")


def choose_focal(
    focal: float | None, fov: float | None, exif: float | None, size: tuple[int, int]
) -> tuple[float, FocalSource]:
    """Focal length in px of a picture (h, w) and where it came from. fov: degrees across the width."""
    if focal is not None and fov is not None:
        raise InputError("both a focal length and a field of view", where="focal", fix="Give one of them.")
    if focal is not None:
        if not (np.isfinite(focal) and focal > 0):
            raise InputError("must be a positive number of pixels", where="focal")
        return float(focal), "given"
    if fov is not None:
        if not 0 < fov < 180:
            raise InputError("must lie between 0 and 180 degrees", where="fov")
        return float(size[1] / 2 / np.tan(np.deg2rad(fov) / 2)), "given"
    if exif is not None:
        return exif, "exif"
    return float(np.hypot(*size)), "diagonal"


def pick_device(name: str) -> torch.device:
    """A torch device; "auto" takes CUDA where it works, else the CPU (MPS only when asked for)."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in there:
        raise ConfigError(f"unknown device {name!r}", where="device", fix="Choose of auto, cpu, cuda, mps.")
    if not there[name]:
        raise ConfigError(f"{name} is not available here", where="device", fix="Use --device auto.")
    return torch.device(name)
