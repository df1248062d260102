"""Stable Diffusion 1.5, and a ControlNet for it, as the start of a training. Both layouts: diffusers' folders and the
original single files (CompVis')."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dpmesh.assets import sha256
from dpmesh.backbone.diffusion import BackboneConfig
from dpmesh.checkpoint import Provenance, refuse_misfits
from dpmesh.config import DPMeshConfig
from dpmesh.convert.fitting import DOWN, UP, fit, wanted_shapes
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.model import DPMesh
from dpmesh.pose_prior.vposer import VPoserDecoder
from dpmesh.tensor_files import read_tensors, refuse_numbers

UNET, VAE, CONTROL = "backbone.unet.", "backbone.vae.", "backbone.controlnet."
FIRST = f"{CONTROL}conv_in.weight"
LICENCE = "Stable Diffusion 1.5 and ControlNet: CreativeML OpenRAIL-M"

_NOT_RUN = re.compile(
    r"conv_norm_out\.|conv_out\.|out\.[02]\.|input_hint_block\.|controlnet_cond_embedding\."
)
"""The U-Net's noise head and ControlNet's encoder of hint pictures: ours gives features and takes heatmaps."""
_DECODER = re.compile(r"decoder\.|post_quant_conv\.|loss\.")
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""diffusers' names before 0.18 in the VAE, which many folders still hold."""


def convert_sd15(
    source: Path, out: Path, config: DPMeshConfig, *, controlnet: Path | None = None, seed: int = 0
) -> Provenance:
    """Write a model whose VAE encoder, U-Net and ControlNet are pretrained and the rest random; returns its provenance.

    source: a diffusers folder with unet/ and vae/, or one file in the original layout. controlnet: the same; of its
    first convolution the four latent channels are taken and the heatmaps start at zero. Without it the ControlNet
    starts, as any does, as a copy of the U-Net's encoder half whose outputs are zero. A VPoser decoder is zeros, so
    that no training takes it for a trained one. Raises WeightsError with the first names that are missing, unexpected
    or mis-shaped; ConfigError for a model without a U-Net, or a ControlNet that it has no place for; OutputError.
    """
    _refuse_other_models(config, controlnet)
    files, found = read_stable_diffusion(source, config.diffusion.unet.layers)
    control_file: Path | None = None
    if controlnet is not None:
        control_file, control = read_controlnet(controlnet, config.diffusion.unet.layers)
        found |= control
    wanted = {
        name: shape for name, shape in wanted_shapes(config).items() if name.startswith((UNET, VAE, CONTROL))
    }
    pretrained = {name: shape for name, shape in wanted.items() if not name.endswith((DOWN, UP))}
    if control_file is None:
        _copy_encoder(found, pretrained)
    if FIRST in wanted:
        _widen(found, wanted[FIRST])
    state, came = fit(found, wanted)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    where = str(source if controlnet is None else f"{source}, {controlnet}")
    refuse_misfits(pretrained, shapes, where, came)
    refuse_numbers(state, where, came)
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]  (torch's stub)
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        model = DPMesh.from_config(config)
    own = model.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
        if isinstance(model.pose_prior, VPoserDecoder):
            for value in model.pose_prior.parameters():
                value.zero_()
    provenance: Provenance = {
        "source": "Stable Diffusion 1.5, a start for training: not a trained model",
        "files": [
            {"file": file.name, "sha256": sha256(file)} for file in [*files, *filter(None, [control_file])]
        ],
        "pretrained": [UNET[:-1], VAE[:-1], *([] if control_file is None else [CONTROL[:-1]])],
        "controlnet": _told_controlnet(config, control_file),
        "random": "all other parts",
        "seed": seed,
        "licence": LICENCE,
    }
    model.save_pretrained(out, provenance)
    return provenance


def _refuse_other_models(config: DPMeshConfig, controlnet: Path | None) -> None:
    if not isinstance(config.backbone, BackboneConfig):
        raise ConfigError(
            f"{config.name} has no U-Net to start from Stable Diffusion",
            where="--config",
            fix="It starts from timm's weights when it is trained: [model] backbone.pretrained = true.",
        )
    if controlnet is not None and not config.backbone.controlled:
        raise ConfigError(
            f"{config.name} has no ControlNet", where="--controlnet", fix="Leave --controlnet out."
        )


def _told_controlnet(config: DPMeshConfig, file: Path | None) -> str:
    if not config.diffusion.controlled:
        return "none: this model is told no keypoints"
    return "a copy of the U-Net's encoder half, its outputs zero" if file is None else "pretrained"


def read_stable_diffusion(source: Path, layers: int) -> tuple[list[Path], dict[str, Tensor]]:
    """(the files read, U-Net and VAE encoder under our names)."""
    if os.path.isdir(source):
        unet, vae = (_diffusers_file(source / part) for part in ("unet", "vae"))
        found = _prefixed(UNET, read_tensors(unet), _NOT_RUN)
        return [unet, vae], found | _prefixed(VAE, _renamed_attention(read_tensors(vae)), _DECODER)
    tensors = read_tensors(source)
    found = _from_ldm(tensors, "model.diffusion_model.", UNET, layers)
    if not found:
        raise WeightsError(
            "no name begins with model.diffusion_model.",
            where=str(source),
            fix="Give a diffusers folder, or Stable Diffusion 1.5 in one file.",
        )
    vae = {
        name.removeprefix("first_stage_model."): value
        for name, value in tensors.items()
        if name.startswith("first_stage_model.")
    }
    return [source], found | {
        VAE + (vae_name(name) or name): value for name, value in vae.items() if not _DECODER.match(name)
    }


def read_controlnet(source: Path, layers: int) -> tuple[Path, dict[str, Tensor]]:
    """(the file read, ControlNet under our names), from a diffusers folder or either layout's file."""
    file = _diffusers_file(source) if os.path.isdir(source) else source
    tensors = read_tensors(file)
    if any(name.startswith("controlnet_down_blocks.") for name in tensors):
        return file, _prefixed(CONTROL, tensors, _NOT_RUN)
    prefix = "" if "zero_convs.0.0.weight" in tensors else "control_model."
    if found := _from_ldm(tensors, prefix, CONTROL, layers):
        return file, found
    raise WeightsError("this is no ControlNet", where=str(file), fix="Give one for Stable Diffusion 1.5.")


def _diffusers_file(folder: Path) -> Path:
    """The weights in one of diffusers' folders: safetensors before pickles, full precision before half."""
    files = [
        *folder.glob("diffusion_pytorch_model*.safetensors"),
        *folder.glob("diffusion_pytorch_model*.bin"),
    ]
    if not files:
        raise WeightsError(
            "no diffusion_pytorch_model.safetensors or .bin",
            where=str(folder),
            fix="Give the folder that holds unet/ and vae/, or a ControlNet's own.",
        )
    return min(
        files, key=lambda file: (file.suffix != ".safetensors", "non_ema" in file.name, len(file.name))
    )


def _prefixed(ours: str, tensors: Mapping[str, Tensor], dropped: re.Pattern[str]) -> dict[str, Tensor]:
    return {ours + name: value for name, value in tensors.items() if not dropped.match(name)}


def _from_ldm(tensors: Mapping[str, Tensor], theirs: str, ours: str, layers: int) -> dict[str, Tensor]:
    inner = {name.removeprefix(theirs): value for name, value in tensors.items() if name.startswith(theirs)}
    return {
        ours + (unet_name(name, layers) or name): value
        for name, value in inner.items()
        if not _NOT_RUN.match(name)
    }


def _renamed_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def new(name: str) -> str:
        stem, _, leaf = name.rpartition(".")
        parent, _, part = stem.rpartition(".")
        return f"{parent}.{_OLD_ATTENTION[part]}.{leaf}" if part in _OLD_ATTENTION else name

    return {new(name): value for name, value in tensors.items()}


def _copy_encoder(found: dict[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """ControlNet's start: the U-Net's encoder half, and zero where it reaches the U-Net."""
    for name, shape in wanted.items():
        if not name.startswith(CONTROL):
            continue
        inner = name.removeprefix(CONTROL)
        if inner.startswith("controlnet_"):
            found[name] = torch.zeros(shape)
        elif UNET + inner in found:
            found[name] = found[UNET + inner]


def _widen(found: dict[str, Tensor], wanted: tuple[int, ...]) -> None:
    """Zeros for the heatmaps behind the latent's channels of ControlNet's first convolution."""
    value = found.get(FIRST)
    if value is not None and value.ndim == 4 and value.shape[1] < wanted[1]:
        zeros = value.new_zeros(value.shape[0], wanted[1] - value.shape[1], *value.shape[2:])
        found[FIRST] = torch.cat([value, zeros], dim=1)


# Stable Diffusion's original names (CompVis' latent-diffusion layout) to diffusers' names, which are ours.
#
# The released DPMesh checkpoints, single-file Stable Diffusion and ControlNet's files all use the former. Whatever
# follows a module's name (`weight`, `linear.weight`, `lora_up.weight`) stays as it is.


_PLAIN = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "middle_block_out.0": "controlnet_mid_block",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE = {
    "encoder.mid.block_1": "encoder.mid_block.resnets.0",
    "encoder.mid.block_2": "encoder.mid_block.resnets.1",
    "encoder.mid.attn_1": "encoder.mid_block.attentions.0",
    "encoder.norm_out": "encoder.conv_norm_out",
    "encoder.conv_in": "encoder.conv_in",
    "encoder.conv_out": "encoder.conv_out",
    "quant_conv": "quant_conv",
}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_TRANSFORMER = re.compile(r"(norm|proj_in|proj_out|transformer_blocks)\.")


def unet_name(name: str, layers: int) -> str | None:
    """Our name for one of the U-Net or the ControlNet, both without their prefix; None for an unknown one.

    layers: residual blocks of each level (2 in Stable Diffusion); the old numbering runs through all levels.
    """
    if found := re.fullmatch(r"zero_convs\.(\d+)\.0\.(.+)", name):
        return f"controlnet_down_blocks.{found[1]}.{found[2]}"
    if found := _renamed(name, _PLAIN):
        stem, rest = found
        if not stem.startswith("mid_block"):
            return f"{stem}.{rest}"
        inner = _inner(rest)
        return inner and f"{stem}.{inner}"
    if not (found := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", name)):
        return None
    way, number, place, rest = found[1], int(found[2]), int(found[3]), found[4]
    if way == "input":
        level, layer = divmod(
            number - 1, layers + 1
        )  # number 0 is conv_in; each level ends with its downsampler
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        side = "down"
    else:
        level, layer = divmod(number, layers + 1)
        if rest.startswith("conv."):  # after the last layer's attention, or in its place
            return f"up_blocks.{level}.upsamplers.0.{rest}"
        side = "up"
    inner = _inner(rest)
    return inner and f"{side}_blocks.{level}.{'attentions' if place else 'resnets'}.{layer}.{inner}"


def vae_name(name: str) -> str | None:
    """Our name for one of the VAE's encoder, without prefix; None for an unknown one."""
    if found := re.fullmatch(r"encoder\.down\.(\d+)\.downsample\.conv\.(.+)", name):
        return f"encoder.down_blocks.{found[1]}.downsamplers.0.conv.{found[2]}"
    if found := re.fullmatch(r"encoder\.down\.(\d+)\.block\.(\d+)\.(.+)", name):
        stem, rest = f"encoder.down_blocks.{found[1]}.resnets.{found[2]}", found[3]
    elif found := _renamed(name, _VAE):
        stem, rest = found
    else:
        return None
    if "attentions" in stem:
        attention = _renamed(rest, _VAE_ATTENTION)
        return attention and f"{stem}.{attention[0]}.{attention[1]}"
    return f"{stem}.{rest.replace('nin_shortcut', 'conv_shortcut')}"


def _inner(rest: str) -> str | None:
    """Inside of a residual block or of a transformer."""
    if found := _renamed(rest, _RESNET):
        return ".".join(found)
    return rest if _TRANSFORMER.match(rest) else None


def _renamed(name: str, table: dict[str, str]) -> tuple[str, str] | None:
    """(new stem, what follows it) for a name that begins with one of the table's stems."""
    for stem, new in table.items():
        if name.startswith(f"{stem}."):
            return new, name.removeprefix(f"{stem}.")
    return None
