"""Joints as the backbone might read them off a picture, imagined from the truth.

The keypoint stage sees thousands of people in the time in which the image stage sees a hundred. So that it can
also teach the regressor what to do with the joints that the backbone reads, it invents them, with errors of the
size and shape that were measured on a half-trained backbone (docs/embedded.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.geometry import CROP


def imagined_reading(batch: dict[str, Tensor], seed: int, absent: float) -> Float[Tensor, "b 30 4"]:
    """Like JointsRead.summary of a real picture; `absent` of the people have none (zeros).

    batch: a training batch (data/record.py). Errors: a few pixels for joints in sight, twice that for hidden ones,
    now and then far more; some joints lie where the (noisy) keypoint is. Depths shrink towards the pelvis, as
    those of an unsure reader do, and some change sign: a limb that is as well in front as behind.
    """
    draw = torch.Generator().manual_seed(seed)
    truth, given, seen = batch["joints2d"], batch["joints"], batch["visible"] > 0
    count, joints = seen.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    def chance(share: float) -> Tensor:
        return torch.rand(count, joints, generator=draw) < share

    spread = 5.0 * torch.exp(0.4 * normal(count, 1)) * torch.where(batch["joint_visible"] > 0, 1.0, 2.0)
    spread = torch.where(chance(0.1), spread * 4, spread)
    places = truth + normal(count, joints, 2) * spread[..., None]
    copied = chance(0.15) & seen
    places = torch.where(copied[..., None], given + normal(count, joints, 2) * 2, places).clamp(0, CROP - 8)

    depth = batch["joints3d"][..., 2] - batch["joints3d"][:, :1, 2]
    shrink = 0.3 + 0.7 * torch.rand(count, 1, generator=draw)
    turned = torch.where(chance(0.12), -1.0, 1.0)
    depth = depth * shrink * turned + 0.06 * torch.exp(0.4 * normal(count, 1)) * normal(count, joints)

    sure = 0.08 / (1 + (spread / 8).square()) * torch.exp(0.3 * normal(count, joints))
    read = torch.cat([places / CROP, depth[..., None], sure[..., None]], -1)
    there = (torch.rand(count, 1, 1, generator=draw) >= absent).to(read.dtype)
    return read * there
