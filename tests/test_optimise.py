"""An optimised model computes the same function, and cannot be saved."""

import copy
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from dpmesh.config import EMBEDDED, PAPER, RELEASE, DPMeshConfig, narrow
from dpmesh.diffusion.blocks import TimeEmbedding
from dpmesh.diffusion.lora import LoRALinear
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.fuse import optimise_for_inference
from dpmesh.model import DPMesh
from dpmesh.types import Inputs, Prediction

NAMES = ("global_orient", "body_rotations", "betas", "transl", "vertices", "joints2d", "joint_sigma")


CONFIGS = {
    "embedded": EMBEDDED,
    "embedded with LoRA": replace(EMBEDDED, lora_rank=4),
    "paper": replace(narrow(PAPER), lora_rank=3),
    "release": replace(narrow(RELEASE), lora_rank=3),
}


def model_of(config: DPMeshConfig) -> DPMesh:
    """Every number random: a LoRA, a zero convolution or a codebook at zero would hide what is behind it."""
    torch.manual_seed(0)
    model = DPMesh(config).eval()
    for p in (*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith("codes"))):
        torch.nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.dim() > 1 else 0.1)
    return model


def inputs() -> Inputs:
    torch.manual_seed(1)
    return Inputs(
        torch.rand(2, 3, 256, 256), torch.rand(2, 30, 2) * 256, (torch.rand(2, 30) < 0.7).float(),
        torch.tensor([500.0, 900.0]),
    )  # fmt: skip


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the root mean square of the expected values."""
    return float((actual - expected).abs().max() / expected.square().mean().sqrt())


def assert_the_same(expected: Prediction, got: Prediction, limit: float) -> None:
    assert expected.joint_sigma is None or expected.joint_sigma[:, 1:].std() > 1e-3
    for name in NAMES if expected.joint_sigma is not None else NAMES[:-1]:
        assert relative(getattr(got, name), getattr(expected, name)) < limit, name


@pytest.mark.parametrize("name", list(CONFIGS))
@torch.inference_mode()
def test_the_optimised_model_is_the_same_function(name: str):
    plain = model_of(CONFIGS[name])
    fast = optimise_for_inference(copy.deepcopy(plain))
    assert not any(isinstance(layer, LoRALinear | TimeEmbedding) for layer in fast.modules())
    expected, got = plain(inputs(), features=True), fast(inputs(), features=True)
    assert_the_same(expected, got, 1e-4)
    assert relative(got.features.fused, expected.features.fused) < 1e-4


@pytest.mark.parametrize("name", list(CONFIGS))
@torch.inference_mode()
def test_half_precision_is_near(name: str):
    """bf16 keeps 8 bits. Of the fused features' root mean square at most a tenth is lost on average; nothing is fp32
    by mistake."""
    plain = model_of(CONFIGS[name])
    fast = optimise_for_inference(copy.deepcopy(plain), dtype=torch.bfloat16)
    assert {p.dtype for p in fast.backbone.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in fast.backbone.fusion.parameters()} == {torch.float32}
    expected, got = plain(inputs(), features=True), fast(inputs(), features=True)
    fused, rough = expected.features.fused, got.features.fused
    assert got.vertices.dtype == rough.dtype == torch.float32
    moved = (fused - rough).square().mean().sqrt() / fused.square().mean().sqrt()
    assert 1e-4 < moved < 0.1
    assert (expected.vertices - got.vertices).abs().max() < 0.2  # metres


COMPILED = """
import torch
from dpmesh.model import DPMesh
from dpmesh.types import Inputs
from dpmesh.fuse import optimise_for_inference
torch.manual_seed(0)
data = Inputs(torch.rand(1, 3, 256, 256), torch.rand(1, 30, 2) * 256, torch.ones(1, 30), torch.ones(1) * 900)
plain = DPMesh.from_pretrained("embedded")
fast = optimise_for_inference(DPMesh.from_pretrained("embedded"), compile={"backend": "eager", "fullgraph": True})
assert "_compiled_call_impl" in vars(fast.backbone) and fast.backbone._compiled_call_impl is not None
with torch.no_grad():
    one, two = plain(data).vertices, fast(data).vertices
    captured = torch._dynamo.utils.counters["stats"]["calls_captured"]
    print(float((one - two).abs().max() / one.square().mean().sqrt()), captured)
"""


@pytest.mark.slow
def test_a_compiled_model_is_the_same_function():
    """torch's compiler for the CPU takes minutes for a model of this depth (benchmarks/speed/compiled.py has it); the
    backend "eager" captures the same graph, in one piece, and runs it uncompiled. In a process without this suite's
    checks of shapes, which the capture would stumble over."""
    words = [sys.executable, "-c", COMPILED]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    error, captured = done.stdout.split()
    assert float(error) < 1e-4 and int(captured) > 300


def test_an_optimised_model_is_neither_saved_nor_optimised_again(tmp_path):
    fast = optimise_for_inference(model_of(EMBEDDED))
    with pytest.raises(WeightsError, match="Save first"):
        fast.save_pretrained(tmp_path / "w", {})
    with pytest.raises(ConfigError, match="already"):
        optimise_for_inference(fast)
