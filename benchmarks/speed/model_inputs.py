"""Random people for benchmarks of a model's speed."""

import torch

from dpmesh.geometry import CROP
from dpmesh.types import Inputs


def inputs(batch: int = 1, device: str = "cpu") -> Inputs:
    g = torch.Generator().manual_seed(0)
    data = (
        torch.rand(batch, 3, CROP, CROP, generator=g),
        torch.rand(batch, 30, 2, generator=g) * CROP,
        torch.ones(batch, 30),
        torch.full((batch,), 1000.0),
    )
    return Inputs(*(one.to(device) for one in data))
