"""Which people of which step: the unit in which batches are made and random numbers are drawn."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Part(NamedTuple):
    """Part `number` of `of` equal parts of the batch of step `step`.

    Processes and accumulation cut a batch into parts. What is drawn for people is drawn for the whole batch and then
    cut, so that the same people meet the same chances however the batch is cut.
    """

    seed: int
    step: int
    number: int = 0
    of: int = 1

    @property
    def joint_seed(self) -> int:
        """Of the whole batch."""
        return self.seed * 1_000_003 + self.step

    @property
    def own_seed(self) -> int:
        """Of this part alone, for draws that nobody needs to repeat with another cut."""
        return self.joint_seed * self.of + self.number

    def chance(self, *shape: int, salt: int = 0) -> Float[Tensor, "*s"]:
        """Uniform numbers in [0, 1) on the CPU; the last dimension is people. salt: another series for another use."""
        *rows, people = shape
        draw = torch.Generator().manual_seed(self.joint_seed + salt)
        return self.cut(torch.rand(*rows, people * self.of, generator=draw), people)

    def normal(self, *shape: int, salt: int = 0) -> Float[Tensor, "*s"]:
        """As `chance`, of the normal distribution; the first dimension is people."""
        people, *rest = shape
        draw = torch.Generator().manual_seed(self.joint_seed + salt)
        start = self.number * people
        return torch.randn(people * self.of, *rest, generator=draw)[start : start + people]

    def cut(self, values: Tensor, people: int) -> Tensor:
        """This part's columns."""
        return values[..., self.number * people : (self.number + 1) * people]


def parts_of(seed: int, steps: range, micro: int, rank: int, world: int) -> Iterator[Part]:
    """Of each step this process's parts, one for each of the `micro` rounds of accumulation."""
    return (Part(seed, step, k * world + rank, micro * world) for step in steps for k in range(micro))
