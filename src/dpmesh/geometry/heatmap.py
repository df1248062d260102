"""Keypoints as images: the spatial condition of the paper (Eq. 4)."""

import torch
from jaxtyping import Float
from torch import Tensor


def draw_heatmaps(
    joints: Float[Tensor, "b j 2"],
    visible: Float[Tensor, "b j"],
    *,
    size: int = 32,
    sigma: float = 2.5,
    crop: int = 256,
) -> Float[Tensor, "b j s s"]:
    """One Gaussian of peak 1 for each visible joint, zeros for the others.

    joints: crop pixels. sigma: cells of the size×size grid; a cell is crop/size pixels and its index is its place,
    without a half-cell shift (the released convention).
    """
    grid = torch.arange(size, device=joints.device, dtype=joints.dtype)
    x, y = (joints * (size / crop)).unbind(-1)
    across = torch.exp(-((grid - x[..., None]) ** 2) / (2 * sigma**2))  # (b, j, s)
    down = torch.exp(-((grid - y[..., None]) ** 2) / (2 * sigma**2))
    return down[..., :, None] * across[..., None, :] * visible[..., None, None]
