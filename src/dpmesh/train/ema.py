"""An exponential moving average of the trained weights."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """decay: of each step; min(decay, (1 + n) / (10 + n)) in step n, so that the first weights are forgotten soon."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in _trained(module).items()}

    @torch.no_grad()
    def follow(self, module: nn.Module, step: int) -> None:
        """Update after step number `step` (from 1)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        current = _trained(module)
        for name, value in self.values.items():
            value.lerp_(current[name].detach(), 1 - keep)

    @contextmanager
    def in_place(self, module: nn.Module) -> Generator[None, None, None]:
        """Within it the module has the averaged weights."""
        own = {name: p.detach().clone() for name, p in _trained(module).items()}
        self._put(module, self.values)
        yield
        self._put(module, own)

    @torch.no_grad()
    def _put(self, module: nn.Module, values: dict[str, Tensor]) -> None:
        for name, p in _trained(module).items():
            p.copy_(values[name])


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
