"""The device that a model runs on, and its precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

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


TYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Types that `cast_module` is used with."""


def cast_module(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module's weights to `dtype`, its positional inputs on entry, and its outputs back to fp32, in place.

    Does nothing where the weights have that type already.
    """
    if all(p.dtype == dtype for p in module.parameters()):
        return
    module.to(dtype)
    module.register_forward_pre_hook(lambda _module, args: _cast(args, dtype))
    module.register_forward_hook(lambda _module, _args, out: _cast(out, torch.float32))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Every tensor inside nested lists, tuples and dictionaries, cast."""
    if isinstance(value, Tensor):
        return value.to(dtype)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _cast(item, dtype) for key, item in items}
    return type(value)(_cast(item, dtype) for item in value)  # lists and tuples
