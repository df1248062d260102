"""Where a model runs, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

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
