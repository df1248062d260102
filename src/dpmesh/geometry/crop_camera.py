"""The camera of a crop, on tensors: where a body stands, and where its points fall."""

import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.geometry import CROP


def camera_translation(
    camera: Float[Tensor, "b 3"], focal: Float[Tensor, " b"], scale: float
) -> Float[Tensor, "b 3"]:
    """(tx, ty, g) to metres: z = f · scale / 256 · sigmoid(g), so that 256 pixels span scale · sigmoid(g) metres."""
    depth = focal * (scale / CROP) * torch.sigmoid(camera[:, 2])
    return torch.cat([camera[:, :2], depth[:, None]], dim=1)


def project(points: Float[Tensor, "b j 3"], focal: Float[Tensor, " b"]) -> Float[Tensor, "b j 2"]:
    """Crop camera: metres to crop pixels. 0.1 mm is added to the depth, as released, so that it never vanishes."""
    return points[..., :2] / (points[..., 2:] + 1e-4) * focal[:, None, None] + CROP / 2
