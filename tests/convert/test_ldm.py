"""Stable Diffusion's original names against diffusers' own converter: every tensor arrives under the same name."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from dpmesh.config import DPMeshConfig
from dpmesh.convert.stable_diffusion import unet_name, vae_name


@pytest.fixture(scope="module")
def tensors(twin: ModuleType, small: DPMeshConfig) -> dict[str, Tensor]:
    layout = twin.Layout()
    layout.stable_diffusion("", small, twin.SMALL, 0)
    layout.controlnet("control_model.", small.backbone.unet, 4)
    return twin.fill(layout)


def places(state: dict[str, Tensor]) -> dict[str, int]:
    return {name: value.data_ptr() for name, value in state.items()}


def ours(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return {new: value for name, value in inner.items() if (new := unet_name(name, 2))}


def test_names_equal_diffusers(tensors: dict[str, Tensor]):
    from diffusers.loaders import single_file_utils as oracle  # takes seconds

    config = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None}
    config |= {
        "down_block_types": [None] * 4,
        "up_block_types": [None] * 4,
        "block_out_channels": [16, 24, 32, 32],
    }
    unet = oracle.convert_ldm_unet_checkpoint(dict(tensors), config)
    head = {name for name in unet if name.startswith(("conv_norm_out", "conv_out"))}
    assert len(head) == 4
    assert places(ours(tensors, "model.diffusion_model.")) == places(
        {n: v for n, v in unet.items() if n not in head}
    )
    # ControlNet's encoder of hint images is always requested.
    hint = {
        f"control_model.input_hint_block.{2 * i}.{leaf}": torch.ones(1)
        for i in range(8)
        for leaf in ("weight", "bias")
    }
    control = oracle.convert_controlnet_checkpoint(tensors | hint, config)
    control = {
        name: value for name, value in control.items() if not name.startswith("controlnet_cond_embedding")
    }
    assert places(ours(tensors, "control_model.")) == places(control)
    stored = {name: value for name, value in tensors.items() if name.startswith("first_stage_model.")}
    vae = oracle.convert_ldm_vae_checkpoint(dict(stored), config)
    renamed = {vae_name(name.removeprefix("first_stage_model.")): value for name, value in stored.items()}
    renamed.pop(None)  # post_quant_conv belongs to the decoder
    assert places(renamed) == places({n: v for n, v in vae.items() if not n.startswith("post_quant_conv")})


@pytest.mark.parametrize("name", ["input_blocks.1.0.new.weight", "label_emb.0.weight", "input_blocks.1", ""])
def test_unknown_names_have_no_place(name: str):
    assert unet_name(name, 2) is None
    assert vae_name(name) is None
