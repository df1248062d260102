"""Methods that can be evaluated in place of the network: baselines, and post-processed predictions.

Each implements inference.predictor.MeshModel, as the model does.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from dpmesh.assets import SHIPPED
from dpmesh.body.layer import BodyModel
from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import ConfigError
from dpmesh.inference.flip_test import FlipTest
from dpmesh.inference.predictor import MeshModel
from dpmesh.inference.refine import Refiner
from dpmesh.inference.smplify import Fitter
from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_prior
from dpmesh.types import Inputs, Prediction

Method = Literal[
    "network", "t-pose", "lifter", "blank", "fit", "refine", "flip", "frame-wise", "gaussian"
]  # fmt: skip
METHODS = {
    "network": "the model",
    "t-pose": "T-pose facing the camera, mean shape",
    "lifter": "the model's own lifter: the keypoints alone, no picture",
    "blank": "the model, its picture black",
    "fit": "SMPLify-like: the body fitted to the keypoints under the shipped pose prior, no network",
    "refine": "the model, two passes, then refined with the keypoints, as dpmesh predict does",
    "flip": "the model, asked of the picture and of its mirror image, averaged",
    "frame-wise": "clips: each frame alone, as dpmesh predict does",
    "gaussian": "clips: each frame alone, linked by boxes, and a Gaussian of 0.08 s over the joints",
}
"""Method -> a description, which results store. Of clips `network` is what dpmesh video does."""

OF_CLIPS: tuple[Method, ...] = ("network", "frame-wise", "gaussian")
"""Methods of clips; the last two are of nothing else."""


WITHOUT_NETWORK: dict[Method, Path | None] = {"t-pose": None, "fit": SHIPPED / "prior" / WEIGHTS}
"""Methods that do not use a model's weights -> the file that they use instead, if any."""


def method_of(name: Method, model: DPMesh) -> MeshModel:
    """A method by name. Raises ConfigError for an unknown one, or if the model has no lifter."""
    if name not in get_args(Method):
        raise ConfigError(f"there is no method {name!r}", fix=f"There are: {', '.join(METHODS)}.")
    if name in OF_CLIPS:
        return model  # clips are predicted by a Predictor
    if name == "lifter" and model.regressor.lifter is None:
        raise ConfigError("this model has no lifter", where=model.config.name, fix="Measure another method.")
    methods = {
        "t-pose": TPose,
        "lifter": KeypointLifter,
        "blank": Blank,
        "fit": KeypointFit,
        "refine": Refined,
        "flip": FlipTest,
    }
    return methods[name](model)


class _Method:
    """A method with the model's body and camera."""

    def __init__(self, model: DPMesh) -> None:
        self.model = model
        self.body: BodyModel = model.body
        self.provenance: dict[str, Any] = dict(model.provenance)

    @property
    def camera(self) -> Literal["crop", "image"]:
        return self.model.camera


class TPose(_Method):
    """A T-pose that faces the camera, with the mean shape."""

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        b, focal = len(inputs.focal), inputs.focal
        root = torch.diag(torch.tensor([1.0, -1.0, -1.0], device=focal.device)).expand(b, 1, 3, 3)
        rest = torch.eye(3, device=focal.device).expand(b, 23, 3, 3)
        transl = torch.stack([torch.zeros_like(focal), torch.zeros_like(focal), focal / 128], 1)
        rotations = torch.cat([root, rest], 1)
        return Prediction.from_body(self.body, rotations, focal.new_zeros(b, 10), transl, focal)


class KeypointLifter(_Method):
    """The model's lifter: predicts from the keypoints only."""

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        regressed = self.model.regress(None, inputs.joints, inputs.visible)
        body = self.model.decode_parameters(regressed, inputs.focal)
        return Prediction.from_body(self.body, body.rotations, body.betas, body.transl, inputs.focal)


class Blank(_Method):
    """The model on a black image: shows what it infers from the keypoints."""

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        return self.model(replace(inputs, crop=torch.zeros_like(inputs.crop)))


class KeypointFit(_Method):
    """The body fitted to the keypoints, without the network."""

    def __init__(self, model: DPMesh) -> None:
        super().__init__(model)
        prior = load_prior().as_decoder("points").to(model.body.faces.device)
        self.fitter = Fitter(model.body, prior)

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        fitted = self.fitter.fit(inputs.joints, inputs.visible, inputs.focal)
        return self.fitter.prediction_of(fitted, inputs.focal)


class Refined(_Method):
    """Both passes of the model, refined with the keypoints."""

    def __init__(self, model: DPMesh) -> None:
        super().__init__(model)
        self.start, self.refiner = FlipTest(model), Refiner(model.body)

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        return self.refiner(self.start(inputs), inputs)
