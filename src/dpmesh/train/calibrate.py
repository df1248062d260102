"""The calibration of the uncertainty: two numbers a joint, fitted on people that nothing was trained on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.losses import uncertainty_term
from dpmesh.regressor.uncertainty import UncertaintyHead

SLOPE = 3.0
"""No slope beyond this, or below its inverse: with few people the fit could even turn the order round."""


def calibrate(
    head: UncertaintyHead,
    log_scale: Float[Tensor, "n 30"],
    joints3d: Float[Tensor, "n 30 3"],
    truth: Float[Tensor, "n 30 3"],
    known: Float[Tensor, "n 30"],
) -> None:
    """Set the head's offset and slope to those under which the errors are the most likely (losses.uncertainty_term),
    for each joint alone. log_scale: as the head tells it, not calibrated."""
    log_scale, joints3d, truth, known = (x.detach().double() for x in (log_scale, joints3d, truth, known))
    offset = torch.zeros(log_scale.shape[1], dtype=torch.float64, device=log_scale.device, requires_grad=True)
    bend = torch.zeros_like(offset).requires_grad_()
    middle = log_scale.mean(0)  # about it offset and slope hardly depend on each other
    optimiser = torch.optim.LBFGS([offset, bend], max_iter=200, line_search_fn="strong_wolfe")

    def slope() -> Tensor:
        return (math.log(SLOPE) * torch.tanh(bend)).exp()

    def closure() -> Tensor:
        optimiser.zero_grad()
        scaled = middle + offset + slope() * (log_scale - middle)
        cost = uncertainty_term(scaled, joints3d, truth, known)
        cost.backward()
        return cost

    with torch.enable_grad():
        optimiser.step(closure)  # pyright: ignore[reportUnknownMemberType]
    with torch.no_grad():
        found = slope()
        head.get_buffer("slope").copy_(found)
        head.get_buffer("offset").copy_(middle + offset - found * middle)
