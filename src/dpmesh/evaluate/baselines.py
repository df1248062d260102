"""What is measured instead of the network, on the same persons: baselines, and the network's answer refined.

Each looks like a model (inference.predictor.MeshModel), so that a run treats it as one.
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
from dpmesh.inference.smplify import Fitter, fitter_of
from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_prior
from dpmesh.types import Inputs, Prediction

Method = Literal["network", "t-pose", "lifter", "blank", "fit", "refine", "flip"]
METHODS = {
    "network": "the model",
    "t-pose": "T-pose facing the camera, mean shape",
    "lifter": "the model's own lifter: the keypoints alone, no picture",
    "blank": "the model, its picture black",
    "fit": "SMPLify-like: the body fitted to the keypoints under the shipped pose prior, no network",
    "refine": "the model, its answer then fitted to the keypoints",
    "flip": "the model, asked of the picture and of its mirror image, averaged",
}


WITHOUT_NETWORK: dict[Method, Path | None] = {"t-pose": None, "fit": SHIPPED / "prior" / WEIGHTS}
"""The methods that do not depend on a model's weights, and the file that decides their answers instead, if one does."""


def method_of(name: Method, model: DPMesh) -> MeshModel:
    """Raises ConfigError for an unknown name, or a lifter that the model lacks."""
    if name not in get_args(Method):
        raise ConfigError(f"there is no method {name!r}", fix=f"There are: {', '.join(METHODS)}.")
    if name == "network":
        return model
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
    """The model's body and camera."""

    def __init__(self, model: DPMesh) -> None:
        self.model = model
        self.body: BodyModel = model.body
        self.provenance: dict[str, Any] = dict(model.provenance)

    @property
    def camera(self) -> Literal["crop", "image"]:
        return self.model.camera


class TPose(_Method):
    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        b, focal = len(inputs.focal), inputs.focal
        root = torch.diag(torch.tensor([1.0, -1.0, -1.0], device=focal.device)).expand(b, 1, 3, 3)
        rest = torch.eye(3, device=focal.device).expand(b, 23, 3, 3)
        transl = torch.stack([torch.zeros_like(focal), torch.zeros_like(focal), focal / 128], 1)
        rotations = torch.cat([root, rest], 1)
        return Prediction.from_body(self.body, rotations, focal.new_zeros(b, 10), transl, focal)


class KeypointLifter(_Method):
    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        answer = self.model.regress(None, inputs.joints, inputs.visible)
        found = self.model.decode_parameters(answer, inputs.focal)
        return Prediction.from_body(self.body, found.rotations, found.betas, found.transl, inputs.focal)


class Blank(_Method):
    """What the backbone makes of the keypoints when there is nothing to see."""

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        return self.model(replace(inputs, crop=torch.zeros_like(inputs.crop)))


class KeypointFit(_Method):
    def __init__(self, model: DPMesh) -> None:
        super().__init__(model)
        prior = load_prior().as_decoder("points").to(model.body.faces.device)
        self.fitter = Fitter(model.body, prior)

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        found = self.fitter.fit(inputs.joints, inputs.visible, inputs.focal)
        return self.fitter.prediction_of(found, inputs.focal)


class Refined(_Method):
    def __init__(self, model: DPMesh) -> None:
        super().__init__(model)
        self.fitter = fitter_of(model)

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        return self.fitter.refine(self.model(inputs), inputs.joints, inputs.visible)
