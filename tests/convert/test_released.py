"""Released checkpoints: every name has its place, every number arrives."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch as st
import torch
from torch import Tensor

from dpmesh.checkpoint import refuse_misfits
from dpmesh.config import RELEASE, DPMeshConfig
from dpmesh.convert.layouts import fit, wanted_shapes
from dpmesh.convert.released import JOINED, canonical, convert_released, fate, sort_out, without_copies
from dpmesh.model import DPMesh
from dpmesh.types import Inputs

LISTING = "3fa0a42d797dd3cf4e771ef4ac383b5b7488238cc7a18fadd84136c0b614573f"
"""SHA-256 of the sorted lines "name, shape, type" of a real checkpoint (3,573 of them, read off the running code)."""

UNET, CONTROL = "backbone.sd_model.model.diffusion_model.", "backbone.sd_model.control_model."


def full_listing(twin: ModuleType) -> dict[str, tuple[int, ...]]:
    layout, copies = twin.released_layout()
    whole = {**layout, **{copy: layout[first] for copy, first in copies.items()}}
    return {f"module.{name}": shape for name, shape in whole.items()}


def test_the_twin_has_the_real_layout(twin: ModuleType):
    listing = full_listing(twin)
    lines = [
        f"{name}\t{'x'.join(map(str, shape)) or 'scalar'}\t{'int64' if twin.is_integer(name) else 'float32'}"
        for name, shape in listing.items()
    ]
    assert len(lines) == 3573
    assert hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() == LISTING


@pytest.mark.parametrize("merge", [False, True])
def test_every_real_name_has_its_place(twin: ModuleType, merge: bool):
    """At full width, on tensors without numbers: nothing missing, nothing unexpected, every shape as it must be."""
    listing = full_listing(twin)
    first = {canonical(name): torch.empty(shape, device="meta") for name, shape in listing.items()}
    assert (len(listing), len(first)) == (3573, 1845)
    assert [name for name in first if fate(name, 2) is None] == []
    parts = sort_out(first, layers=2)
    assert parts.dropped == Counter(
        {
            "CLIP's text encoder, never run": 197,
            "VPoser's encoder, never run": 18,
            "schedule of the diffusion, never used": 13,
            "SMPL's licensed arrays": 7,
            "the U-Net's noise head, never run": 4,
            "entry of the VAE's decoder, never run": 2,
            "a fixed table of sines, computed": 1,
        }
    )
    assert len(parts.licensed) == 7
    wanted = wanted_shapes(replace(RELEASE, lora_rank=0) if merge else RELEASE)
    fitted, _ = fit(parts.kept, wanted)
    refuse_misfits(wanted, {name: tuple(value.shape) for name, value in fitted.items()}, "")
    # 1,845 names less 242 dropped; the joined ones are 4 for 2; 12 matrices and 12 biases become three each.
    assert len(fitted) == 1845 - 242 - 2 + 2 * 24 - (2 * 144 if merge else 0)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (f"{UNET}input_blocks.0.0.weight", "backbone.unet.conv_in.weight"),
        (f"{UNET}time_embed.2.bias", "backbone.unet.time_embedding.linear_2.bias"),
        (
            f"{UNET}input_blocks.2.0.emb_layers.1.weight",
            "backbone.unet.down_blocks.0.resnets.1.time_emb_proj.weight",
        ),
        (f"{UNET}input_blocks.3.0.op.weight", "backbone.unet.down_blocks.0.downsamplers.0.conv.weight"),
        (
            f"{UNET}input_blocks.4.0.skip_connection.bias",
            "backbone.unet.down_blocks.1.resnets.0.conv_shortcut.bias",
        ),
        (
            f"{UNET}input_blocks.8.1.transformer_blocks.0.attn2.to_k.lora_up.weight",
            "backbone.unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.lora_up.weight",
        ),
        (
            f"{UNET}input_blocks.11.0.out_layers.3.weight",
            "backbone.unet.down_blocks.3.resnets.1.conv2.weight",
        ),
        (f"{UNET}middle_block.1.proj_in.weight", "backbone.unet.mid_block.attentions.0.proj_in.weight"),
        (f"{UNET}middle_block.2.in_layers.0.weight", "backbone.unet.mid_block.resnets.1.norm1.weight"),
        (f"{UNET}output_blocks.2.1.conv.weight", "backbone.unet.up_blocks.0.upsamplers.0.conv.weight"),
        (f"{UNET}output_blocks.5.2.conv.bias", "backbone.unet.up_blocks.1.upsamplers.0.conv.bias"),
        (
            f"{UNET}output_blocks.11.1.proj_out.weight",
            "backbone.unet.up_blocks.3.attentions.2.proj_out.weight",
        ),
        (f"{UNET}output_blocks.9.0.in_layers.2.weight", "backbone.unet.up_blocks.3.resnets.0.conv1.weight"),
        (f"{CONTROL}zero_convs.7.0.weight", "backbone.controlnet.controlnet_down_blocks.7.weight"),
        (f"{CONTROL}middle_block_out.0.bias", "backbone.controlnet.controlnet_mid_block.bias"),
        (
            "backbone.sd_model.first_stage_model.encoder.down.2.block.0.nin_shortcut.weight",
            "backbone.vae.encoder.down_blocks.2.resnets.0.conv_shortcut.weight",
        ),
        (
            "backbone.sd_model.first_stage_model.encoder.mid.attn_1.proj_out.weight",
            "backbone.vae.encoder.mid_block.attentions.0.to_out.0.weight",
        ),
        ("backbone.outmodules.2.1.bias", "backbone.fusion.mix.1.bias"),
        (
            "transformer.decoder.layers.3.multihead_attn.out_proj.bias",
            "regressor.decoder.3.cross_attention.out.bias",
        ),
        ("refine_3d.layers.1.linear2.weight", "regressor.volume.layers.1.feed_forward.2.weight"),
        ("cascade_shaoe_out.2.weight", "regressor.shape_head.layers.2.weight"),
        ("transformer.decoder.joint_img_regress.1.bias", "regressor.joint_place.1.bias"),
        ("kp_lifting.weight", "prompt.mlp.0.weight"),
    ],
)
def test_places_known_by_heart(theirs: str, ours: str):
    end = fate(theirs, 2)
    assert end is not None and end.targets == (ours,)


def test_numbers_arrive(saved: Path, state: dict[str, Tensor], small: DPMeshConfig, tmp_path: Path):
    provenance = convert_released(saved, tmp_path / "out", small)
    model = DPMesh.from_pretrained(tmp_path / "out")
    assert model.config == small
    assert model.provenance == provenance
    assert provenance["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()
    own = model.state_dict()
    theirs = {name.removeprefix("module."): value for name, value in state.items()}
    query, key, value = theirs["transformer.decoder.layers.1.self_attn.in_proj_weight"].chunk(3)
    for part, expected in (("q", query), ("k", key), ("v", value)):
        assert torch.equal(own[f"regressor.decoder.1.self_attention.{part}.weight"], expected)
    content = torch.stack([theirs["transformer.smpl_tgt"], theirs["transformer.kp_tgt"]])
    assert torch.equal(own["regressor.query_content"], content)
    position = torch.cat([theirs["spose_shape_cam_param"], theirs["query.weight"]])
    assert torch.equal(own["regressor.query_position"], position)
    assert torch.equal(own["regressor.volume.exponent"], theirs["exponent"])
    assert torch.equal(own["regressor.down.weight"], theirs["down_linear.weight"][:, :, 0, 0])
    kept = {ours for name in map(canonical, state) for ours in (fate(name, 2) or (("?",),))[0]}
    assert kept == set(own)
    plain = [
        n
        for n in map(canonical, state)
        if (end := fate(n, 2)) and len(end.targets) == 1 and n not in sum(JOINED.values(), ())
    ]
    for name in plain:
        target = fate(name, 2).targets[0]  # pyright: ignore[reportOptionalMemberAccess]
        assert torch.equal(own[target].flatten(), theirs[name].flatten()), name


@torch.no_grad()
def test_merged_equals_kept(saved: Path, small: DPMeshConfig, tmp_path: Path):
    convert_released(saved, tmp_path / "kept", small)
    provenance = convert_released(saved, tmp_path / "merged", small, merge_lora=True)
    assert provenance["lora"] == "144 layers merged"
    kept, merged = (DPMesh.from_pretrained(tmp_path / name) for name in ("kept", "merged"))
    assert merged.config.lora_rank == 0
    assert not any("lora" in name for name in merged.state_dict())
    crop, joints = torch.rand(1, 3, 256, 256), torch.rand(1, 30, 2) * 256
    inputs = Inputs(crop, joints, torch.ones(1, 30), torch.tensor([900.0]))
    expected, result = (model.encode_image(crop, joints, inputs.visible).fused for model in (kept, merged))
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)
    for name, value in kept.state_dict().items():  # and the update is large enough to be noticed
        if name.endswith("attn2.to_q.lora_up.weight"):
            stem = name.removesuffix(".lora_up.weight")
            update = value @ kept.state_dict()[f"{stem}.lora_down.weight"]
            base = kept.state_dict()[f"{stem}.linear.weight"]
            torch.testing.assert_close(merged.state_dict()[f"{stem}.weight"], base + update)
            assert update.abs().max() > 1e-4


def test_a_wider_lora_is_merged_where_the_model_has_none(
    state: dict[str, Tensor], small: DPMeshConfig, tmp_path: Path
):
    """A note in the release speaks of checkpoints with updates on the residual blocks' time projections too."""
    stem = f"{UNET}input_blocks.1.0.emb_layers.1"
    rank = small.lora_rank
    for root in ("module.backbone.sd_model.", "module.backbone.unet.unet."):
        name = root + stem.removeprefix("backbone.sd_model.")
        weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias")
        state |= {f"{name}.linear.weight": weight, f"{name}.linear.bias": bias}
        state |= {f"{name}.lora_up.weight": torch.full((len(weight), rank), 0.5)}
        state |= {f"{name}.lora_down.weight": torch.full((rank, weight.shape[1]), 2.0)}
    torch.save(state, tmp_path / "wide.pth.tar")
    convert_released(tmp_path / "wide.pth.tar", tmp_path / "out", small)
    own = st.load_file(tmp_path / "out" / "model.safetensors")
    ours = "backbone.unet.down_blocks.0.resnets.0.time_emb_proj"
    torch.testing.assert_close(own[f"{ours}.weight"], weight + rank)
    assert torch.equal(own[f"{ours}.bias"], bias)


def test_the_prefix_and_position_ids_are_optional(
    state: dict[str, Tensor], saved: Path, small: DPMeshConfig, tmp_path: Path
):
    other = {
        name.removeprefix("module."): value
        for name, value in state.items()
        if not name.endswith("position_ids")
    }
    assert len(other) == len(state) - 2
    torch.save({"epoch": 3, "state_dict": other}, tmp_path / "plain.pth.tar")
    convert_released(saved, tmp_path / "a", small)
    convert_released(tmp_path / "plain.pth.tar", tmp_path / "b", small)
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in "ab"]
    assert weights[0] == weights[1]


def test_one_copy_is_enough(state: dict[str, Tensor], small: DPMeshConfig, tmp_path: Path):
    """Without the first copies the second are taken; equal copies that share no memory are equal all the same."""
    lonely = {n: v for n, v in state.items() if not n.startswith("module.backbone.sd_model.model.")}
    first, copies = without_copies({n: v.clone() for n, v in lonely.items()}, "")
    assert len(first) == len({canonical(name) for name in state})
    assert copies == len(lonely) - len(first)
    torch.save(lonely, tmp_path / "lonely.pth.tar")
    convert_released(tmp_path / "lonely.pth.tar", tmp_path / "out", small)
