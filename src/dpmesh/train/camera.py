"""A batch in the frame of the model's own camera (DPMeshConfig.camera), whatever people it has."""

import torch
from torch import Tensor

from dpmesh.config import DPMeshConfig
from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.train.dataloader import BLIND, Tensors

_PLACES = ("joints3d", "fit_joints3d")


def in_own_camera(batch: Tensors, config: DPMeshConfig) -> Tensors:
    """Samples are made for the crop's camera (data/sample.py). For a model of the whole image's camera the focal
    length becomes the image's diagonal, and 3D joints and root orientation are turned into that camera's frame; for
    one with shared_focal all people of the batch get the first one's focal length, as in the released code.

    `transl` stays: no loss looks at it, and a diagonal taken for a focal length gives nobody a place. People without
    a picture in a batch (BLIND) are treated alike. Raises ConfigError for a model that reads joints off its maps:
    the surface's depths are told for the crop's camera alone.
    """
    if config.camera == "crop" and not config.shared_focal:
        return batch
    out = dict(batch)
    for prefix in ("", BLIND):
        if f"{prefix}focal" not in batch:
            continue
        if config.camera == "image":
            if config.reads:
                raise ConfigError(
                    "a model that reads joints off its maps is trained in the crop's camera", where="camera"
                )
            turn = batch[f"{prefix}to_image"]
            out[f"{prefix}focal"] = batch[f"{prefix}diagonal"]
            for name in (f"{prefix}{place}" for place in _PLACES):
                out[name] = batch[name] @ turn.mT
            out[f"{prefix}pose"] = _turned(batch[f"{prefix}pose"], turn)
        if config.shared_focal:
            out[f"{prefix}focal"] = out[f"{prefix}focal"][:1].expand_as(out[f"{prefix}focal"])
    return out


def _turned(pose: Tensor, turn: Tensor) -> Tensor:
    """Axis-angle (b, 24, 3) with the root turned, in fp32 also under autocast."""
    with torch.autocast(pose.device.type, enabled=False):
        root = axis_angle(turn @ rotation_matrix(pose[:, 0]))
    return torch.cat([root[:, None], pose[:, 1:]], 1)
