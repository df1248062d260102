"""The optimised model is the same function, and says so where it no longer has weights of its own."""

import copy
from dataclasses import replace

import pytest
import torch

from dpmesh.configurations import EMBEDDED, DPMeshConfig
from dpmesh.diffusion.lora import LoRALinear
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.model import DPMesh, Inputs
from dpmesh.optimise import optimised

NAMES = ("global_orient", "body_rotations", "betas", "transl", "vertices", "joints2d")


def model_of(config: DPMeshConfig) -> DPMesh:
    torch.manual_seed(0)
    model = DPMesh(config).eval()
    for layer in model.modules():
        if isinstance(layer, LoRALinear):  # an update that does something
            torch.nn.init.normal_(layer.lora_up.weight, std=0.05)
    for name, value in model.pose_prior.named_buffers():
        if name.endswith("codes"):
            torch.nn.init.normal_(value)
    return model


def inputs() -> Inputs:
    torch.manual_seed(1)
    return Inputs(
        torch.rand(2, 3, 256, 256), torch.rand(2, 30, 2) * 256, (torch.rand(2, 30) < 0.7).float(),
        torch.tensor([500.0, 900.0]),
    )  # fmt: skip


@pytest.mark.parametrize("rank", [0, 4], ids=["embedded", "with LoRA"])
@pytest.mark.parametrize("packed", [True, False])
@torch.inference_mode()
def test_the_optimised_model_is_the_same_function(rank: int, packed: bool):
    plain = model_of(replace(EMBEDDED, lora_rank=rank))
    fast = optimised(copy.deepcopy(plain), pack_weights=packed)
    expected, got = plain(inputs()), fast(inputs())
    for name in NAMES:
        one, two = getattr(expected, name), getattr(got, name)
        assert ((one - two).abs().max() / one.square().mean().sqrt()) < 1e-4, name


@torch.inference_mode()
def test_half_precision_is_near():
    plain = model_of(EMBEDDED)
    fast = optimised(copy.deepcopy(plain), dtype=torch.bfloat16)
    expected, got = plain(inputs()), fast(inputs())
    assert got.vertices.dtype == torch.float32
    assert 0 < (expected.vertices - got.vertices).abs().max() < 0.2  # metres


def test_an_optimised_model_is_neither_saved_nor_optimised_again(tmp_path):
    fast = optimised(model_of(EMBEDDED))
    with pytest.raises(WeightsError, match="Save first"):
        fast.save_pretrained(tmp_path / "w", {})
    with pytest.raises(ConfigError, match="already"):
        optimised(fast)
