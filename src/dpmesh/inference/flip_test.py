"""Test-time flip: the mean of the predictions for the crop and for its mirror image.

It takes two forward passes. docs/research/model_card.md has the measured gain. Not in the paper.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpmesh.body.layer import BodyModel
from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import camera_translation
from dpmesh.geometry.rotations import nearest_rotation
from dpmesh.inference.postprocess import check_finite
from dpmesh.model import DPMesh
from dpmesh.skeletons import GRAPH15, JOINTS30, SMPL24
from dpmesh.types import Inputs, Prediction

_JOINTS, _PLACES, _BODY = list(JOINTS30.flip), list(GRAPH15.flip), list(SMPL24.flip)


class FlipTest:
    """A model with test-time flip, called like the model itself (`predictor.MeshModel`).

    Mirrored inputs give the mirrored prediction, exactly but for the crop's first column: its mirror image lies
    outside.
    """

    def __init__(self, model: DPMesh) -> None:
        self.model = model
        self.body: BodyModel = model.body
        self.provenance: dict[str, Any] = model.provenance

    @property
    def camera(self) -> Literal["crop", "image"]:
        return self.model.camera

    @property
    def predicts_sigma(self) -> bool:
        return self.model.predicts_sigma

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        """The mean of both predictions.

        pose_latent is that of the unmirrored pass, so body_rotations is not decoded from it; there are no features.
        Raises WeightsError for a prediction that is not finite.
        """
        other = mirrored(inputs)
        names = ("crop", "joints", "visible", "focal")
        both = self.model(Inputs(*(torch.cat([getattr(inputs, n), getattr(other, n)]) for n in names)))
        check_finite(both)
        turns = mean(torch.cat([both.global_orient[:, None], both.body_rotations], 1), mirrored_rotations)
        rotations = nearest_rotation(turns)
        betas = mean(both.betas, lambda betas: betas)
        camera = mean(both.camera, lambda camera: camera * camera.new_tensor([-1.0, 1.0, 1.0]))
        focal = both.focal[: len(inputs.focal)]
        transl = camera_translation(camera, focal, self.model.config.depth_scale)
        averaged = Prediction.from_body(
            self.body,
            rotations,
            betas,
            transl,
            focal,
            pose_latent=both.pose_latent[: len(focal)],
            camera=camera,
            joints_img=mean(both.joints_img, _mirrored_places),
        )
        sigma = both.joint_sigma
        return replace(
            averaged, joint_sigma=None if sigma is None else mean(sigma, lambda sigma: sigma[:, _JOINTS])
        )


def predict_partly_mirrored(model: DPMesh, inputs: Inputs, which: Bool[Tensor, " b"]) -> Prediction:
    """The model's prediction; where `which`, that for the mirror image, mirrored back.

    Without features; pose_latent is that of the image the model got. Raises WeightsError as FlipTest.
    """
    other = mirrored(inputs)
    names = ("crop", "joints", "visible", "focal")

    def chosen(there: Tensor, here: Tensor) -> Tensor:
        return torch.where(which.reshape(-1, *[1] * (here.ndim - 1)), there, here)

    got = model(Inputs(*(chosen(getattr(other, n), getattr(inputs, n)) for n in names)))
    check_finite(got)
    turns = torch.cat([got.global_orient[:, None], got.body_rotations], 1)
    camera = chosen(got.camera * got.camera.new_tensor([-1.0, 1.0, 1.0]), got.camera)
    sigma = got.joint_sigma
    back = Prediction.from_body(
        model.body,
        chosen(mirrored_rotations(turns), turns),
        got.betas,
        camera_translation(camera, got.focal, model.config.depth_scale),
        got.focal,
        pose_latent=got.pose_latent,
        camera=camera,
        joints_img=chosen(_mirrored_places(got.joints_img), got.joints_img),
    )
    return replace(back, joint_sigma=None if sigma is None else chosen(sigma[:, _JOINTS], sigma))


def mirrored(inputs: Inputs) -> Inputs:
    """The inputs mirrored about pixel 128 (docs/reference/conventions.md), left and right joints exchanged."""
    first = inputs.crop[
        ..., -1:
    ]  # the mirror image of pixel 0 is pixel 256, outside: replaced by its neighbour
    crop = torch.cat([first, inputs.crop[..., 1:].flip(-1)], -1)
    joints = torch.stack([CROP - inputs.joints[..., 0], inputs.joints[..., 1]], -1)[:, _JOINTS]
    return Inputs(crop, joints, inputs.visible[:, _JOINTS], inputs.focal)


def mirrored_rotations(rotations: Float[Tensor, "b 24 3 3"]) -> Float[Tensor, "b 24 3 3"]:
    """The rotations of a body's mirror image, root first, left and right exchanged."""
    side = rotations.new_tensor([-1.0, 1.0, 1.0])
    return rotations[:, _BODY] * side[:, None] * side


def _mirrored_places(places: Float[Tensor, "b 15 3"]) -> Float[Tensor, "b 15 3"]:
    """Prediction.joints_img of the mirror image."""
    return torch.cat([1 - places[..., :1], places[..., 1:]], -1)[:, _PLACES]


def mean(both: Tensor, unmirror: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of the batch's first half and its second, which is of the mirror image and is mirrored back."""
    first, second = both.chunk(2)
    return (first + unmirror(second)) / 2
