"""Stable Diffusion 1.5, with or without a ControlNet, as initial weights for training: diffusers' folders and CompVis'
single files."""

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
from dpmesh.convert.layouts import DOWN, UP, fit, unet_name, vae_name, wanted_shapes
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
"""The U-Net's noise head and ControlNet's encoder of hint images: our model uses features and heatmaps instead."""
_DECODER = re.compile(r"decoder\.|post_quant_conv\.|loss\.")
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names in diffusers' VAE before 0.18, which many folders still have."""


def convert_sd15(
    source: Path, out: Path, config: DPMeshConfig, *, controlnet: Path | None = None, seed: int = 0
) -> Provenance:
    """Write a model with pretrained VAE encoder, U-Net and ControlNet, the rest random; returns its provenance.

    source: a diffusers folder with unet/ and vae/, or one file in the original layout. controlnet: likewise; its first
    convolution gives the weights of the four latent channels, those of the heatmaps are zero. Without it the ControlNet
    is, as usual, a copy of the U-Net's encoder half whose outputs are zero. A VPoser decoder is all zeros, so that it
    is never mistaken for a trained one. Raises WeightsError with the first names that are missing, unexpected or
    mis-shaped; ConfigError for a model without U-Net or without a place for the ControlNet; OutputError.
    """
    _refuse_other_models(config, controlnet)
    files, tensors = read_stable_diffusion(source, config.diffusion.unet.layers)
    control_file: Path | None = None
    if controlnet is not None:
        control_file, control = read_controlnet(controlnet, config.diffusion.unet.layers)
        tensors |= control
    wanted = {
        name: shape for name, shape in wanted_shapes(config).items() if name.startswith((UNET, VAE, CONTROL))
    }
    pretrained = {name: shape for name, shape in wanted.items() if not name.endswith((DOWN, UP))}
    if control_file is None:
        _copy_encoder(tensors, pretrained)
    if FIRST in wanted:
        _widen(tensors, wanted[FIRST])
    state, names = fit(tensors, wanted)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    where = str(source if controlnet is None else f"{source}, {controlnet}")
    refuse_misfits(pretrained, shapes, where, names)
    refuse_numbers(state, where, names)
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
        "controlnet": _controlnet_source(config, control_file),
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


def _controlnet_source(config: DPMeshConfig, file: Path | None) -> str:
    if not config.diffusion.controlled:
        return "none: this model is told no keypoints"
    return "a copy of the U-Net's encoder half, its outputs zero" if file is None else "pretrained"


def read_stable_diffusion(source: Path, layers: int) -> tuple[list[Path], dict[str, Tensor]]:
    """(the files read, U-Net and VAE encoder under our names)."""
    if os.path.isdir(source):
        unet, vae = (_diffusers_file(source / part) for part in ("unet", "vae"))
        renamed = _prefixed(UNET, read_tensors(unet), _NOT_RUN)
        return [unet, vae], renamed | _prefixed(VAE, _renamed_attention(read_tensors(vae)), _DECODER)
    tensors = read_tensors(source)
    renamed = _from_ldm(tensors, "model.diffusion_model.", UNET, layers)
    if not renamed:
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
    return [source], renamed | {
        VAE + (vae_name(name) or name): value for name, value in vae.items() if not _DECODER.match(name)
    }


def read_controlnet(source: Path, layers: int) -> tuple[Path, dict[str, Tensor]]:
    """(the file read, ControlNet under our names), from a diffusers folder or either layout's file."""
    file = _diffusers_file(source) if os.path.isdir(source) else source
    tensors = read_tensors(file)
    if any(name.startswith("controlnet_down_blocks.") for name in tensors):
        return file, _prefixed(CONTROL, tensors, _NOT_RUN)
    prefix = "" if "zero_convs.0.0.weight" in tensors else "control_model."
    if renamed := _from_ldm(tensors, prefix, CONTROL, layers):
        return file, renamed
    raise WeightsError("this is no ControlNet", where=str(file), fix="Give one for Stable Diffusion 1.5.")


def _diffusers_file(folder: Path) -> Path:
    """The weights file of a diffusers folder: .safetensors before .bin, full precision before half."""
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


def _copy_encoder(tensors: dict[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Initialise ControlNet: a copy of the U-Net's encoder half, with zero output convolutions."""
    for name, shape in wanted.items():
        if not name.startswith(CONTROL):
            continue
        inner = name.removeprefix(CONTROL)
        if inner.startswith("controlnet_"):
            tensors[name] = torch.zeros(shape)
        elif UNET + inner in tensors:
            tensors[name] = tensors[UNET + inner]


def _widen(tensors: dict[str, Tensor], wanted: tuple[int, ...]) -> None:
    """Append zeros for the heatmaps to the latent's channels of ControlNet's first convolution."""
    value = tensors.get(FIRST)
    if value is not None and value.ndim == 4 and value.shape[1] < wanted[1]:
        zeros = value.new_zeros(value.shape[0], wanted[1] - value.shape[1], *value.shape[2:])
        tensors[FIRST] = torch.cat([value, zeros], dim=1)
