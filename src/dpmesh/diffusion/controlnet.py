"""ControlNet: a trainable copy of the U-Net's encoder half with zero-initialised outputs (paper Eq. 4-5)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.diffusion.unet import EncoderHalf, MapStore, UNetConfig


class ControlNet(EncoderHalf):
    """Concatenated latent and keypoint heatmaps in; a residual for each skip connection and the middle out."""

    def __init__(self, config: UNetConfig, hint_channels: int) -> None:
        super().__init__(config, config.latent_channels + hint_channels)
        self.controlnet_down_blocks = nn.ModuleList(zero_convolution(width) for width in self.skip_widths)
        self.controlnet_mid_block = zero_convolution(config.channels[-1])

    def forward(
        self,
        latent: Float[Tensor, "b z h w"],
        hint: Float[Tensor, "b j h w"],
        context: Float[Tensor, "b m d"],
        timestep: Float[Tensor, " b"] | None = None,
    ) -> list[Tensor]:
        """Residuals in the order of the skip connections, the middle last.

        hint: the heatmaps. context: the prompt. timestep: as UNet.forward.
        """
        joined = torch.cat([latent, hint], dim=1)
        middle, skips = self.encode(joined, self.time(timestep), context, MapStore(()))
        residuals = [conv(skip) for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return [*residuals, self.controlnet_mid_block(middle)]


def zero_convolution(width: int) -> nn.Conv2d:
    """1×1 convolution with weights and bias initialised to zero, so that an untrained ControlNet changes nothing."""
    conv = nn.Conv2d(width, width, 1)
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
