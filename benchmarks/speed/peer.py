"""`release` composed of diffusers' modules: the baseline of benchmarks/speed/full_model.py."""

import torch
from torch import Tensor, nn

from benchmarks.accuracy.oracle import their_controlnet, their_unet, their_vae, watch
from dpmesh.backbone.features import Features
from dpmesh.config import RELEASE
from dpmesh.geometry.crop_camera import draw_heatmaps
from dpmesh.model import DPMesh
from dpmesh.types import Inputs


class Peer(nn.Module):
    """`release` of diffusers' modules, weights in diffusers' memory order; the other parts are those of `ours`."""

    def __init__(self, ours: DPMesh) -> None:
        super().__init__()
        config = RELEASE.backbone
        with torch.device("meta"):
            self.vae, self.unet = their_vae(config.vae), their_unet(config.unet)
            self.controlnet = their_controlnet(config.unet)
        del self.vae.decoder, self.vae.post_quant_conv, self.unet.conv_norm_out, self.unet.conv_out
        self.unet.conv_norm_out, self.unet.conv_out = None, nn.Identity()  # the noise head is not used
        for name in ("vae", "controlnet", "unet"):
            state = ours.backbone.get_submodule(name).state_dict()
            plain = {
                n.replace(".linear.", "."): v.contiguous() for n, v in state.items() if ".lora_" not in n
            }
            self.get_submodule(name).load_state_dict(plain, strict=True, assign=True)
        self.eval().requires_grad_(False)
        self.ours = [ours]  # in a list: no part of this module

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        (ours,), config = self.ours, RELEASE.backbone.unet
        prompt = ours.prompt(inputs.joints, inputs.visible)
        latent = self.vae.encode(inputs.crop).latent_dist.mode()
        hint = draw_heatmaps(inputs.joints, inputs.visible)
        joined = torch.cat([latent, hint], dim=1)
        down, middle = self.controlnet(joined, config.timestep, prompt, hint, return_dict=False)
        kept, remove = watch(self.unet, config)
        self.unet(
            latent,
            config.timestep,
            prompt,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        )
        remove()
        maps = {size: kept.map(size) for size in config.map_sizes}
        fused = ours.backbone.fusion(kept.features(), maps)
        regressed = ours.regress(Features(fused, maps), inputs.joints, inputs.visible)
        parameters = ours.decode_parameters(regressed, inputs.focal)
        return fused, ours.body(parameters.betas, parameters.rotations, parameters.transl).vertices


def contiguous(model: nn.Module) -> None:
    """Weights row by row, in place."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
