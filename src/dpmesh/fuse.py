"""The same function, faster: `optimised` makes a loaded model an inference-only one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dpmesh.diffusion.lora import merge_lora
from dpmesh.diffusion.unet import EncoderHalf
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.model import DPMesh

MARK = "optimised"
"""In the provenance of such a model."""


def optimised(
    model: DPMesh,
    *,
    dtype: torch.dtype | None = None,
    compile: bool | Mapping[str, Any] = False,
) -> DPMesh:
    """Change the model in place (it may be half of the memory) into one that answers the same, and return it.

    The timestep is folded into biases and low-rank updates into their layers; both are exact up to rounding. It
    then wants no gradients, and refuses to be saved or loaded: save first, optimise after loading.

    dtype: as DPMesh.run_backbone_in; None leaves it as it is.
    compile: True, or arguments for torch.compile: {"mode": "reduce-overhead"} captures CUDA graphs.

    Raises ConfigError for a model that is optimised already.
    """
    if is_optimised(model):
        raise ConfigError("the model is optimised already", where="optimised")
    backbone = model.eval().requires_grad_(False).backbone
    merge_lora(backbone)
    for part in backbone.modules():
        if isinstance(part, EncoderHalf):
            part.fold_time()
    if dtype is not None:
        model.run_backbone_in(dtype)
    if compile is not False:
        backbone.compile(**({} if compile is True else compile))
    model.register_state_dict_pre_hook(_refuse_saving)
    model.register_load_state_dict_pre_hook(_refuse)
    model.provenance = {**model.provenance, MARK: True}
    return model


def is_optimised(model: DPMesh) -> bool:
    """Whether `optimised` made this model."""
    return MARK in model.provenance


def _refuse_saving(_model: nn.Module, _prefix: str, keep_vars: bool) -> None:
    if not keep_vars:  # the ONNX exporter asks for the live tensors, a file never does
        _refuse()


def _refuse(*_: Any) -> None:
    raise WeightsError(
        "an optimised model has no weights to save or to load",
        fix="Save first; optimise what from_pretrained gives.",
    )
