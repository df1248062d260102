"""The backbone's conventions of released checkpoints, on `release` at small widths.

The numbers are those of the public code, written out again here: nothing is computed by the package that is also
what a test expects.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.config import RELEASE
from dpmesh.diffusion.lora import LoRALinear
from dpmesh.model import DPMesh
from dpmesh.profiling import build_on_meta
from dpmesh.types import Inputs


def trace(root: nn.Module, run: Any, *names: str) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Arguments and outputs of the named modules while `run` runs."""
    calls: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def keep(name: str) -> Any:
        return lambda _m, args, out: calls.__setitem__(name, (args, out))

    handles = [root.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return calls


def test_the_image_stays_between_zero_and_one(model: DPMesh, inputs: Inputs):
    name = "backbone.vae.encoder.conv_in"
    ((entered,), _) = trace(model, lambda: model(inputs), name)[name]
    assert torch.equal(entered, inputs.crop)


def test_the_latent_is_the_mean_of_the_posterior_unscaled(model: DPMesh, inputs: Inputs):
    names = ("backbone.vae.quant_conv", "backbone.unet.conv_in", "backbone.controlnet.conv_in")
    calls = trace(model, lambda: model(inputs), *names)
    moments = calls[names[0]][1]
    assert moments.shape == (2, 8, 32, 32)
    assert torch.equal(calls[names[1]][0][0], moments[:, :4])
    assert torch.equal(calls[names[2]][0][0][:, :4], moments[:, :4])  # the latent first, then the heatmaps
    assert moments.dtype == torch.float32


def test_the_timestep_is_one_in_both_nets(model: DPMesh, inputs: Inputs):
    names = ("backbone.unet.time_embedding", "backbone.controlnet.time_embedding")
    for (step,), _ in trace(model, lambda: model(inputs), *names).values():
        assert step.tolist() == [1.0]


def test_the_prompt_is_linear_in_all_thirty_joints_visible_or_not(model: DPMesh, inputs: Inputs):
    names = ("backbone.unet.mid_block.attentions.0", "backbone.controlnet.mid_block.attentions.0")
    calls = trace(model, lambda: model(inputs), *names)
    (layer,) = model.prompt.mlp
    on_the_heatmap = inputs.joints / 8
    expected = F.linear(on_the_heatmap / 32, layer.weight, layer.bias)
    for args, _ in calls.values():
        torch.testing.assert_close(args[1], expected)


def test_heatmaps_are_masked(model: DPMesh, inputs: Inputs):
    name = "backbone.controlnet.conv_in"
    ((entered,), _) = trace(model, lambda: model(inputs), name)[name]
    yy, xx = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    for joint in range(30):
        x, y = (inputs.joints[:, joint, :, None, None] / 8).unbind(1)
        expected = torch.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 2.5**2))
        expected = expected * inputs.visible[:, joint, None, None]
        torch.testing.assert_close(entered[:, 4 + joint], expected)


def test_control_is_taken_from_the_end(model: DPMesh):
    """Residual 12 goes to the middle; output block i takes skip 11 - i with residual 11 - i."""
    unet = model.backbone.unet
    latent, prompt = torch.randn(1, 4, 32, 32), torch.randn(1, 30, 12)
    control = [torch.zeros(1, 1, 1, 1)] * 13
    blocks = [f"up_blocks.{level}.resnets.{layer}" for level in range(4) for layer in range(3)]
    plain = trace(unet, lambda: unet(latent, prompt, control), "mid_block", *blocks)
    skips = [plain[name][0][0] for name in blocks]
    for index in range(13):
        pushed = [c if i != index else torch.full((1, 1, 1, 1), 0.5) for i, c in enumerate(control)]
        calls = trace(unet, lambda pushed=pushed: unet(latent, prompt, pushed), *blocks)
        for i, (name, before) in enumerate(zip(blocks, skips, strict=True)):
            skip = unet.skip_widths[11 - i]
            moved = calls[name][0][0] - before
            expected = 0.5 if index == 11 - i else 0.0
            torch.testing.assert_close(moved[:, -skip:], torch.full_like(moved[:, -skip:], expected))
            if i == 0:  # what comes from the middle
                expected = 0.5 if index == 12 else 0.0
                torch.testing.assert_close(moved[:, :-skip], torch.full_like(moved[:, :-skip], expected))


def test_which_attention_maps_are_averaged(model: DPMesh, inputs: Inputs):
    """8×8: output blocks 3, 4, 5 and input blocks 7, 8. 16×16: output blocks 6, 7, 8 and input blocks 4, 5."""
    prompt = model.prompt(inputs.joints, inputs.visible)
    layers = {
        8: [("up", 1, 0), ("up", 1, 1), ("up", 1, 2), ("down", 2, 0), ("down", 2, 1)],
        16: [("up", 2, 0), ("up", 2, 1), ("up", 2, 2), ("down", 1, 0), ("down", 1, 1)],
    }
    result: dict[int, Tensor] = {}

    def run() -> None:
        result.update(model(inputs, features=True).features.maps)

    names = {
        size: [f"backbone.unet.{way}_blocks.{level}.attentions.{i}" for way, level, i in chosen]
        for size, chosen in layers.items()
    }
    attention = [f"{name}.transformer_blocks.0.attn2" for group in names.values() for name in group]
    calls = trace(model, run, *attention)
    assert set(result) == {8, 16}
    for size, group in names.items():
        maps = []
        for name in group:
            layer = model.get_submodule(f"{name}.transformer_blocks.0.attn2")
            (x, _), _ = calls[f"{name}.transformer_blocks.0.attn2"]
            with torch.no_grad():
                query, key = layer.to_q(x), layer.to_k(prompt)
            width = query.shape[-1] // 2
            heads = [
                torch.softmax(
                    query[..., h * width : (h + 1) * width]
                    @ key[..., h * width : (h + 1) * width].mT
                    / width**0.5,
                    dim=-1,
                )
                for h in range(2)
            ]
            maps.append(((heads[0] + heads[1]) / 2).mT.reshape(2, 30, size, size))
        torch.testing.assert_close(result[size], sum(maps) / 5, atol=1e-6, rtol=1e-4)


def test_features_and_maps_are_fused_as_released(model: DPMesh, inputs: Inputs):
    """Output blocks 1, 4, 7 and 11; maps behind their features; the finest map first."""
    ups = {4: "0.resnets.1", 8: "1.attentions.1", 16: "2.attentions.1", 32: "3.attentions.2"}
    names = {size: f"backbone.unet.up_blocks.{name}" for size, name in ups.items()}
    collected: list[Any] = []
    calls = trace(model, lambda: collected.append(model(inputs, features=True).features), *names.values())
    at = {size: out[0] if isinstance(out := calls[name][1], tuple) else out for size, name in names.items()}
    (features,) = collected
    fusion = model.backbone.fusion
    conv1, norm1, _, conv2 = fusion.from_32
    with torch.no_grad():
        fine = F.conv2d(at[32], conv1.weight, conv1.bias, stride=2, padding=1)
        fine = F.relu(F.group_norm(fine, 16, norm1.weight, norm1.bias, 1e-5))
        fine = F.conv2d(fine, conv2.weight, conv2.bias, stride=2, padding=1)
        medium = torch.cat([at[16], features.maps[16]], 1)
        medium = F.conv2d(medium, fusion.from_16.weight, fusion.from_16.bias, stride=2, padding=1)
        coarsest = at[4].repeat_interleave(2, 2).repeat_interleave(2, 3)
        joined = torch.cat([fine, medium, at[8], features.maps[8], coarsest], 1)
        mix, norm2, _ = fusion.mix
        expected = F.conv2d(joined, mix.weight, mix.bias)
        expected = F.relu(F.group_norm(expected, 16, norm2.weight, norm2.bias, 1e-5))
    torch.testing.assert_close(features.fused, expected, atol=1e-4, rtol=1e-4)


def test_fusion_at_full_size():
    fusion = build_on_meta(RELEASE).backbone.fusion
    shapes = [tuple(p.shape) for p in fusion.parameters() if p.dim() > 1]
    assert shapes == [(320, 320, 3, 3), (320, 320, 3, 3), (670, 670, 3, 3), (2048, 3580, 1, 1)]
    maps = {8: torch.rand(1, 30, 8, 8, device="meta"), 16: torch.rand(1, 30, 16, 16, device="meta")}
    sizes = zip((1280, 1280, 640, 320), (4, 8, 16, 32), strict=True)
    features = [torch.rand(1, width, size, size, device="meta") for width, size in sizes]
    assert fusion(features, maps).shape == (1, 2048, 8, 8)


def test_lora_is_on_self_and_cross_attention_and_the_gate(model: DPMesh):
    unet = model.backbone.unet
    adapted = {name for name, m in unet.named_modules() if isinstance(m, LoRALinear)}
    inside = {
        "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0",
        "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj",
    }  # fmt: skip
    blocks = {name for name, _ in unet.named_modules() if name.endswith("transformer_blocks.0")}
    assert len(blocks) == 16
    assert adapted == {f"{block}.{name}" for block in blocks for name in inside}
    assert not any(isinstance(m, LoRALinear) for m in model.backbone.controlnet.modules())
    layer = next(m for m in unet.modules() if isinstance(m, LoRALinear))
    x = torch.randn(5, layer.linear.in_features)
    expected = layer.linear(x) + x @ layer.lora_down.weight.T @ layer.lora_up.weight.T  # scale 1, no dropout
    torch.testing.assert_close(layer(x), expected)
