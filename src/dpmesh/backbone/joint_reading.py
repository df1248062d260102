"""Joints read off a backbone's feature maps: the noisy keypoints, cleaned by what the picture shows.

Not in the paper. A U-Net that starts from nothing, not from Stable Diffusion, learns from a target for every cell
far sooner than through the regressor; and where the joints are is then a number that the regressor can use.
Integral regression (X. Sun et al., ECCV 2018): the place is the mean of a distribution over the cells.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.geometry import CROP

PARTS = 24
"""Joints of SMPL, each of which moves a part of the surface."""


@dataclass(frozen=True)
class JointsRead:
    """scores: (b, j, s, s) logits over the cells. places: (b, j, 3), x and y in crop pixels, z in metres behind
    the pelvis. sure: (b, j), sum of the squared probabilities: 1 is one cell alone.
    surface: (b, 26, s, s), for each cell 25 logits (no person, or which of SMPL's 24 joints moves the surface) and
    its depth in metres behind the pelvis. Nothing but the loss looks at it: a thousand targets a picture teach the
    features what thirty joints do not."""

    scores: Tensor
    places: Tensor
    sure: Tensor
    surface: Tensor

    def times(self, felt: Float[Tensor, " b"]) -> "JointsRead":
        """A factor for each person's places and certainty; 0 reads nothing."""
        return JointsRead(
            self.scores, self.places * felt[:, None, None], self.sure * felt[:, None], self.surface
        )

    def summary(self) -> Float[Tensor, "b j 4"]:
        """x and y as fractions of the crop, z in metres, and how sure."""
        return torch.cat([self.places[..., :2] / CROP, self.places[..., 2:], self.sure[..., None]], dim=-1)


class JointReading(nn.Module):
    """Scores and depths for every cell of the finest map, from all that is known about it.

    The narrow finest map alone cannot hold thirty places, thirty depths and the surface: the coarser maps and the
    latent, which has the detail, are brought to its size and added.
    """

    def __init__(
        self, channels: tuple[int, ...], latent: int, joints: int, groups: int, inner: int = 64
    ) -> None:
        """channels: of the U-Net's levels, the finest first. latent: channels of the VAE's latent."""
        super().__init__()
        finest, medium, coarse, _ = channels
        self.from_finest = nn.Sequential(
            nn.GroupNorm(groups, finest), nn.SiLU(), nn.Conv2d(finest, inner, 3, padding=1)
        )
        self.from_latent = nn.Conv2d(latent, inner, 3, padding=1)
        self.from_16, self.from_8 = nn.Conv2d(medium, inner, 1), nn.Conv2d(coarse, inner, 1)
        self.refine = nn.Sequential(
            nn.GroupNorm(groups, inner), nn.SiLU(), nn.Conv2d(inner, inner, 3, padding=1)
        )
        self.joint_out = nn.Conv2d(inner, 2 * joints, 1)
        self.surface_out = nn.Conv2d(inner, PARTS + 2, 1)

    def forward(self, features: list[Tensor], latent: Float[Tensor, "b z s s"]) -> JointsRead:
        """features: of 4, 8, 16 and 32 cells, as DiffusionBackbone has them."""
        _, at_8, at_16, finest = features
        size = finest.shape[-1]
        x = self.from_finest(finest) + self.from_latent(latent)
        for coarser in (self.from_16(at_16), self.from_8(at_8)):
            x = x + F.interpolate(coarser, size=(size, size), mode="bilinear")
        x = F.silu(x + self.refine(x))
        return joints_read(self.joint_out(x).float(), self.surface_out(x).float())


class FusedReading(nn.Module):
    """The same off the 8×8 map that the regressor looks at, which every backbone has: two transposed convolutions
    bring it to 32 cells (Xiao et al., ECCV 2018). Backbones of any kind are taught alike by it."""

    def __init__(self, channels: int, joints: int, groups: int, inner: int = 64) -> None:
        """channels: of the fused map."""
        super().__init__()
        layers = list[nn.Module]()
        for before, after in ((channels, 2 * inner), (2 * inner, inner)):
            up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            layers += [up, nn.GroupNorm(groups, after), nn.SiLU()]
        self.up = nn.Sequential(*layers)
        self.joint_out = nn.Conv2d(inner, 2 * joints, 1)
        self.surface_out = nn.Conv2d(inner, PARTS + 2, 1)

    def forward(self, fused: Float[Tensor, "b c 8 8"]) -> JointsRead:
        x = self.up(fused)
        return joints_read(self.joint_out(x).float(), self.surface_out(x).float())


def joints_read(told: Float[Tensor, "b j2 s s"], surface: Float[Tensor, "b p s s"]) -> JointsRead:
    """told: each joint's logits, then each joint's depths."""
    scores, depths = told.chunk(2, dim=1)
    size = scores.shape[-1]
    share = scores.flatten(2).softmax(-1)  # (b, j, s*s)
    cells = torch.arange(size, device=told.device, dtype=told.dtype) * (CROP / size)
    y, x = torch.meshgrid(cells, cells, indexing="ij")  # crop pixels, the heatmaps' convention
    # Sums and no matrix product, which autocast would round to half a pixel.
    means = [(share * of_cell).sum(-1) for of_cell in (x.flatten(), y.flatten(), depths.flatten(2))]
    return JointsRead(scores, torch.stack(means, dim=-1), share.square().sum(-1), surface)
