"""Simulated joint readings: joints as the backbone would read them off an image, made from the ground truth.

The keypoint stage trains on thousands of people in the time in which the image stage trains on a hundred. To also train
the regressor on the joints that the backbone reads, it simulates them, with errors of the size and shape measured on a
half-trained backbone (docs/research/model_card.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.geometry import CROP
from dpmesh.skeletons import JOINTS30

_ENDS = (("Elbow", "Wrist", "Hand"), ("Knee", "Ankle", "Toe"))
_LIMB = torch.tensor(
    [
        next(
            (
                1 + 2 * part + (joint[0] == "R")
                for part, ends in enumerate(_ENDS)
                if joint.endswith(ends) and joint[:2] in ("L_", "R_")
            ),
            0,
        )
        for joint in JOINTS30.joints
    ]
)
"""Trunk and head 0, arms below the shoulder 1 and 2, legs below the hip 3 and 4; each limb may be wrong as a whole."""


ABSENT = 0.3
"""Share of the people without a reading."""


def simulated_readings(
    batch: dict[str, Tensor], seed: int, absent: float = ABSENT
) -> Float[Tensor, "b 30 4"]:
    """Like JointReadings.summary of an image; a share of `absent` of the people have none (zeros).

    batch: a training batch (data/sample.py). Errors: a few pixels for joints in sight, twice that for hidden ones,
    now and then far more, sometimes of a whole limb; some joints lie where the (noisy) keypoint is. Depths shrink
    towards the pelvis (as a regressor's do under uncertainty) and lean with the whole body; those of a limb may change
    sign, from in front of the pelvis to behind it.
    """
    draw = torch.Generator().manual_seed(seed)
    truth, detected, observed = batch["joints2d"], batch["joints"], batch["visible"] > 0
    count, joints = observed.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    def chance(share: float, width: int = joints) -> Tensor:
        return torch.rand(count, width, generator=draw) < share

    spread = 5.0 * torch.exp(0.4 * normal(count, 1)) * torch.where(batch["joint_visible"] > 0, 1.0, 1.5)
    spread = torch.where(chance(0.1), spread * 3, spread)
    lost = (chance(0.1, 5) * (torch.arange(5) > 0))[:, _LIMB]
    places = truth + normal(count, joints, 2) * spread[..., None]
    places = places + torch.where(lost[..., None], normal(count, 5, 2)[:, _LIMB] * 15, 0.0)
    copied = chance(0.15) & observed
    places = torch.where(copied[..., None], detected + normal(count, joints, 2) * 2, places).clamp(
        0, CROP - 8
    )

    depth = batch["joints3d"][..., 2] - batch["joints3d"][:, :1, 2]
    shrink = 0.4 + 0.6 * torch.rand(count, 5, generator=draw)
    turned = torch.where(chance(0.1, 5), -1.0, 1.0)
    lean = 0.06 * ((truth - truth[:, :1]) / 64 * normal(count, 1, 2)).sum(-1)
    depth = (
        depth * (shrink * turned)[:, _LIMB]
        + lean
        + 0.04 * torch.exp(0.4 * normal(count, 1)) * normal(count, joints)
    )

    sure = 0.07 / (1 + (spread / 8).square()) * torch.exp(0.4 * normal(count, joints))
    read = torch.cat([places / CROP, depth[..., None], sure[..., None]], -1)
    present = (torch.rand(count, 1, 1, generator=draw) >= absent).to(read.dtype)
    return read * present
