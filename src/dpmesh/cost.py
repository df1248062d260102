"""What a model costs: parameters and multiply-adds of each part, for one person."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpmesh.geometry import CROP
from dpmesh.model import DPMesh, Inputs

PARTS = (
    "prompt",
    "backbone.vae",
    "backbone.controlnet",
    "backbone.unet",
    "backbone.fusion",
    "backbone.reading",
    "regressor",
    "pose_tokens",
    "pose_prior",
    "body",
)
"""Every parameter of DPMesh belongs to exactly one of these."""


def describe(source: str) -> dict[str, Any]:
    """Report on a configuration's name or a weights folder: parameters (all, trainable), GFLOP and share of each part.

    FLOP = 2 × multiply-add of matrix products and convolutions (torch.utils.flop_counter), batch 1.
    """
    model = DPMesh.from_pretrained(source) if Path(source).is_dir() else DPMesh.from_config(source)
    flops = count_flops(model)
    total = flops["total"]
    parts = {
        name: {
            **_parameters(model.get_submodule(name)),
            "gflop": flops[name] / 1e9,
            "share": flops[name] / total,
        }
        for name in PARTS
    }
    return {
        "name": model.config.name,
        "crop": CROP,
        "parts": parts,
        "total": {**_parameters(model), "gflop": total / 1e9, "share": 1.0},
        "provenance": model.provenance,
    }


def count_flops(model: DPMesh) -> dict[str, int]:
    """Part -> FLOP of one forward pass of one person; "total" besides."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:  # the counter's hooks stumble over parameters that want gradients
        parameter.requires_grad_(False)
    inputs = Inputs(
        torch.rand(1, 3, CROP, CROP), torch.rand(1, 30, 2) * CROP, torch.ones(1, 30), torch.full((1,), 1000.0)
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs)
    for parameter in trainable:
        parameter.requires_grad_(True)
    counted = counter.get_flop_counts()
    # A part used through other methods than forward is known by its layers; one with products of its own, by itself.
    found = {
        part: _sum(counted, f"{type(model).__name__}.{part}", model.get_submodule(part)) for part in PARTS
    }
    return {**found, "total": counter.get_total_flops()}


def _sum(counted: dict[str, dict[Any, int]], name: str, module: nn.Module) -> int:
    own = sum(counted.get(name, {}).values())
    children = sum(_sum(counted, f"{name}.{child}", sub) for child, sub in module.named_children())
    return max(own, children)


def _parameters(module: nn.Module) -> dict[str, int]:
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "trainable": sum(p.numel() for p in module.parameters() if p.requires_grad),
    }
