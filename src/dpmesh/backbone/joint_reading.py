"""Heads that read joint positions off a backbone's feature maps, starting from noisy keypoints. Not in the paper.

A U-Net trained from random weights learns faster from a target for every cell than through the regressor, and the
regressor can use the positions as numbers. Integral regression (X. Sun et al., ECCV 2018): a position is the mean of a
distribution over the cells.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.backbone.features import JointReadings
from dpmesh.geometry import CROP

PARTS = 24
"""Joints of SMPL; each moves one part of the surface."""


class JointReading(nn.Module):
    """Reads joints and surface at the resolution of the U-Net's finest level.

    The finest level alone is too narrow for thirty positions, thirty depths and the surface, so the two levels below it
    and the VAE latent are brought to its resolution and added.
    """

    def __init__(
        self, channels: tuple[int, ...], latent: int, joints: int, groups: int, inner: int = 64
    ) -> None:
        """channels: width of the U-Net's four levels, finest first. latent: channels of the VAE latent. groups: of the
        group norms. inner: width of this head."""
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

    def forward(self, features: list[Tensor], latent: Float[Tensor, "b z s s"]) -> JointReadings:
        """features: the U-Net's maps of 4, 8, 16 and 32 cells, in this order."""
        _, at_8, at_16, finest = features
        size = finest.shape[-1]
        x = self.from_finest(finest) + self.from_latent(latent)
        for coarser in (self.from_16(at_16), self.from_8(at_8)):
            x = x + F.interpolate(coarser, size=(size, size), mode="bilinear")
        x = F.silu(x + self.refine(x))
        return readings_from_maps(self.joint_out(x).float(), self.surface_out(x).float())


class FusedReading(nn.Module):
    """Reads joints and surface off the fused 8×8 map, which every backbone has.

    Two transposed convolutions bring the map to 32×32 cells (Xiao et al., ECCV 2018). With this head all backbones of
    the ablation are trained with the same targets.
    """

    def __init__(self, channels: int, joints: int, groups: int, inner: int = 64) -> None:
        """channels: of the fused map. groups: of the group norms. inner: width of this head."""
        super().__init__()
        layers = list[nn.Module]()
        for before, after in ((channels, 2 * inner), (2 * inner, inner)):
            up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            layers += [up, nn.GroupNorm(groups, after), nn.SiLU()]
        self.up = nn.Sequential(*layers)
        self.joint_out = nn.Conv2d(inner, 2 * joints, 1)
        self.surface_out = nn.Conv2d(inner, PARTS + 2, 1)

    def forward(self, fused: Float[Tensor, "b c 8 8"]) -> JointReadings:
        x = self.up(fused)
        return readings_from_maps(self.joint_out(x).float(), self.surface_out(x).float())


def readings_from_maps(
    joint_maps: Float[Tensor, "b j2 s s"], surface: Float[Tensor, "b p s s"]
) -> JointReadings:
    """Readings from the heads' outputs. joint_maps: the logits of all joints, then the depths of all joints (metres).
    Integral regression: each position is the mean over the cells under softmax(logits)."""
    scores, depths = joint_maps.chunk(2, dim=1)
    size = scores.shape[-1]
    share = scores.flatten(2).softmax(-1)  # (b, j, s*s)
    cells = torch.arange(size, device=joint_maps.device, dtype=joint_maps.dtype) * (CROP / size)
    y, x = torch.meshgrid(cells, cells, indexing="ij")  # crop pixels, the convention of draw_heatmaps
    # Sums instead of a matrix product, which autocast would round to half a pixel.
    means = [(share * of_cell).sum(-1) for of_cell in (x.flatten(), y.flatten(), depths.flatten(2))]
    return JointReadings(scores, torch.stack(means, dim=-1), share.square().sum(-1), surface)
