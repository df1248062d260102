"""A first answer from the joints' coordinates alone, for the decoder to start from. Not in the paper.

A residual MLP on all coordinates side by side (Martinez et al., ICCV 2017). A query that gathers thirty places by
attention sees sums of them; here each joint has weights of its own, which is what lifting to 3D needs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

GIVEN, READ = 3, 5  # numbers for each joint: x, y, seen · x, y, z, sure, there


class Lifted(NamedTuple):
    """state: (b, w), what the decoder's queries are told. The rest as in Regression; joints_img as logits."""

    state: Tensor
    root_6d: Tensor
    pose_code: Tensor
    betas: Tensor
    camera: Tensor
    joints_logits: Tensor


class Lifter(nn.Module):
    """width, layers: of the residual MLP. places: how many joints are placed in image space."""

    def __init__(self, joints: int, width: int, layers: int, pose_code: int, places: int) -> None:
        super().__init__()
        self.enter = nn.Linear(joints * (GIVEN + READ), width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.root = nn.Linear(width, 6)
        self.pose = nn.Linear(width, pose_code)
        self.shape = nn.Linear(width, 10)
        self.camera = nn.Linear(width, 3)
        self.place = nn.Linear(width, 3 * places)

    def forward(self, given: Float[Tensor, "b j 3"], read: Float[Tensor, "b j 4"] | None) -> Lifted:
        """given: x and y of the keypoints as fractions of the crop, and 1 where they are seen. read: the joints
        read off the picture (JointsRead.summary); zeros, or None, where none were."""
        x = self.enter(torch.cat([given_numbers(given), read_numbers(given, read)], dim=-1).flatten(1))
        for layer in self.layers:
            x = x + layer(x)
        state = self.norm(x)
        return Lifted(
            state,
            self.root(state),
            self.pose(state),
            self.shape(state),
            self.camera(state),
            self.place(state).unflatten(-1, (-1, 3)),
        )


def given_numbers(given: Tensor) -> Float[Tensor, "b j 3"]:
    """Coordinates about the crop's middle, about one in size, and zero where nothing is seen."""
    visible = given[..., 2:]
    return torch.cat([(given[..., :2] - 0.5) * 4, torch.ones_like(visible)], -1) * visible


def read_numbers(given: Tensor, read: Tensor | None) -> Float[Tensor, "b j 5"]:
    """x and y about the crop's middle, depth and sureness about one in size, and 1; zeros where nothing was read."""
    if read is None:
        return given.new_zeros(*given.shape[:2], READ)
    there = (read[..., 3:] > 0).to(read.dtype)
    numbers = [(read[..., :2] - 0.5) * 4, 4 * read[..., 2:3], 10 * read[..., 3:], torch.ones_like(there)]
    return torch.cat(numbers, -1) * there
