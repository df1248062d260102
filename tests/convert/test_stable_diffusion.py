"""Stable Diffusion and ControlNet in both layouts, at scaled-down widths, as the start of a training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch as st
import torch
from torch import Tensor

from dpmesh.config import PAPER, DPMeshConfig
from dpmesh.convert.stable_diffusion import convert_sd15, unet_name, vae_name
from dpmesh.errors import WeightsError
from dpmesh.model import DPMesh

State = dict[str, Tensor]


@pytest.fixture(scope="session")
def paper(twin: ModuleType) -> DPMeshConfig:
    """PAPER with the twin's widths."""
    small = twin.small_config()
    vae = replace(small.backbone.vae, image_range="symmetric", latent_scale=0.18215)
    unet = replace(small.backbone.unet, map_sizes=PAPER.backbone.unet.map_sizes)
    prior = replace(PAPER.pose_prior, tokens=6, codes=10, code_width=8, encoder_width=8, decoder_width=8)
    return replace(
        PAPER,
        backbone=replace(small.backbone, vae=vae, unet=unet),
        prompt=replace(PAPER.prompt, width=20),
        regressor=replace(small.regressor, pose_code=12),
        pose_prior=prior,
        token_width=8,
        lora_rank=3,
    )


@pytest.fixture(scope="session")
def original(twin: ModuleType, paper: DPMeshConfig) -> State:
    """Stable Diffusion in one file: with its text encoder, decoder, averaged copy and schedule."""
    layout = twin.Layout()
    layout.stable_diffusion("", paper, twin.SMALL, 0)
    layout.conv("first_stage_model.decoder.conv_in", 8, 4)
    layout["model_ema.decay"] = layout["model_ema.diffusion_modelinput_blocks00weight"] = (3,)
    return twin.fill(layout, seed=1)


@pytest.fixture(scope="session")
def control(twin: ModuleType, paper: DPMeshConfig) -> State:
    """ControlNet in one file: four channels in, and an encoder of hint images."""
    layout = twin.Layout()
    layout.controlnet("control_model.", paper.backbone.unet, 4)
    layout.conv("control_model.input_hint_block.0", 8, 3)
    return twin.fill(layout, seed=2)


def in_diffusers_names(state: State, prefix: str, name: Callable[[str], str | None]) -> State:
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {new: value for key, value in inner.items() if (new := name(key)) is not None}


@pytest.fixture
def folder(original: State, tmp_path: Path) -> Path:
    """The same as a diffusers folder: its VAE attention is linear, and has the names of 2022."""
    unet = in_diffusers_names(original, "model.diffusion_model.", lambda key: unet_name(key, 2))
    unet |= {"conv_norm_out.weight": torch.ones(16), "conv_out.weight": torch.ones(4, 16, 3, 3)}
    vae = in_diffusers_names(original, "first_stage_model.", vae_name)
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        for leaf in ("weight", "bias"):
            stem = "encoder.mid_block.attentions.0"
            value = vae.pop(f"{stem}.{new}.{leaf}")
            vae[f"{stem}.{old}.{leaf}"] = value.reshape(value.shape[:2])
    vae |= {"decoder.conv_in.weight": torch.ones(8, 4, 3, 3), "post_quant_conv.bias": torch.ones(4)}
    for part, state in (("unet", unet), ("vae", vae)):
        (tmp_path / "sd" / part).mkdir(parents=True)
        contiguous = {name: value.contiguous() for name, value in state.items()}
        st.save_file(contiguous, tmp_path / "sd" / part / "diffusion_pytorch_model.safetensors")
        (tmp_path / "sd" / part / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not read")
        (tmp_path / "sd" / part / "diffusion_pytorch_model.bin").write_bytes(b"not read")
    return tmp_path / "sd"


def stored(path: Path) -> State:
    return st.load_file(path / "model.safetensors")


def test_one_file(original: State, paper: DPMeshConfig, tmp_path: Path):
    st.save_file(original, tmp_path / "sd.safetensors")
    provenance = convert_sd15(tmp_path / "sd.safetensors", tmp_path / "out", paper, seed=5)
    model = DPMesh.from_pretrained(tmp_path / "out")
    assert model.config == paper and model.provenance == provenance
    assert provenance["seed"] == 5 and provenance["pretrained"] == ["backbone.unet", "backbone.vae"]
    own = model.state_dict()
    unet, block = "model.diffusion_model.", "1.1.transformer_blocks.0"
    inner = "backbone.unet.down_blocks.0.attentions.0.transformer_blocks.0"
    # attn2 is adapted, attn1 is not: the same weights as an adapted layer's base, and as a plain layer
    pairs = {
        f"{inner}.attn2.to_k.linear.weight": f"{unet}input_blocks.{block}.attn2.to_k.weight",
        f"{inner}.attn1.to_k.weight": f"{unet}input_blocks.{block}.attn1.to_k.weight",
        "backbone.unet.up_blocks.1.upsamplers.0.conv.weight": f"{unet}output_blocks.5.2.conv.weight",
        "backbone.vae.quant_conv.bias": "first_stage_model.quant_conv.bias",
        "backbone.controlnet.time_embedding.linear_1.weight": f"{unet}time_embed.0.weight",
        "backbone.controlnet.mid_block.resnets.1.conv2.weight": f"{unet}middle_block.2.out_layers.3.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(own[ours], original[theirs]), ours
    first = own["backbone.controlnet.conv_in.weight"]
    assert torch.equal(first[:, :4], original[f"{unet}input_blocks.0.0.weight"])
    assert first.shape[1] == 34 and not first[:, 4:].any()
    assert not any(value.any() for name, value in own.items() if ".controlnet_" in name or "lora_up" in name)
    assert own["backbone.unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.lora_down.weight"].any()


def test_controlnet(original: State, control: State, paper: DPMeshConfig, tmp_path: Path):
    torch.save(
        {"state_dict": {n: v.half() if v.is_floating_point() else v for n, v in original.items()}},
        tmp_path / "sd.ckpt",
    )
    torch.save(control, tmp_path / "control.pth")
    convert_sd15(tmp_path / "sd.ckpt", tmp_path / "out", paper, controlnet=tmp_path / "control.pth")
    own = stored(tmp_path / "out")
    first = own["backbone.controlnet.conv_in.weight"]
    assert torch.equal(first[:, :4], control["control_model.input_blocks.0.0.weight"])
    assert not first[:, 4:].any()
    assert torch.equal(
        own["backbone.controlnet.controlnet_down_blocks.4.weight"],
        control["control_model.zero_convs.4.0.weight"],
    )
    halved = original["model.diffusion_model.time_embed.0.bias"].half().float()
    assert torch.equal(own["backbone.unet.time_embedding.linear_1.bias"], halved)


def test_both_layouts_give_the_same_model(
    original: State, control: State, folder: Path, paper: DPMeshConfig, tmp_path: Path
):
    st.save_file(original, tmp_path / "sd.safetensors")
    st.save_file(control, tmp_path / "control.safetensors")
    diffusers = in_diffusers_names(control, "control_model.", lambda key: unet_name(key, 2))
    diffusers["controlnet_cond_embedding.conv_in.weight"] = torch.ones(8, 3, 3, 3)
    (tmp_path / "control").mkdir()
    torch.save(diffusers, tmp_path / "control" / "diffusion_pytorch_model.bin")
    one = convert_sd15(
        tmp_path / "sd.safetensors", tmp_path / "a", paper, controlnet=tmp_path / "control.safetensors"
    )
    other = convert_sd15(folder, tmp_path / "b", paper, controlnet=tmp_path / "control")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()
    assert [f["file"] for f in one["files"]] == ["sd.safetensors", "control.safetensors"]
    assert [f["file"] for f in other["files"]] == ["diffusion_pytorch_model.safetensors"] * 2 + [
        "diffusion_pytorch_model.bin"
    ]


def test_the_seed_decides_the_rest_and_nothing_outside(original: State, paper: DPMeshConfig, tmp_path: Path):
    st.save_file(original, tmp_path / "sd.safetensors")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        convert_sd15(tmp_path / "sd.safetensors", tmp_path / name, paper, seed=seed)
    assert torch.equal(torch.rand(3), expected)
    a, b, c = (stored(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    differing = {name.split(".")[0] for name in a if not torch.equal(a[name], c[name])}
    assert differing == {"backbone", "prompt", "regressor", "pose_prior", "pose_tokens"}
    assert {
        n for n in a if n.startswith(("backbone.vae", "backbone.controlnet")) and not torch.equal(a[n], c[n])
    } == set()


FAULTS = {
    "missing": (
        {"model.diffusion_model.middle_block.1.norm.bias": None},
        r"2 missing: backbone\.controlnet\.mid_block\.attentions\.0\.norm\.bias, backbone\.unet",
    ),
    "unexpected": (
        {"model.diffusion_model.label_emb.0.weight": (3,)},
        r"1 unexpected: backbone\.unet\.label_emb",
    ),
    "mis-shaped": (
        {"first_stage_model.quant_conv.weight": (6, 8, 1, 1)},
        r"1 mis-shaped: backbone\.vae\.quant_conv\.weight 6×8×1×1 instead of 8×8×1×1",
    ),
}


@pytest.mark.parametrize("change, message", FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_named(original: State, paper: DPMeshConfig, tmp_path: Path, change, message: str):
    state = {**original, **{name: torch.zeros(shape) for name, shape in change.items() if shape}}
    st.save_file(
        {n: v for n, v in state.items() if change.get(n, ()) is not None}, tmp_path / "sd.safetensors"
    )
    with pytest.raises(WeightsError, match=message):
        convert_sd15(tmp_path / "sd.safetensors", tmp_path / "out", paper)
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(
    original: State, control: State, folder: Path, paper: DPMeshConfig, tmp_path: Path
):
    st.save_file(control, tmp_path / "control.safetensors")
    with pytest.raises(WeightsError, match=r"no name begins with model\.diffusion_model"):
        convert_sd15(tmp_path / "control.safetensors", tmp_path / "out", paper)
    st.save_file(original, tmp_path / "sd.safetensors")
    with pytest.raises(WeightsError, match="this is no ControlNet"):
        convert_sd15(
            tmp_path / "sd.safetensors", tmp_path / "out", paper, controlnet=tmp_path / "sd.safetensors"
        )
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "sd.safetensors").read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cut\.safetensors.*damaged"):
        convert_sd15(tmp_path / "cut.safetensors", tmp_path / "out", paper)
    with pytest.raises(WeightsError, match="no diffusion_pytorch_model"):
        convert_sd15(tmp_path, tmp_path / "out", paper)
    assert not (tmp_path / "out").exists()
