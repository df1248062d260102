"""Recover the body meshes of all people in an image: `Predictor.from_pretrained("embedded")("photo.jpg")`.

An image goes through `preprocess` (decode, detect, crop), the model, and `postprocess` (from the crop's camera into the
camera of the full image); the result is a `Scene`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from dpmesh.body.layer import BodyModel
from dpmesh.body.resolve import choose_body
from dpmesh.device import pick_device
from dpmesh.errors import DPMeshError
from dpmesh.geometry.camera import project
from dpmesh.inference.detections import PersonDetector
from dpmesh.inference.detector import Detector
from dpmesh.inference.flip_test import FlipTest
from dpmesh.inference.options import (
    MAX_PEOPLE,
    MAX_PIXELS,
    ModelOptions,
    PredictOptions,
    RecordedOptions,
    with_option_docs,
)
from dpmesh.inference.postprocess import CameraBody, postprocess
from dpmesh.inference.preprocess import PersonInput, PreparedImage, Source, model_inputs, prepare_image
from dpmesh.inference.scene import Person, Scene
from dpmesh.inference.smplify import Fitter, fitter_of
from dpmesh.inference.user_detections import UserInput
from dpmesh.inference.user_models.person import PersonModel
from dpmesh.inference.user_models.pose import PoseModel
from dpmesh.model import DPMesh
from dpmesh.skeletons import JOINTS30
from dpmesh.types import Inputs, Prediction

FLIPPED = "mean of the picture's and its mirror image's body (--flip)"
REFINED = "fitted to the keypoints after the network (--refine)"
MAX_WAITING_IMAGES, MAX_WAITING_BYTES = 16, 256 * 2**20
"""How many decoded images, and of how many bytes, may wait until a batch of people is full."""


@runtime_checkable
class MeshModel(Protocol):
    """The interface of a model (`model.DPMesh`)."""

    body: BodyModel
    provenance: dict[str, Any]

    @property
    def camera(self) -> Literal["crop", "image"]: ...

    def __call__(self, inputs: Inputs, *, features: bool = ...) -> Prediction: ...


@dataclass(frozen=True)
class _Waiting:
    """A file of `predict_many` whose people wait for a batch, or the error that it gave."""

    path: Path
    content: PreparedImage | DPMeshError


class Predictor:
    """A model and a person detector: images in, scenes with body meshes out. Not thread-safe.

    The people of one image do not depend on the other images of a batch, except for rounding: sums over a batch are
    taken in another order than for one person alone (docs/reference/output.md has the figures).
    """

    def __init__(
        self,
        model: MeshModel,
        detector: PersonDetector,
        name: str = "",
        batch: int = 8,
        body: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
        fitter: Fitter | None = None,
        options: RecordedOptions | None = None,
    ) -> None:
        """Combine loaded parts; `from_pretrained` loads them.

        :param model: in evaluation mode, on its device.
        :param name: of the weights, as scenes record it.
        :param batch: people per forward pass.
        :param body: the user's body files with checksums, as scenes record them; None for the free body.
        :param notes: remarks on weights or body, added to every scene.
        :param fitter: fits every prediction to its person's keypoints.
        :param options: what results depend on (`ModelOptions.record`), as scenes record it.
        """
        self.model, self.detector, self.name, self.batch = model, detector, name, batch
        self.weights = {"name": name, "provenance": dict(model.provenance)} | (
            {"body": dict(body)} if body else {}
        )
        self.notes = notes if fitter is None else (*notes, REFINED)
        self.fitter = fitter
        # After a fit there is no sigma: the network judged its own prediction.
        self.predicts_sigma = fitter is None and isinstance(model, DPMesh | FlipTest) and model.predicts_sigma
        self.device = model.body.faces.device
        self.options: RecordedOptions = {"weights": {"file": name}} if options is None else options

    @classmethod
    @with_option_docs(ModelOptions)
    def from_pretrained(
        cls,
        weights: str | Path = "embedded",
        device: str = "auto",
        threads: int = 1,
        fast: bool = False,
        body: str | Path | None = None,
        regressors: str | Path | None = None,
        refine: bool = False,
        rotated_detection: bool = True,
        flip: bool = False,
        pose_model: str | Path | None = None,
        person_model: str | Path | None = None,
    ) -> "Predictor":
        """Load weights, their body and the detector. Raises WeightsError, AssetError, ConfigError, InputError."""
        options = ModelOptions(
            weights=weights,
            device=device,
            threads=threads,
            fast=fast,
            body=body,
            regressors=regressors,
            refine=refine,
            rotated_detection=rotated_detection,
            flip=flip,
            pose_model=pose_model,
            person_model=person_model,
        )
        detector = Detector(
            threads=threads,
            fast=fast,
            rotated_detection=rotated_detection,
            person_model=None if person_model is None else PersonModel(Path(person_model), threads),
            pose_model=None if pose_model is None else PoseModel(Path(pose_model), threads),
        )
        on_device = pick_device(device)
        torch.set_num_threads(threads)
        chosen = choose_body(weights, body, regressors)
        model = DPMesh.from_pretrained(weights, chosen.arrays).to(on_device).eval()
        return cls(
            FlipTest(model) if flip else model,
            detector,
            name=str(weights),
            batch=8 if on_device.type == "cpu" else 32,
            body=chosen.record,
            notes=(*chosen.notes, FLIPPED) if flip else chosen.notes,
            fitter=fitter_of(model) if refine else None,
            options=options.record(),
        )

    @with_option_docs(PredictOptions)
    def __call__(
        self,
        image: Source,
        keypoints: UserInput = None,
        boxes: UserInput = None,
        focal: float | None = None,
        fov: float | None = None,
        max_people: int = MAX_PEOPLE,
        max_pixels: int = MAX_PIXELS,
        keypoint_format: str | None = None,
        keep_unposed: bool = False,
    ) -> Scene:
        """Predict every person in one image. Raises InputError.

        :param image: a path, a PIL image, or an RGB array (H, W, 3) uint8.
        """
        options = PredictOptions(
            keypoints=keypoints,
            boxes=boxes,
            focal=focal,
            fov=fov,
            max_people=max_people,
            max_pixels=max_pixels,
            keypoint_format=keypoint_format,
            keep_unposed=keep_unposed,
        )
        recorded = options.record()
        return self._predict([prepare_image(self.detector, image, options)], recorded)[0]

    @with_option_docs(PredictOptions)
    def predict_many(
        self,
        paths: Iterable[str | Path],
        keypoints: UserInput = None,
        boxes: UserInput = None,
        focal: float | None = None,
        fov: float | None = None,
        max_people: int = MAX_PEOPLE,
        max_pixels: int = MAX_PIXELS,
        keypoint_format: str | None = None,
        keep_unposed: bool = False,
    ) -> Iterator[tuple[Path, Scene | DPMeshError]]:
        """Predict many image files, in order, with people batched across images.

        A file that cannot be used yields its error instead of a scene. At most MAX_WAITING_IMAGES decoded images wait
        until a batch is full, and no further one is read once they take MAX_WAITING_BYTES.
        """
        options = PredictOptions(
            keypoints=keypoints,
            boxes=boxes,
            focal=focal,
            fov=fov,
            max_people=max_people,
            max_pixels=max_pixels,
            keypoint_format=keypoint_format,
            keep_unposed=keep_unposed,
        )
        waiting: list[_Waiting] = []
        files = [Path(path) for path in paths]
        recorded = options.record() if files else {}
        for path in files:
            waiting.append(_Waiting(path, self._prepare(path, options, only_image=len(files) == 1)))
            if self._is_full(waiting):
                yield from self._finish(waiting, recorded)
        yield from self._finish(waiting, recorded)

    def predict_prepared(self, prepared: PreparedImage, options: RecordedOptions | None = None) -> Scene:
        """Predict the people of a prepared image, which is not changed: several predictors can share it.

        :param options: as the scene records them.
        """
        own = replace(prepared, fallbacks=prepared.fallbacks.copy())
        return self._predict([own], options or {})[0]

    def inputs(self, persons: list[PersonInput]) -> Inputs:
        """The model's inputs for some people, on its device."""
        return model_inputs(persons, self.model.camera, self.device)

    def _own_detector(self) -> RecordedOptions:
        """The name of a detector that has one (`PersonDetector`), as scenes record it."""
        name = getattr(self.detector, "name", None)
        return {"detector": name} if isinstance(name, str) else {}

    def _prepare(self, path: Path, options: PredictOptions, only_image: bool) -> PreparedImage | DPMeshError:
        try:
            return prepare_image(self.detector, path, options, only_image)
        except DPMeshError as error:
            return error

    def _is_full(self, waiting: list[_Waiting]) -> bool:
        images = [entry.content for entry in waiting if isinstance(entry.content, PreparedImage)]
        return (
            len(waiting) >= MAX_WAITING_IMAGES
            or sum(len(prepared.people) for prepared in images) >= self.batch
            or sum(prepared.image.rgb.nbytes for prepared in images) >= MAX_WAITING_BYTES
        )

    def _finish(
        self, waiting: list[_Waiting], options: RecordedOptions
    ) -> Iterator[tuple[Path, Scene | DPMeshError]]:
        """Predict and empty `waiting`. Keeps no reference to an image that has been yielded."""
        images = [entry.content for entry in waiting if isinstance(entry.content, PreparedImage)]
        scenes = self._predict(images, options)
        del images
        errors = [
            (entry.path, None if isinstance(entry.content, PreparedImage) else entry.content)
            for entry in waiting
        ]
        waiting.clear()
        for path, error in errors:
            yield path, scenes.pop(0) if error is None else error

    @torch.inference_mode()
    def _predict(self, images: list[PreparedImage], options: RecordedOptions) -> list[Scene]:
        """One scene per image; their people go through the model in batches."""
        persons = [person for prepared in images for person in prepared.persons]
        people: dict[int, list[Person]] = {id(prepared): [] for prepared in images}
        for start in range(0, len(persons), self.batch):
            batch = persons[start : start + self.batch]
            bodies = postprocess(
                self.model.body,
                self._forward(batch),
                [person.crop for person in batch],
                [person.prepared.K for person in batch],
                self.model.camera,
            )
            for person, body in zip(batch, bodies, strict=True):
                person.prepared.fallbacks["translation"] += not body.solved
                people[id(person.prepared)].append(_person(person, body))
        return [self._scene(prepared, tuple(people[id(prepared)]), options) for prepared in images]

    def _forward(self, persons: list[PersonInput]) -> Prediction:
        inputs = self.inputs(persons)
        prediction = self.model(inputs)
        if self.fitter is None:
            return prediction
        return self.fitter.refine(prediction, inputs.joints, inputs.visible)

    def _scene(self, prepared: PreparedImage, people: tuple[Person, ...], options: RecordedOptions) -> Scene:
        height, width = prepared.image.rgb.shape[:2]
        return Scene(
            K=prepared.K,
            image_size=(height, width),
            joint_names=JOINTS30.joints,
            faces=self.model.body.faces.cpu().numpy().astype(np.int32),
            people=people,
            image=prepared.image.rgb,
            source=prepared.source,
            source_sha256=prepared.sha256,
            focal_source=prepared.focal_source,
            fallbacks={name: int(n) for name, n in sorted(prepared.fallbacks.items()) if n},
            notes=(*prepared.image.notes, *self.notes),
            weights=self.weights,
            options={**self.options, **options, **self._own_detector()},
            body=self.model.body,
        )


def _person(person: PersonInput, body: CameraBody) -> Person:
    detection = person.detection
    return Person(
        box=detection.box.astype(np.float32),
        keypoints2d=detection.keypoints.astype(np.float32),
        score=float(detection.score),
        joints2d=project(body.joints3d, person.prepared.K).astype(np.float32),
        global_orient=body.global_orient,
        body_pose=body.body_pose,
        betas=body.betas,
        transl=body.transl,
        vertices=body.vertices,
        joints3d=body.joints3d,
        joint_sigma=body.joint_sigma,
    )
