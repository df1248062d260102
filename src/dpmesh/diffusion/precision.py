"""Run single modules of a model in another floating-point type than the rest."""

from typing import Any, cast

import torch
from torch import Tensor, nn

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
