"""Recover the body meshes of all people in an image: `Predictor.from_pretrained()("photo.jpg")`.

An image goes through `preprocess` (decode, detect, crop), the model, and `postprocess` (from the crop's camera into the
camera of the full image); the result is a `Scene`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, Unpack, cast, overload, runtime_checkable

import numpy as np
import torch

from dpmesh.body.layer import BodyModel
from dpmesh.body.resolve import choose_body
from dpmesh.device import pick_device
from dpmesh.errors import DPMeshError
from dpmesh.geometry.camera import project
from dpmesh.inference.batches import append_paths, predict_in_batches, refuse_single_image, scene_or_raise
from dpmesh.inference.correct import correct
from dpmesh.inference.corrections import Correction, Corrections
from dpmesh.inference.detections import PersonDetector, detector_record
from dpmesh.inference.detector import Detector
from dpmesh.inference.flip_test import FlipTest
from dpmesh.inference.hypotheses import with_hypotheses
from dpmesh.inference.image_sources import source_path
from dpmesh.inference.option_docs import with_short_signatures
from dpmesh.inference.options import (
    MAX_PEOPLE,
    MAX_PIXELS,
    ModelOptions,
    PredictKeywords,
    PredictOptions,
    RecordedOptions,
)
from dpmesh.inference.postprocess import CameraBody, postprocess
from dpmesh.inference.preprocess import (
    ImageSource,
    PersonInput,
    PreparedImage,
    model_inputs,
    prepare_image,
)
from dpmesh.inference.refine import Refiner
from dpmesh.inference.scene import Person, Scene
from dpmesh.inference.user_detections import UserInput
from dpmesh.model import DPMesh
from dpmesh.skeletons import JOINTS30
from dpmesh.types import Inputs, Prediction

FLIPPED = "mean of the picture's and its mirror image's body (--flip)"


@runtime_checkable
class MeshModel(Protocol):
    """The interface of a model (`model.DPMesh`)."""

    body: BodyModel
    provenance: dict[str, Any]

    @property
    def camera(self) -> Literal["crop", "image"]: ...

    def __call__(self, inputs: Inputs, *, features: bool = ...) -> Prediction: ...


@with_short_signatures
class Predictor:
    """Body meshes of all people in images: a model and a person detector. Not thread-safe.

    >>> from dpmesh import Predictor
    >>> predictor = Predictor.from_pretrained()  # the shipped weights
    >>> scene = predictor("examples/park.jpg")
    >>> scene
    Scene(2 people, 1024×576, focal 1175 px, guessed)
    >>> scene[0].vertices.shape  # metres; x right, y down, z forward
    (6904, 3)
    >>> predictor("examples/park.jpg", keypoints=scene[0].keypoints2d)  # (17, 3) or (P, J, 3)
    Scene(1 person, 1024×576, focal 1175 px, guessed)
    >>> scenes = predictor(["examples/park.jpg", scene.image])  # a list in, a list out
    """

    def __init__(
        self,
        model: MeshModel,
        detector: PersonDetector,
        name: str = "",
        batch: int = 8,
        body: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
        refiner: Refiner | None = None,
        options: RecordedOptions | None = None,
    ) -> None:
        """Combine loaded parts; `from_pretrained` loads them."""
        # model: in evaluation mode, on its device. batch: people per forward pass. refiner: refines predictions with
        # its person's keypoints. Scenes record the others: name, of the weights; body, the user's body files with
        # checksums, None for the free body; notes, on weights or body; options, what results depend on
        # (ModelOptions.record).
        self.model, self.detector, self.name, self.batch = model, detector, name, batch
        self.weights = {"name": name, "provenance": dict(model.provenance)} | (
            {"body": dict(body)} if body else {}
        )
        self.notes, self.refiner = notes, refiner
        self.predicts_sigma = isinstance(model, DPMesh | FlipTest) and model.predicts_sigma
        self.device = model.body.faces.device
        self.options: RecordedOptions = {"weights": {"file": name}} if options is None else options

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path = "embedded",
        device: str = "auto",
        threads: int = 1,
        fast: bool = False,
        body: str | Path | None = None,
        regressors: str | Path | None = None,
        refine: bool = True,
        rotated_detection: bool = True,
        flip: bool = False,
        pose_model: str | Path | None = None,
        person_model: str | Path | None = None,
    ) -> "Predictor":
        """Load weights, their body and the detector. Raises DPMeshError.

        weights: a shipped name or a folder. device: "auto", "cpu", "cuda:1", "mps". threads: of
        the CPU. body, regressors: your SMPL files. refine: fit to the keypoints, more accurate.
        flip: two passes without refining. fast: one detection for the whole image, refined from
        one pass, less accurate. rotated_detection: a second one where a person leans.
        pose_model, person_model: your own ONNX files. In full: help(dpmesh.ModelOptions).
        """
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
        detector = Detector.from_options(options)
        on_device = pick_device(device)
        torch.set_num_threads(threads)
        chosen = choose_body(weights, body, regressors)
        model = DPMesh.from_pretrained(weights, chosen.arrays).to(on_device).eval()
        return cls(
            FlipTest(model) if options.two_passes else model,
            detector,
            name=str(weights),
            batch=8 if on_device.type == "cpu" else 32,
            body=chosen.record,
            notes=(*chosen.notes, FLIPPED) if flip and not refine else chosen.notes,
            refiner=Refiner(model.body) if refine else None,
            options=options.record(),
        )

    def __repr__(self) -> str:
        methods = [
            name
            for name, used in (("flip", isinstance(self.model, FlipTest)), ("refine", self.refiner))
            if used
        ]
        return f"Predictor({', '.join([self.name or 'unnamed', str(self.device), *methods])})"

    @overload
    def __call__(self, images: ImageSource, **options: Unpack[PredictKeywords]) -> Scene: ...

    @overload
    def __call__(self, images: Sequence[ImageSource], **options: Unpack[PredictKeywords]) -> list[Scene]: ...

    def __call__(
        self,
        images: ImageSource | Sequence[ImageSource],
        keypoints: UserInput = None,
        boxes: UserInput = None,
        focal: float | None = None,
        fov: float | None = None,
        roll: float | None = None,
        max_people: int = MAX_PEOPLE,
        max_pixels: int = MAX_PIXELS,
        format: str | None = None,
        keep_unposed: bool = False,
        hypotheses: int = 1,
        corrections: str | Path | Corrections | None = None,
    ) -> Scene | list[Scene]:
        """Predict every person in an image, or in each of a list. Raises InputError.

        images: path, bytes, open binary file, PIL image, RGB array (H, W, 3) uint8, tensor
        (3, H, W) uint8 or float in [0, 1]; or a list. keypoints, boxes, format: your own, in
        place of the detector's. focal (pixels) or fov, roll (degrees): of the camera.
        max_people, max_pixels: limits. keep_unposed: keep people without a keypoint.
        hypotheses: bodies per person. corrections: by hand, a file.
        In full: help(dpmesh.PredictOptions).
        """
        options = PredictOptions(
            keypoints=keypoints,
            boxes=boxes,
            focal=focal,
            fov=fov,
            roll=roll,
            max_people=max_people,
            max_pixels=max_pixels,
            format=format,
            keep_unposed=keep_unposed,
            hypotheses=hypotheses,
            corrections=corrections,
        )
        if isinstance(images, (list, tuple)):
            scenes = enumerate(predict_stream(self, images, options))
            return [scene_or_raise(scene, f"images[{i}]") for i, (_, scene) in scenes]
        prepared = prepare_image(self.detector, cast("ImageSource", images), options)
        return finished(self, self._predict([prepared], options.record())[0], options)

    def predict_many(
        self, images: Iterable[ImageSource], **options: Unpack[PredictKeywords]
    ) -> Iterator[tuple[Any, Scene | DPMeshError]]:
        """Predict the images of any iterable as they are needed, in order.

        Yields (image, scene), or (image, DPMeshError) for an image that cannot be used. A path
        comes back as a `Path`, any other image as it is. options: those of a call.
        """
        return predict_stream(self, images, PredictOptions(**options))

    def correct(self, scene: Scene, corrections: Sequence[Correction]) -> Scene:
        """The predicted scene after corrections by hand; a shorter list undoes. Raises InputError."""
        return correct(
            scene,
            corrections,
            self.model.body,
            self.detector,
            lambda prepared: self._predict([prepared], scene.options)[0],
        )

    @torch.inference_mode()
    def _predict(self, images: Sequence[PreparedImage], options: RecordedOptions) -> list[Scene]:
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
        inputs = model_inputs(persons, self.model.camera, self.device)
        prediction = self.model(inputs)
        return prediction if self.refiner is None else self.refiner(prediction, inputs)

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
            roll=prepared.roll,
            fallbacks={name: int(n) for name, n in sorted(prepared.fallbacks.items()) if n},
            notes=(*prepared.image.notes, *self.notes),
            weights=self.weights,
            options={**self.options, **options, **detector_record(self.detector)},
            body=self.model.body,
        )


def predict_stream(
    predictor: Predictor,
    images: Iterable[ImageSource],
    options: PredictOptions,
    inputs: Sequence[str] = (),
    *,
    complete: bool = False,
) -> Iterator[tuple[Any, Scene | DPMeshError]]:
    """`Predictor.predict_many`. inputs: paths of other images of the run, whose results may be there already; with
    `complete` of all its images, these included."""
    refuse_single_image(images)
    names = inputs if complete else list(inputs)
    if complete or (options.keypoints is None and options.boxes is None):
        pass  # no entry of a file is looked up, or all names are known
    elif isinstance(images, Sequence):
        names = [*names, *map(source_path, images)]
    else:
        names = list(inputs)
        images = append_paths(images, names)
    recorded = options.record()
    predicted = predict_in_batches(
        images,
        lambda image, only_image: prepare_image(
            predictor.detector, image, options, only_image and not inputs, names
        ),
        lambda prepared: predictor._predict(prepared, recorded),
        predictor.batch,
        one_image=next(
            (n for n in ("keypoints", "boxes") if isinstance(getattr(options, n), np.ndarray)), ""
        ),
    )
    # map keeps no reference to a scene that it has given.
    return map(lambda pair: (pair[0], _finished_or_error(predictor, pair[1], options)), predicted)


def finished(predictor: Predictor, scene: Scene, options: PredictOptions) -> Scene:
    """A predicted scene with the corrections of its image, and with hypotheses. Raises InputError."""
    steps = options.corrections_of(scene.source, scene.source_sha256)
    return with_hypotheses(predictor.correct(scene, steps), options.hypotheses, predictor.model.body)


def _finished_or_error(
    predictor: Predictor, scene: Scene | DPMeshError, options: PredictOptions
) -> Scene | DPMeshError:
    try:
        return scene if isinstance(scene, DPMeshError) else finished(predictor, scene, options)
    except DPMeshError as error:
        return error


def predict_prepared(
    predictor: Predictor, prepared: PreparedImage, options: RecordedOptions | None = None
) -> Scene:
    """Predict the people of a prepared image. options: as the scene records them."""
    own = replace(prepared, fallbacks=prepared.fallbacks.copy())
    return predictor._predict([own], options or {})[0]


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
