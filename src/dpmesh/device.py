"""Where a model runs, and in which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from dpmesh.errors import ConfigError


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast here. A device without it ("meta", which only counts) needs nothing done."""
    there = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if there else nullcontext()


def pick_device(name: str) -> torch.device:
    """A torch device; "auto" takes CUDA where it works, else the CPU (MPS only when asked for)."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in there:
        raise ConfigError(f"unknown device {name!r}", where="device", fix="Choose of auto, cpu, cuda, mps.")
    if not there[name]:
        raise ConfigError(f"{name} is not available here", where="device", fix="Use --device auto.")
    return torch.device(name)
