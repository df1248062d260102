"""The device that a model runs on, and its precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from dpmesh.errors import ConfigError

KINDS = ("cpu", "cuda", "mps")


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast; null for a device that has none ("meta")."""
    autocasts = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if autocasts else nullcontext()


def pick_device(name: str | torch.device) -> torch.device:
    """A torch device from "auto" (CUDA if available, else the CPU), "cpu", "cuda", "cuda:1", "mps" or a torch.device.

    Raises ConfigError for an unknown or unavailable one.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in KINDS:
        raise ConfigError(
            f"unknown device {str(name)[:40]!r}",
            where="device",
            fix="Choose of auto, cpu, cuda, cuda:1, mps.",
        )
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    count = counts[device.type]
    if not count:
        raise ConfigError(f"{device} is not available here", where="device", fix="Use --device auto.")
    if (device.index or 0) >= count:
        last = f"{device.type}:0" if count == 1 else f"{device.type}:0 to {device.type}:{count - 1}"
        raise ConfigError(f"{device} is not available here", where="device", fix=f"There is {last}.")
    return device
