"""The derivative of the 30 joints with respect to the body's parameters, in closed form.

A joint of the 30-set is a weighted sum of skinned vertices. Without the pose correctives (a few millimetres) it is
therefore an affine function of the 24 bone transforms, with coefficients that do not depend on the pose: no vertex is
posed for the derivative.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.body.files import BETAS
from dpmesh.body.layer import BodyModel

TURNS = 72
"""Parameters of the rotations: three for each of the 24 joints."""
PARAMETERS = TURNS + BETAS + 3
"""Rotations, betas, translation."""


class JointJacobian(nn.Module):
    """For a body with the regressor joints30; as BodyModel it has buffers only, which are not saved."""

    def __init__(self, body: BodyModel) -> None:
        super().__init__()
        self.body = body
        at, rows = body.get_buffer("_touched"), body.get_buffer("_touched_rows")
        weights, template = body.skinning_weights[at], body.get_buffer("_template")[at]
        shapes = body.get_buffer("_touched_shapedirs").reshape(len(at), 3, BETAS)
        bones = len(body.parents)
        below = torch.eye(bones, device=rows.device)
        for bone in range(bones - 1, 0, -1):
            below[body.parents[bone]] += below[bone]

        def keep(name: str, tensor: Tensor) -> None:
            self.register_buffer(name, tensor.contiguous(), persistent=False)

        keep("mass", rows @ weights)  # (30, 24): share of a joint that moves with a bone
        keep("moment", torch.einsum("jv,vk,vc->jkc", rows, weights, template))
        keep("moment_shapes", torch.einsum("jv,vk,vcs->sjkc", rows, weights, shapes))
        keep("below", below)  # row k: the bones that turn with bone k
        keep("mass_below", below @ self.get_buffer("mass").T)  # (24, 30)

    def forward(
        self,
        betas: Float[Tensor, "b 10"],
        rotations: Float[Tensor, "b 24 3 3"],
        axes: Float[Tensor, "b 24 3 3"],
    ) -> Float[Tensor, "b 30 3 85"]:
        """Metres per unit of each parameter; betas, rotations as in BodyModel.forward.

        axes: what turns joint k, in the frame of joint k itself: rotations[:, k] @ exp(axes[:, k] @ x), derivative at
        x = 0 (the identity: x is a rotation vector in that frame).
        """
        mass, below, b = self.get_buffer("mass"), self.get_buffer("below"), len(betas)
        transforms, places = self.body.chain(betas, rotations)
        turns, offsets = transforms[..., :3], transforms[..., 3]
        moment = self.get_buffer("moment") + torch.einsum(
            "bs,sjkc->bjkc", betas, self.get_buffer("moment_shapes")
        )
        parts = torch.einsum("bkcd,bjkd->bjkc", turns, moment) + mass[..., None] * offsets[:, None]
        # What turns with bone k, about bone k.
        arms = torch.einsum("kl,bjlc->bjkc", below, parts)
        arms = arms - self.get_buffer("mass_below").T[..., None] * places[:, None]
        world = (turns @ axes).transpose(-1, -2)  # (b, 24, axis, 3)
        size = (b, arms.shape[1], len(self.body.parents), 3, 3)
        moved = torch.cross(world[:, None].expand(size), arms[..., None, :].expand(size), dim=-1)
        by_turn = moved.permute(0, 1, 4, 2, 3).reshape(b, -1, 3, TURNS)
        along = torch.eye(3, device=betas.device, dtype=betas.dtype).expand(b, by_turn.shape[1], 3, 3)
        return torch.cat([by_turn, self._by_shape(turns), along], -1)

    def _by_shape(self, turns: Float[Tensor, "b 24 3 3"]) -> Float[Tensor, "b 30 3 10"]:
        """Of the betas: the joints are linear in them."""
        parents = self.body.parents
        rest = self.body.get_buffer("_joint_shapedirs").reshape(len(parents), 3, BETAS).permute(2, 0, 1)
        places = [rest[None, :, 0].expand(len(turns), -1, -1)]
        for bone, parent in enumerate(parents[1:], start=1):
            span = torch.einsum("bcd,sd->bsc", turns[:, parent], rest[:, bone] - rest[:, parent])
            places.append(places[parent] + span)
        offsets = torch.stack(places, 2) - torch.einsum("bkcd,skd->bskc", turns, rest)
        skinned = torch.einsum("bkcd,sjkd->bjcs", turns, self.get_buffer("moment_shapes"))
        return skinned + torch.einsum("jk,bskc->bjcs", self.get_buffer("mass"), offsets)
