"""A part of a model that computes in a smaller type, among others that do not."""

from typing import Any, cast

import torch
from torch import Tensor, nn

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def run_in(part: nn.Module, dtype: torch.dtype) -> None:
    """Weights, inputs and activations in one type; what comes out is fp32, so that nobody else has to know.

    Does nothing where the part's weights are of that type already.
    """
    if all(p.dtype == dtype for p in part.parameters()):
        return
    part.to(dtype)
    part.register_forward_pre_hook(lambda _part, args: _cast(args, dtype))
    part.register_forward_hook(lambda _part, _args, out: _cast(out, torch.float32))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _cast(item, dtype) for key, item in items}
    return type(value)(
        _cast(item, dtype) for item in value
    )  # the parts give and take nothing but lists and tuples
