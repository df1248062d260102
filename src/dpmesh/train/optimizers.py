"""The optimiser of a stage: AdamW for everything, or Muon for the image backbone's matrices and NAdamW for the rest."""

import importlib
from functools import partial
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from dpmesh.backbone.timm import load_timm
from dpmesh.errors import ConfigError
from dpmesh.train.config import Settings
from dpmesh.train.objectives.base import Group


def make_optimizer(groups: list[Group], rate: float, settings: Settings, *, sharded: bool) -> Optimizer:
    """The optimiser with a parameter group for each of `groups`, which keeps its `factor` on the rate `rate`.

    sharded: under FSDP no process has a whole matrix, which Muon needs. Raises ConfigError for that, and without timm.
    """
    param_groups: list[dict[str, Any]] = [
        {
            "params": group.parameters,
            "factor": group.factor,
            "weight_decay": 0.0 if group.loss_weights else settings.weight_decay,
        }
        for group in groups
    ]
    betas = (settings.betas[0], settings.betas[1])
    if settings.optimizer == "adamw":
        return AdamW(param_groups, lr=rate, betas=betas, fused=not sharded)
    if sharded:
        raise ConfigError(
            "muon needs whole matrices, and under fsdp no process has one",
            where="optimizer",
            fix='Take strategy = "ddp", or optimizer = "adamw".',
        )
    load_timm("the optimiser muon")
    module: Any = importlib.import_module("timm.optim.muon")
    on_cpu = all(p.device.type == "cpu" for group in groups for p in group.parameters)
    muon = in_fp32(module) if on_cpu else module.Muon
    for group, options in zip(groups, param_groups, strict=True):
        options["use_fallback"] = not group.backbone
    # Steps of the size that AdamW's have (arXiv 2502.16982), so that one rate fits both.
    return muon(param_groups, lr=rate, betas=betas, nesterov=True, adjust_lr_fn="match_rms_adamw")


def in_fp32(module: Any) -> Any:
    """timm's Muon with its products in fp32. It takes bf16, of which a CPU is no faster or, without instructions for
    it, a hundred times slower; timm's function has a `dtype` for that, and its class does not pass one."""
    orthogonal = module.zeropower_via_newtonschulz

    class Muon(module.Muon):
        def step(self, closure: Any = None) -> Any:
            module.zeropower_via_newtonschulz = partial(orthogonal, dtype=torch.float32)
            try:
                return super().step(closure)
            finally:
                module.zeropower_via_newtonschulz = orthogonal

    return Muon
