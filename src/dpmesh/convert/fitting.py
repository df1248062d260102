"""Tensors under our names made to fit one model: 1×1 convolutions as linear layers, LoRA kept, merged or added."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dpmesh.config import DPMeshConfig
from dpmesh.model import DPMesh

Shapes = dict[str, tuple[int, ...]]
DOWN, UP, BASE = "lora_down.weight", "lora_up.weight", "linear"


def wanted_shapes(config: DPMeshConfig) -> Shapes:
    """Every tensor of the model's state, without the numbers."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in DPMesh(config).state_dict().items()}


def fit(found: Mapping[str, Tensor], wanted: Shapes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors as the model wants them, new name -> the name it came by). Names and shapes are not checked yet.

    Where the model has a plain layer and the tensors an adapted one, the update is merged (W + up · down, in fp32);
    where it is the other way round, the plain weights become the adapted layer's base.
    """
    fitted = dict(found)
    came = {name: name for name in found}
    for name in found:
        stem, _, leaf = name.rpartition(".")
        if name.endswith(f".{DOWN}"):
            stem = name.removesuffix(f".{DOWN}")
            if f"{stem}.weight" in wanted and {f"{stem}.{UP}", f"{stem}.{BASE}.weight"} <= found.keys():
                _merge(fitted, came, stem)
        elif name not in wanted and f"{stem}.{BASE}.{leaf}" in wanted:
            _rename(fitted, came, name, f"{stem}.{BASE}.{leaf}")
    for name, value in fitted.items():
        if value.ndim == 4 and value.shape[2:] == (1, 1) and wanted.get(name) == tuple(value.shape[:2]):
            fitted[name] = value[:, :, 0, 0]
    return fitted, came


def _merge(fitted: dict[str, Tensor], came: dict[str, str], stem: str) -> None:
    up, down = fitted.pop(f"{stem}.{UP}").float(), fitted.pop(f"{stem}.{DOWN}").float()
    base = fitted[f"{stem}.{BASE}.weight"].float()
    if up.ndim == down.ndim == base.ndim == 2 and (up.shape[0], down.shape[1]) == tuple(base.shape):
        fitted[f"{stem}.{BASE}.weight"] = torch.addmm(base, up, down)
    for leaf in ("weight", "bias"):
        if f"{stem}.{BASE}.{leaf}" in fitted:
            _rename(fitted, came, f"{stem}.{BASE}.{leaf}", f"{stem}.{leaf}")


def _rename(fitted: dict[str, Tensor], came: dict[str, str], old: str, new: str) -> None:
    fitted[new] = fitted.pop(old)
    came[new] = came.pop(old)
