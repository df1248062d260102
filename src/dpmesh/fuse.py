"""Faster inference: fold the timestep and LoRA into the weights, change the precision, compile."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dpmesh.backbone.diffusion import DiffusionBackbone
from dpmesh.diffusion.lora import merge_lora
from dpmesh.diffusion.unet import EncoderHalf
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.model import DPMesh

MARK = "optimised"
"""Key in the provenance of an optimised model."""


def optimise_for_inference(
    model: DPMesh,
    *,
    dtype: torch.dtype | None = None,
    compile: bool | Mapping[str, Any] = False,
) -> DPMesh:
    """Optimise a loaded model for inference, in place (a copy could need half of the memory), and return it.

    Folds the timestep embedding into biases and LoRA updates into their layers; the outputs are the same up to
    rounding. Afterwards the model has no gradients and refuses to be saved or loaded.

    dtype: as DPMesh.set_backbone_dtype; None keeps the type.
    compile: True, or arguments for torch.compile: {"mode": "reduce-overhead"} captures CUDA graphs.

    Raises ConfigError for a model that is optimised already.
    """
    if is_optimised(model):
        raise ConfigError("the model is optimised already", where="optimise_for_inference")
    backbone = model.eval().requires_grad_(False).backbone
    merge_lora(backbone)
    for part in backbone.modules():
        if isinstance(part, EncoderHalf):
            part.fold_time()
    if dtype is not None:
        model.set_backbone_dtype(dtype)
    if compile is not False:
        # The VAE runs outside of the backbone's forward: two graphs.
        for part in (backbone.vae, backbone) if isinstance(backbone, DiffusionBackbone) else (backbone,):
            part.compile(**({} if compile is True else compile))
    model.register_state_dict_pre_hook(_refuse_saving)
    model.register_load_state_dict_pre_hook(_refuse)
    model.provenance = {**model.provenance, MARK: True}
    return model


def is_optimised(model: DPMesh) -> bool:
    """Whether `optimise_for_inference` has changed this model."""
    return MARK in model.provenance


def _refuse_saving(_model: nn.Module, _prefix: str, keep_vars: bool) -> None:
    if not keep_vars:  # the ONNX exporter asks for the live tensors, saving does not
        _refuse()


def _refuse(*_: Any) -> None:
    raise WeightsError(
        "an optimised model cannot be saved or loaded",
        fix="Save first; optimise the model that from_pretrained returns.",
    )
