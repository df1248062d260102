"""What a model costs: parameters and multiply-adds of each part, for one person.

Counted on torch's meta device: shapes without numbers, so that 1.3 thousand million parameters need no memory.
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
    """Report on a configuration's name or a weights folder: parameters (all, trainable), GFLOP and share of each part.

    FLOP = 2 × multiply-add of matrix products and convolutions (torch.utils.flop_counter), batch 1. Of a folder only
    the configuration is read.
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
    """A row for each model of the paper's Table 4 and of the same at the embedded model's widths ("small"), the base
    last in each group: group, name, parameters, trainable, GFLOP, and how much of the parameters and GFLOP is the
    backbone's. Raises ConfigError without timm."""
    groups = [*ABLATIONS.items(), *((f"small {what}", rows) for what, rows in SMALL_ABLATIONS.items())]
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
    """The model on the meta device, in evaluation mode."""
    with torch.device("meta"):
        return DPMesh(config.as_stored()).to("meta").eval()


@lru_cache(maxsize=16)
def check_buildable(config: DPMeshConfig) -> None:
    """Raise ConfigError where no model can be made with these sizes, or none that makes a body of a crop: what the
    config's own checks did not foresee. Takes a second or two, and no memory."""
    if config.regressor.joints != 15:  # every loss and file has as many
        raise ConfigError(f"joints={config.regressor.joints} must be 15", where="model.regressor")
    try:
        with torch.no_grad():
            build_on_meta(config)(_example_inputs(torch.device("meta")))
    except DPMeshError:
        raise
    except Exception as error:  # whatever torch makes of sizes that do not go together
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(f"a model with these sizes cannot work ({line})", where="model") from error


def part_names(model: DPMesh) -> list[str]:
    """Names of modules of which every parameter belongs to exactly one: the model's own, the backbone's one by one."""
    inside = [f"backbone.{name}" for name, _ in model.backbone.named_children()]
    return [*inside, *(name for name, _ in model.named_children() if name != "backbone")]


def count_flops(model: DPMesh) -> dict[str, int]:
    """Part -> FLOP of one forward pass of one person on the model's own device; "total" besides.

    On a CPU the counter does not know the fused attention; on the meta device it sees its two products.
    """
    device = next(model.parameters()).device
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:  # the counter's hooks stumble over parameters that want gradients
        parameter.requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(_example_inputs(device))
    for parameter in trainable:
        parameter.requires_grad_(True)
    counted = counter.get_flop_counts()
    # A part used through other methods than forward is known by its layers; one with products of its own, by itself.
    found = {
        part: _sum(counted, f"{type(model).__name__}.{part}", model.get_submodule(part))
        for part in part_names(model)
    }
    return {**found, "total": counter.get_total_flops()}


def _example_inputs(device: torch.device) -> Inputs:
    with device:
        return Inputs(
            torch.rand(1, 3, CROP, CROP),
            torch.rand(1, 30, 2) * CROP,
            torch.ones(1, 30),
            torch.full((1,), 1000.0),
        )


def _sum(counted: dict[str, dict[Any, int]], name: str, module: nn.Module) -> int:
    own = sum(counted.get(name, {}).values())
    children = sum(_sum(counted, f"{name}.{child}", sub) for child, sub in module.named_children())
    return max(own, children)


def _parameters(module: nn.Module) -> dict[str, int]:
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "trainable": sum(p.numel() for p in module.parameters() if p.requires_grad),
    }
