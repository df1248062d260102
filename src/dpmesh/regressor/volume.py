"""The 3D feature volume, from which joint features are sampled at (x, y, z)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.regressor.transformer import EncoderLayer, sine_position_1d


class FeatureVolume(nn.Module):
    """Lifts the fused map (b, C, 8, 8) to a volume (b, width, depth, 8, 8), followed by transformer layers.

    The learned `exponent`, clamped to [1, 20], bends the depth axis: planes lie at (index / depth) ** exponent, denser
    towards the camera.
    """

    def __init__(
        self, fused: int, width: int, depth: int, heads: int, inner: int, layers: int, size: int = 8
    ) -> None:
        """fused: channels of the map. inner: width of the feed-forward layers. size: cells along a side."""
        super().__init__()
        self.width, self.depth, self.size = width, depth, size
        self.lift = nn.Conv2d(fused, width * depth, 1)
        self.exponent = nn.Parameter(torch.tensor(3.0))
        self.mix = nn.Conv3d(width + 3, width, 1)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, inner) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("position", sine_position_1d(width, depth * size * size)[None], persistent=False)

    def forward(self, fused: Float[Tensor, "b f h w"]) -> Float[Tensor, "b c d h w"]:
        volume = self.lift(fused).reshape(-1, self.width, self.depth, self.size, self.size)
        # One convolution of [volume, coordinates], as a sum: the coordinates are the same for all samples, so they are
        # not expanded to the batch (an exported graph would keep the batch size of the trace).
        of_volume, of_coordinates = self.mix.weight[:, : self.width], self.mix.weight[:, self.width :]
        volume = F.conv3d(volume, of_volume, self.mix.bias)
        volume = volume + F.conv3d(self._coordinates().to(volume), of_coordinates)
        tokens = volume.flatten(2).transpose(1, 2)  # (b, d*h*w, c)
        for layer in self.layers:
            tokens = layer(tokens, self.get_buffer("position"))
        return self.norm(tokens).transpose(1, 2).unflatten(2, (self.depth, self.size, self.size))

    def _coordinates(self) -> Float[Tensor, "1 3 d h w"]:
        """Channels z, y, x in [0, 1); z bent by the exponent."""
        device = self.exponent.device
        across = torch.arange(self.size, device=device) / self.size
        deep = (torch.arange(self.depth, device=device) / self.depth) ** self.exponent.clamp(1, 20)
        z, y, x = torch.meshgrid(deep, across, across, indexing="ij")
        return torch.stack([z, y, x])[None]

    def sample(
        self, volume: Float[Tensor, "b c d h w"], points: Float[Tensor, "b j 3"]
    ) -> Float[Tensor, "b j c"]:
        """Trilinear samples at points (x, y, z) in [0, 1]."""
        x, y, z = points.unbind(-1)
        grid = torch.stack([x, y, z ** self.exponent.clamp(1, 20)], dim=-1) * 2 - 1
        grid = grid[:, None, None].to(volume.dtype)  # (b, 1, 1, j, 3)
        sampled = F.grid_sample(volume, grid, align_corners=True)  # (b, c, 1, 1, j)
        return sampled[:, :, 0, 0].transpose(1, 2)
