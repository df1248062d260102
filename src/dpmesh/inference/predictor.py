"""Pictures in, scenes out: `Predictor.from_pretrained("embedded")("photo.jpg")`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from dpmesh.body.layer import BodyModel
from dpmesh.body.resolve import choose_body
from dpmesh.device import pick_device
from dpmesh.errors import ConfigError, DPMeshError
from dpmesh.geometry.camera import project
from dpmesh.inference.detector import Detector
from dpmesh.inference.flip_test import FlipTest
from dpmesh.inference.images import MAX_PIXELS
from dpmesh.inference.options import Options, image_options, model_options
from dpmesh.inference.postprocess import place
from dpmesh.inference.preprocess import FindsPeople, Job, Source, Work, model_inputs, read_job
from dpmesh.inference.scene import Person, Scene
from dpmesh.inference.smplify import Fitter, fitter_of
from dpmesh.inference.user_detections import Given
from dpmesh.model import DPMesh
from dpmesh.skeletons import JOINTS30
from dpmesh.types import Inputs, Prediction

FLIPPED = "mean of the picture's and its mirror image's body (--flip)"
REFINED = "fitted to the keypoints after the network (--refine)"
WAITING_IMAGES, WAITING_BYTES = 16, 256 * 2**20
"""At most so many decoded images wait for one batch of people, and no further one is read beyond so many bytes."""


@runtime_checkable
class MakesBodies(Protocol):
    """What is asked of a model (`model.DPMesh`)."""

    body: BodyModel
    provenance: dict[str, Any]

    @property
    def camera(self) -> Literal["crop", "image"]: ...

    def __call__(self, inputs: Inputs, *, features: bool = ...) -> Prediction: ...


class Predictor:
    """A model and a detector. Not thread-safe.

    An image's people do not depend on the other images, but for rounding: a batch's sums are taken in another order
    than those of one person alone (docs/output.md has the figures).
    """

    def __init__(
        self,
        model: MakesBodies,
        detector: FindsPeople,
        name: str = "",
        batch: int = 8,
        body: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
        fitter: Fitter | None = None,
        options: Options | None = None,
    ) -> None:
        """model: in evaluation mode, on its device. batch: people at once. body: files of the user's body, with
        checksums; None is the free body. notes: what every scene shall say about the weights or the body.
        fitter: refines every answer by its person's keypoints. options: what results depend on (inference/options.py),
        as every scene shall record it.

        predicts_sigma: whether its people have a `joint_sigma`. What was refined has none: the network judged its own
        answer."""
        self.model, self.detector, self.name, self.batch = model, detector, name, batch
        self.weights = {"name": name, "provenance": dict(model.provenance)} | (
            {"body": dict(body)} if body else {}
        )
        self.notes = notes if fitter is None else (*notes, REFINED)
        self.fitter = fitter
        self.predicts_sigma = fitter is None and isinstance(model, DPMesh | FlipTest) and model.predicts_sigma
        self.device = model.body.faces.device
        self.options: Options = {"weights": {"file": name}} if options is None else options

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path = "embedded",
        device: str = "auto",
        threads: int | None = None,
        fast: bool = False,
        body: str | Path | None = None,
        regressors: str | Path | None = None,
        refine: bool = False,
        turn: bool = True,
        flip: bool = False,
    ) -> "Predictor":
        """weights: a shipped name or a folder. device: "auto" (CUDA where there is one, else the CPU), "cpu",
        "cuda", "mps". threads: of torch and the detector, for this process. fast: the one-pass detector.
        body, regressors: a body file (.npz, SMPL's .pkl) and the folder of its joint regressors; without them
        the imported ones where the weights were trained with SMPL, else the free body (`bodies.choose_body`).
        refine: fit every answer to its person's keypoints (inference/smplify.py). turn: let the detector look twice at
        people who lean (inference/rotated_detection.py). flip: look at every person's mirror image as well
        (inference/flip_test.py); not with refine, which goes on from one look.

        Raises WeightsError, AssetError, ConfigError, InputError.
        """
        if flip and refine:
            raise ConfigError(
                "a fit goes on from one look", where="flip with refine", fix="Drop one of them."
            )
        place_on = pick_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        chosen = choose_body(weights, body, regressors)
        model = DPMesh.from_pretrained(weights, chosen.arrays).to(place_on).eval()
        detector = Detector(threads=threads or 1, fast=fast, turn=turn)
        batch = 8 if place_on.type == "cpu" else 32
        fitter = fitter_of(model) if refine else None
        asked, notes = (FlipTest(model), (*chosen.notes, FLIPPED)) if flip else (model, chosen.notes)
        options = model_options(weights, body, regressors, fast, refine, turn, flip)
        return cls(asked, detector, str(weights), batch, chosen.record, notes, fitter, options)

    def __call__(
        self,
        image: Source,
        keypoints: Given = None,
        boxes: Given = None,
        focal: float | None = None,
        fov: float | None = None,
        max_people: int | None = None,
        max_pixels: int = MAX_PIXELS,
        keypoint_format: str | None = None,
    ) -> Scene:
        """Everybody in one picture.

        image: a path, a PIL image, or an RGB array (H, W, 3) uint8. keypoints: a file or folder of any common tool
        (inference/keypoints/formats.py), or an array (P, J, 3) or (J, 3), x y confidence, image px, J of 17 (COCO), 18,
        25, 26, 30, 133 or 136, instead of the detector. keypoint_format: its format or joint order, where the file
        does not tell. boxes: a file or an array (P, 4) xyxy px. focal: px of this image; fov: degrees across its
        width; without them EXIF, then the image diagonal. Raises InputError.
        """
        options = image_options(keypoints, boxes, focal, fov, max_people, keypoint_format)
        job = read_job(
            self.detector, image, keypoints, boxes, focal, fov, max_people, max_pixels, True, keypoint_format
        )
        return self._run([job], options)[0]

    def predict_many(
        self,
        paths: Iterable[str | Path],
        keypoints: Given = None,
        boxes: Given = None,
        focal: float | None = None,
        fov: float | None = None,
        max_people: int | None = None,
        max_pixels: int = MAX_PIXELS,
        keypoint_format: str | None = None,
    ) -> Iterator[tuple[Path, Scene | DPMeshError]]:
        """The same for many files, in order, people batched across images; a bad file gives its error.

        At most WAITING_IMAGES decoded images wait for a batch to fill, and no further one is read when they take
        WAITING_BYTES: the memory is that, and what one image more takes.
        """
        waiting: Waiting = []
        files = [Path(path) for path in paths]
        options = image_options(keypoints, boxes, focal, fov, max_people, keypoint_format) if files else {}
        for path in files:
            try:
                alone = len(files) == 1
                job = read_job(
                    self.detector,
                    path,
                    keypoints,
                    boxes,
                    focal,
                    fov,
                    max_people,
                    max_pixels,
                    alone,
                    keypoint_format,
                )
            except DPMeshError as error:
                job = error
            waiting.append((path, job))
            del job
            if self._full(waiting):
                yield from self._finish(waiting, options)
        yield from self._finish(waiting, options)

    def predict_job(self, job: Job, options: Options | None = None) -> Scene:
        """Everybody in an image whose people are known (`job.read_job`); the job is left as it was, so that several
        predictors can have the same. options: as the scene shall record them."""
        return self._run([replace(job, fallbacks=job.fallbacks.copy())], options or {})[0]

    def _full(self, waiting: "Waiting") -> bool:
        jobs = [job for _, job in waiting if isinstance(job, Job)]
        return (
            len(waiting) >= WAITING_IMAGES
            or sum(len(job.people) for job in jobs) >= self.batch
            or sum(job.picture.rgb.nbytes for job in jobs) >= WAITING_BYTES
        )

    def _finish(self, waiting: "Waiting", options: Options) -> Iterator[tuple[Path, Scene | DPMeshError]]:
        """Empties `waiting`; holds nothing of an image that has been handed out."""
        scenes = self._run([job for _, job in waiting if isinstance(job, Job)], options)
        results = [(path, None if isinstance(job, Job) else job) for path, job in waiting]
        waiting.clear()
        for path, error in results:
            yield path, scenes.pop(0) if error is None else error

    @torch.inference_mode()
    def _run(self, jobs: list[Job], options: Options) -> list[Scene]:
        work = [one for job in jobs for one in job.work]
        found: dict[int, list[Person]] = {id(job): [] for job in jobs}
        for start in range(0, len(work), self.batch):
            part = work[start : start + self.batch]
            bodies = place(
                self.model.body,
                self._answer(part),
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
        return [self._scene(job, tuple(found[id(job)]), options) for job in jobs]

    def _answer(self, part: list[Work]) -> Prediction:
        inputs = self.inputs(part)
        answer = self.model(inputs)
        return answer if self.fitter is None else self.fitter.refine(answer, inputs.joints, inputs.visible)

    def inputs(self, part: list[Work]) -> Inputs:
        """The model's inputs for some people, on its device."""
        return model_inputs(part, self.model.camera, self.device)

    def _scene(self, job: Job, people: tuple[Person, ...], options: Options) -> Scene:
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
            notes=(*job.picture.notes, *self.notes),
            weights=self.weights,
            options={**self.options, **options},
            body=self.model.body,
        )


Waiting = list[tuple[Path, Job | DPMeshError]]

_BODY_FIELDS = ("global_orient", "body_pose", "betas", "transl", "vertices", "joints3d", "joint_sigma")
