"""Tensors in the crop's frame: the crop camera's translation and projection, and keypoint heatmaps."""

import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.geometry import CROP


def camera_translation(
    camera: Float[Tensor, "b 3"], focal: Float[Tensor, " b"], scale: float
) -> Float[Tensor, "b 3"]:
    """Translation in metres (crop camera frame: x right, y down, z forward) from the regressed camera (tx, ty, g).

    z = f · scale / 256 · sigmoid(g), with f in crop pixels: the crop then spans scale · sigmoid(g) metres at the body.
    scale: metres.
    """
    depth = focal * (scale / CROP) * torch.sigmoid(camera[:, 2])
    return torch.cat([camera[:, :2], depth[:, None]], dim=1)


def project(points: Float[Tensor, "b j 3"], focal: Float[Tensor, " b"]) -> Float[Tensor, "b j 2"]:
    """Crop pixels of points in metres, crop camera frame. focal: crop pixels.

    0.1 mm is added to the depth, as in the released code, which avoids a division by zero.
    """
    return points[..., :2] / (points[..., 2:] + 1e-4) * focal[:, None, None] + CROP / 2


def draw_heatmaps(
    joints: Float[Tensor, "b j 2"],
    visible: Float[Tensor, "b j"],
    *,
    size: int = 32,
    sigma: float = 2.5,
    crop: int = CROP,
) -> Float[Tensor, "b j s s"]:
    """Keypoints as images, the spatial condition of the paper (Eq. 4): one Gaussian of peak 1 for each visible joint,
    zeros for the others.

    joints: crop pixels. sigma: cells of the size×size grid. A cell is crop/size pixels wide and its index is its
    position, without a half-cell shift (the released convention).
    """
    grid = torch.arange(size, device=joints.device, dtype=joints.dtype)
    x, y = (joints * (size / crop)).unbind(-1)
    horizontal = torch.exp(-((grid - x[..., None]) ** 2) / (2 * sigma**2))  # (b, j, s)
    vertical = torch.exp(-((grid - y[..., None]) ** 2) / (2 * sigma**2))
    return vertical[..., :, None] * horizontal[..., None, :] * visible[..., None, None]
