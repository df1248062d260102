"""Preview images of a training: input keypoints, prediction and ground truth of a few people."""

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from dpmesh.geometry import CROP
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.model import DPMesh
from dpmesh.render.overlay import Layer, draw_overlay, palette
from dpmesh.train.dataloader import Tensors, to_model_camera
from dpmesh.types import Inputs

PEOPLE = 4
"""Rows of a preview."""


@torch.no_grad()
def draw_preview(
    model: DPMesh, batch: Tensors, joints: Tensor, visible: Tensor
) -> UInt8[np.ndarray, "h 768 3"] | None:
    """A row for each of the first people: the crop with the input keypoints, the prediction, the ground truth.

    joints (b, 30, 2) crop pixels, visible (b, 30): the model's input. A ground truth of unknown pose or position is
    left out. None for a batch without images.
    """
    if "crop" not in batch:
        return None
    some = {name: values[:PEOPLE] for name, values in batch.items()}
    joints, visible = joints[:PEOPLE], visible[:PEOPLE]
    crop = some["crop"].permute(0, 3, 1, 2).float() / 255
    was_training = model.training
    model.eval()
    prediction = model(Inputs(crop, joints, visible, to_model_camera(some, model.config)["focal"]))
    truth = model.body(some["betas"], rotation_matrix(some["pose"]), some["transl"])
    model.train(was_training)
    faces, (ours, true, *_) = model.body.faces.cpu().numpy(), palette(2)
    rows: list[NDArray[np.uint8]] = []
    for i in range(len(crop)):
        image = some["crop"][i].cpu().numpy()
        own, crops = (_intrinsics(float(focal[i])) for focal in (prediction.focal, some["focal"]))
        keypoints = image.copy()
        for (x, y), shown in zip(joints[i].tolist(), visible[i].tolist(), strict=True):
            if shown:
                cv2.circle(keypoints, (round(x), round(y)), 3, (255, 230, 0), -1)
        predicted = [Layer(prediction.vertices[i].float().cpu().numpy(), ours)]
        known = bool(some["pose_valid"][i].all()) and float(some["transl"][i, 2]) > 0
        true_layers = [Layer(truth.vertices[i].cpu().numpy(), true)] if known else []
        rows.append(
            np.hstack(
                [
                    keypoints,
                    draw_overlay(image, predicted, faces, own),
                    draw_overlay(image, true_layers, faces, crops),
                ]
            )
        )
    return np.vstack(rows)


def _intrinsics(focal: float) -> NDArray[np.float64]:
    """K of a camera whose axis goes through the middle of the crop."""
    return np.array([[focal, 0, CROP / 2], [0, focal, CROP / 2], [0, 0, 1]])
