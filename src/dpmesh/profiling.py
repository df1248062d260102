"""Parameters and multiply-adds of a model and its parts, for one person.

Counted on torch's meta device (shapes without values), so that 1.3 billion parameters need no memory.
"""

import os
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpmesh.ablations import ABLATIONS, SMALL_ABLATIONS, configuration
from dpmesh.checkpoint import CONFIG, Provenance, building, read_config
from dpmesh.config import DPMeshConfig
from dpmesh.config_io import from_dict
from dpmesh.errors import ConfigError, DPMeshError
from dpmesh.geometry import CROP
from dpmesh.model import DPMesh
from dpmesh.types import Inputs


def describe(source: str) -> dict[str, Any]:
    """Parameters (all, trainable), GFLOP and share of the GFLOP of each part and in total, as JSON.

    source: name of a configuration, or a weights folder, of which only the configuration is read. FLOP = 2 ×
    multiply-adds of matrix products and convolutions (torch.utils.flop_counter), batch 1.
    Raises ConfigError, WeightsError.
    """
    config, provenance = _read(source)
    with building(Path(source)) if os.path.isdir(source) else nullcontext():
        model = build_on_meta(config)
        flops = count_flops(model)
    total = flops["total"]
    parts = {
        name: {
            **_parameters(model.get_submodule(name)),
            "gflop": flops[name] / 1e9,
            "share": flops[name] / total,
        }
        for name in part_names(model)
    }
    return {
        "name": config.name,
        "crop": CROP,
        "parts": parts,
        "total": {**_parameters(model), "gflop": total / 1e9, "share": 1.0},
        "provenance": provenance,
    }


def describe_ablations() -> list[dict[str, Any]]:
    """A row for each model of the paper's Table 4, and of the same table at the widths of `embedded` ("small").

    The base model is the last row of each group.
    Columns: group, name, parameters, trainable, gflop, backbone_parameters, backbone_gflop. Raises ConfigError without
    timm.
    """
    groups = [*ABLATIONS.items(), *((f"small {group}", rows) for group, rows in SMALL_ABLATIONS.items())]
    names = dict.fromkeys(config.name for _, rows in groups for config in rows)
    counted = {name: _row(describe(name)) for name in names}
    return [{"group": group, **counted[config.name]} for group, rows in groups for config in rows]


def _row(report: dict[str, Any]) -> dict[str, Any]:
    inside = [part for name, part in report["parts"].items() if name.startswith("backbone.")]
    return {
        "name": report["name"],
        **{key: report["total"][key] for key in ("parameters", "trainable", "gflop")},
        "backbone_parameters": sum(part["parameters"] for part in inside),
        "backbone_gflop": sum(part["gflop"] for part in inside),
    }


def _read(source: str) -> tuple[DPMeshConfig, Provenance]:
    if not os.path.isdir(source):
        return configuration(source), {}
    plain, provenance = read_config(Path(source))
    with building(Path(source) / CONFIG):
        return from_dict(DPMeshConfig, plain, where=str(Path(source) / CONFIG)), provenance


def build_on_meta(config: DPMeshConfig) -> DPMesh:
    """The model on the meta device, in evaluation mode: shapes without values."""
    with torch.device("meta"):
        return DPMesh(config.as_stored()).to("meta").eval()


@lru_cache(maxsize=16)
def check_buildable(config: DPMeshConfig) -> None:
    """Raise ConfigError where a model of these sizes cannot be built, or its forward pass fails.

    Finds what the checks of the config classes do not cover. Takes a second or two, and no memory.
    """
    if config.regressor.joints != 15:  # all losses and files have 15
        raise ConfigError(f"joints={config.regressor.joints} must be 15", where="model.regressor")
    try:
        with torch.no_grad():
            build_on_meta(config)(_example_inputs(torch.device("meta")))
    except DPMeshError:
        raise
    except Exception as error:  # whatever torch raises for sizes that do not match
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(f"a model with these sizes cannot work ({line})", where="model") from error


def part_names(model: DPMesh) -> list[str]:
    """Names of submodules that together hold every parameter once: the model's, with the backbone's in its place."""
    inside = [f"backbone.{name}" for name, _ in model.backbone.named_children()]
    return [*inside, *(name for name, _ in model.named_children() if name != "backbone")]


def count_flops(model: DPMesh) -> dict[str, int]:
    """FLOP of one forward pass of one person on the model's device, by part, and "total".

    On a CPU the counter misses the fused attention; on the meta device it counts its two products.
    """
    device = next(model.parameters()).device
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:  # the counter's hooks fail on parameters with gradients
        parameter.requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(_example_inputs(device))
    for parameter in trainable:
        parameter.requires_grad_(True)
    counted = counter.get_flop_counts()
    flops = {
        part: _sum(counted, f"{type(model).__name__}.{part}", model.get_submodule(part))
        for part in part_names(model)
    }
    return {**flops, "total": counter.get_total_flops()}


def _example_inputs(device: torch.device) -> Inputs:
    """One person with random values."""
    with device:
        return Inputs(
            torch.rand(1, 3, CROP, CROP),
            torch.rand(1, 30, 2) * CROP,
            torch.ones(1, 30),
            torch.full((1,), 1000.0),
        )


def _sum(counted: dict[str, dict[Any, int]], name: str, module: nn.Module) -> int:
    """FLOP of a module: its own count, or that of its children where it is used through other methods than forward."""
    own = sum(counted.get(name, {}).values())
    children = sum(_sum(counted, f"{name}.{child}", sub) for child, sub in module.named_children())
    return max(own, children)


def _parameters(module: nn.Module) -> dict[str, int]:
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "trainable": sum(p.numel() for p in module.parameters() if p.requires_grad),
    }
