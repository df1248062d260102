"""The same function, faster: `optimised` makes a loaded model an inference-only one."""

from collections.abc import Mapping
from typing import Any

import torch

from dpmesh.diffusion.lora import merge_lora
from dpmesh.diffusion.packed import can_pack, pack
from dpmesh.diffusion.unet import EncoderHalf
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.model import DPMesh

MARK = "optimised"
"""In the provenance of such a model."""


def optimised(
    model: DPMesh,
    *,
    dtype: torch.dtype | None = None,
    pack_weights: bool | None = None,
    compile: bool | Mapping[str, Any] = False,
) -> DPMesh:
    """Change the model in place (it may be half of the memory) into one that answers the same, and return it.

    The timestep is folded into biases and low-rank updates into their layers; both are exact up to rounding. It
    then wants no gradients, and refuses to be saved or loaded: save first, optimise after loading.

    dtype: as DPMesh.run_backbone_in; None leaves it as it is.
    pack_weights: keep the backbone's weights in oneDNN's own order (diffusion/packed.py); the model cannot then be
    moved to another device. By default wherever that is possible: on a CPU, unless compiled.
    compile: True, or arguments for torch.compile: {"mode": "reduce-overhead"} captures CUDA graphs.

    Raises ConfigError for packing off the CPU, and for a model that is optimised already.
    """
    if is_optimised(model):
        raise ConfigError("the model is optimised already", where="optimised")
    possible = next(model.parameters()).device.type == "cpu" and can_pack() and compile is False
    if pack_weights and not possible:
        raise ConfigError("weights are packed on a CPU, with oneDNN, uncompiled", where="pack_weights")
    backbone = model.eval().requires_grad_(False).backbone
    merge_lora(backbone)
    for part in backbone.modules():
        if isinstance(part, EncoderHalf):
            part.fold_time()
    if dtype is not None:
        model.run_backbone_in(dtype)
    if possible and pack_weights is not False:
        pack(backbone)
    if compile is not False:
        backbone.compile(**({} if compile is True else compile))
    model.register_state_dict_pre_hook(_refuse)
    model.register_load_state_dict_pre_hook(_refuse)
    model.provenance = {**model.provenance, MARK: True}
    return model


def is_optimised(model: DPMesh) -> bool:
    """Whether `optimised` made this model."""
    return MARK in model.provenance


def _refuse(*_: Any) -> None:
    raise WeightsError(
        "an optimised model has no weights to save or to load",
        fix="Save first; optimise what from_pretrained gives.",
    )
