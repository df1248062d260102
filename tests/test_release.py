"""What released checkpoints were trained with, one convention after the other, on `release` at small widths.

The numbers are those of the public code, written out again here:
nothing is computed by the package that is also what a test expects. The regressor: regressor/test_released.py.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.ablations import configuration
from dpmesh.config import PAPER, RELEASE, stored_config
from dpmesh.config_io import to_dict
from dpmesh.diffusion.lora import LoRALinear
from dpmesh.errors import WeightsError
from dpmesh.geometry.crop_camera import project
from dpmesh.model import DPMesh
from dpmesh.pose_prior.vposer import VPoserConfig
from dpmesh.profiling import build_on_meta
from dpmesh.types import Inputs

BACKBONE, REGRESSOR = RELEASE.backbone, RELEASE.regressor
SMALL = replace(
    RELEASE,
    backbone=replace(
        BACKBONE,
        vae=replace(BACKBONE.vae, channels=(8, 8, 16, 16), layers=1, groups=4),
        unet=replace(BACKBONE.unet, channels=(16, 24, 32, 48), groups=8, heads=2, context_width=12),
        fused_channels=32,
    ),
    prompt=replace(RELEASE.prompt, width=12),
    regressor=replace(
        REGRESSOR, fused_channels=32, width=16, heads=2, inner=24, volume_inner=24, pose_code=8
    ),
    pose_prior=VPoserConfig(latent=8, hidden=16),
    lora_rank=3,
)


@pytest.fixture(scope="module")
def model() -> DPMesh:
    torch.manual_seed(0)
    model = DPMesh(SMALL).eval()
    for p in model.parameters():  # zero convolutions, LoRA and biases would hide what they belong to
        nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.dim() > 1 else 0.3)
    return model


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    g = torch.Generator().manual_seed(1)
    visible = torch.ones(2, 30)
    visible[:, ::3] = 0
    return Inputs(
        crop=torch.rand(2, 3, 256, 256, generator=g),
        joints=torch.rand(2, 30, 2, generator=g) * 256,
        visible=visible,
        focal=torch.tensor([1500.0, 700.0]),
    )


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


def test_six_numbers_are_two_columns_row_by_row(model: DPMesh, inputs: Inputs):
    """Elements 0, 2, 4 and 1, 3, 5; Gram-Schmidt gives the columns of the matrix."""
    with torch.no_grad():
        prediction = model(inputs)
    first, second = prediction.root_6d[:, 0::2], prediction.root_6d[:, 1::2]
    first = F.normalize(first, dim=1)
    second = F.normalize(second - (first * second).sum(1, keepdim=True) * first, dim=1)
    third = torch.linalg.cross(first, second, dim=1)
    expected = torch.stack([first, second, third], dim=2)
    torch.testing.assert_close(prediction.global_orient, expected, atol=1e-5, rtol=1e-4)


def test_vposer_decodes_the_code_and_hands_rest(model: DPMesh, inputs: Inputs):
    with torch.no_grad():
        prediction = model(inputs)
        state = {name.removeprefix("bodyprior_dec_"): p for name, p in model.pose_prior.named_parameters()}
        x = F.leaky_relu(F.linear(prediction.pose_latent, state["fc1.weight"], state["fc1.bias"]), 0.2)
        x = F.leaky_relu(F.linear(x, state["fc2.weight"], state["fc2.bias"]), 0.2)
        x = F.linear(x, state["out.weight"], state["out.bias"]).view(2, 21, 3, 2)
    assert prediction.pose_latent.shape == (2, 8)
    torch.testing.assert_close(
        prediction.body_rotations[:, :21, :, 0], F.normalize(x[..., 0], dim=-1), atol=1e-5, rtol=1e-4
    )
    plane = torch.linalg.cross(x[..., 0], x[..., 1], dim=-1)
    torch.testing.assert_close(
        prediction.body_rotations[:, :21, :, 2], F.normalize(plane, dim=-1), atol=1e-5, rtol=1e-4
    )
    assert torch.equal(prediction.body_rotations[:, 21:], torch.eye(3).expand(2, 2, 3, 3))


def test_the_camera_and_the_first_samples_focal_length(model: DPMesh, inputs: Inputs):
    with torch.no_grad():
        prediction = model(inputs)
    k = 1500.0 * 2.5 / 256
    expected = torch.stack(
        [prediction.camera[:, 0], prediction.camera[:, 1], k * torch.sigmoid(prediction.camera[:, 2])], dim=1
    )
    torch.testing.assert_close(prediction.transl, expected)
    assert prediction.focal.tolist() == [1500.0, 1500.0]
    x, y, z = prediction.joints3d.unbind(-1)
    pixels = torch.stack([x / (z + 1e-4) * 1500.0 + 128, y / (z + 1e-4) * 1500.0 + 128], dim=-1)
    torch.testing.assert_close(prediction.joints2d, pixels, rtol=1e-4, atol=1e-2)


def test_one_focal_length_for_a_batch_is_a_switch_that_the_paper_leaves_off(model: DPMesh, inputs: Inputs):
    assert RELEASE.shared_focal and not PAPER.shared_focal
    own = DPMesh(replace(SMALL, shared_focal=False)).eval()
    own.load_state_dict(model.state_dict())
    with torch.no_grad():
        shared, each = model(inputs), own(inputs)
    torch.testing.assert_close(shared.transl[0], each.transl[0])
    assert each.transl[1, 2] == pytest.approx(float(shared.transl[1, 2]) * 700 / 1500, rel=1e-4)


def test_frozen_parts_get_no_gradient_and_the_rest_does(model: DPMesh, inputs: Inputs):
    prediction = model(inputs, features=True)
    (prediction.vertices.square().mean() + prediction.joints_img.sum()).backward()
    for name, p in model.named_parameters():
        learns = not name.startswith(("backbone.vae", "backbone.controlnet", "pose_prior")) and (
            ".lora_" in name or not name.startswith("backbone.unet")
        )
        assert p.requires_grad == learns, name
        assert (p.grad is not None) == learns, name
    model.zero_grad()


def test_weights_stored_before_the_position_table_was_a_setting(model: DPMesh, tmp_path: Path):
    """A `release` without the field would run with DETR's table, and other outputs; other weights have DETR's."""
    model.save_pretrained(tmp_path, {})
    again = DPMesh.from_pretrained(tmp_path)
    assert again.config.regressor.position_table == "released"
    content = json.loads((tmp_path / "config.json").read_text())
    del content["config"]["regressor"]["position_table"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="position_table") as caught:
        DPMesh.from_pretrained(tmp_path)
    assert "dpmesh convert released" in caught.value.fix
    stored = to_dict(configuration("embedded"))
    del stored["regressor"]["position_table"]
    assert stored_config(stored, "").regressor.position_table == "detr"


def test_every_norm_has_the_released_epsilon(model: DPMesh):
    """1e-6 in the encoder and before the transformer blocks of both nets, 1e-5 elsewhere. Random features are too
    large for an output to show it."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            small = ".vae." in name or (".attentions." in name and name.endswith(".norm"))
            assert layer.eps == (1e-6 if small else 1e-5), name


def test_a_tenth_of_a_millimetre_is_added_to_the_depth():
    """1000 px · 1 m / 1.0001 m + 128, and 1000 px · 0.1 mm / 0.1 mm + 128 for a point in the camera's own plane."""
    points = torch.tensor([[[1.0, -1.0, 1.0], [1e-4, 0.0, 0.0]]])
    result = project(points, torch.tensor([1000.0]))
    expected = torch.tensor([[[1127.9000, -871.9000], [1128.0, 128.0]]])
    torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)
