"""Converts weights of other layouts to a model's names and shapes: CompVis' Stable Diffusion, LoRA, 1×1 convolutions.

The released DPMesh checkpoints, single-file Stable Diffusion and ControlNet use CompVis' names; the model uses
diffusers'. What follows a module's name (`weight`, `linear.weight`, `lora_up.weight`) is kept.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from dpmesh.config import DPMeshConfig
from dpmesh.model import DPMesh

Shapes = dict[str, tuple[int, ...]]
DOWN, UP, BASE = "lora_down.weight", "lora_up.weight", "linear"


def wanted_shapes(config: DPMeshConfig) -> Shapes:
    """Names and shapes of the model's state, computed without allocating it."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in DPMesh(config).state_dict().items()}


def fit(tensors: Mapping[str, Tensor], wanted: Shapes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors under the model's names, new name -> name in `tensors`). Names and shapes are not checked.

    LoRA for a layer that the model has without it is merged (W + up · down, in fp32); plain weights of a layer that the
    model has with LoRA become its base. 1×1 convolutions become linear layers.
    """
    fitted = dict(tensors)
    names = {name: name for name in tensors}
    for name in tensors:
        stem, _, leaf = name.rpartition(".")
        if name.endswith(f".{DOWN}"):
            stem = name.removesuffix(f".{DOWN}")
            if f"{stem}.weight" in wanted and {f"{stem}.{UP}", f"{stem}.{BASE}.weight"} <= tensors.keys():
                _merge(fitted, names, stem)
        elif name not in wanted and f"{stem}.{BASE}.{leaf}" in wanted:
            _rename(fitted, names, name, f"{stem}.{BASE}.{leaf}")
    for name, value in fitted.items():
        if value.ndim == 4 and value.shape[2:] == (1, 1) and wanted.get(name) == tuple(value.shape[:2]):
            fitted[name] = value[:, :, 0, 0]
    return fitted, names


def _merge(fitted: dict[str, Tensor], names: dict[str, str], stem: str) -> None:
    up, down = fitted.pop(f"{stem}.{UP}").float(), fitted.pop(f"{stem}.{DOWN}").float()
    base = fitted[f"{stem}.{BASE}.weight"].float()
    if up.ndim == down.ndim == base.ndim == 2 and (up.shape[0], down.shape[1]) == tuple(base.shape):
        fitted[f"{stem}.{BASE}.weight"] = torch.addmm(base, up, down)
    for leaf in ("weight", "bias"):
        if f"{stem}.{BASE}.{leaf}" in fitted:
            _rename(fitted, names, f"{stem}.{BASE}.{leaf}", f"{stem}.{leaf}")


def _rename(fitted: dict[str, Tensor], names: dict[str, str], old: str, new: str) -> None:
    fitted[new] = fitted.pop(old)
    names[new] = names.pop(old)


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
    """Our name of a tensor of the U-Net or ControlNet, both without prefix; None for an unknown one.

    layers: residual blocks per level (2 in Stable Diffusion); the original numbering runs through all levels.
    """
    if match := re.fullmatch(r"zero_convs\.(\d+)\.0\.(.+)", name):
        return f"controlnet_down_blocks.{match[1]}.{match[2]}"
    if renamed := _renamed(name, _PLAIN):
        stem, rest = renamed
        if not stem.startswith("mid_block"):
            return f"{stem}.{rest}"
        inner = _inner(rest)
        return inner and f"{stem}.{inner}"
    if not (match := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", name)):
        return None
    way, number, place, rest = match[1], int(match[2]), int(match[3]), match[4]
    if way == "input":
        level, layer = divmod(
            number - 1, layers + 1
        )  # number 0 is conv_in; each level ends with its downsampler
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        side = "down"
    else:
        level, layer = divmod(number, layers + 1)
        if rest.startswith("conv."):  # in place of, or after, the last attention
            return f"up_blocks.{level}.upsamplers.0.{rest}"
        side = "up"
    inner = _inner(rest)
    return inner and f"{side}_blocks.{level}.{'attentions' if place else 'resnets'}.{layer}.{inner}"


def vae_name(name: str) -> str | None:
    """Our name of a tensor of the VAE's encoder, without prefix; None for an unknown one."""
    if match := re.fullmatch(r"encoder\.down\.(\d+)\.downsample\.conv\.(.+)", name):
        return f"encoder.down_blocks.{match[1]}.downsamplers.0.conv.{match[2]}"
    if match := re.fullmatch(r"encoder\.down\.(\d+)\.block\.(\d+)\.(.+)", name):
        stem, rest = f"encoder.down_blocks.{match[1]}.resnets.{match[2]}", match[3]
    elif renamed := _renamed(name, _VAE):
        stem, rest = renamed
    else:
        return None
    if "attentions" in stem:
        attention = _renamed(rest, _VAE_ATTENTION)
        return attention and f"{stem}.{attention[0]}.{attention[1]}"
    return f"{stem}.{rest.replace('nin_shortcut', 'conv_shortcut')}"


def _inner(rest: str) -> str | None:
    """Our name within a residual block or a transformer."""
    if renamed := _renamed(rest, _RESNET):
        return ".".join(renamed)
    return rest if _TRANSFORMER.match(rest) else None


def _renamed(name: str, table: dict[str, str]) -> tuple[str, str] | None:
    """(new stem, rest of the name) for a name that begins with one of the table's stems."""
    for stem, new in table.items():
        if name.startswith(f"{stem}."):
            return new, name.removeprefix(f"{stem}.")
    return None
