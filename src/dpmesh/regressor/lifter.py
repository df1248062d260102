"""A residual MLP that estimates the body from the joints' coordinates, for the decoder to refine. Not in the paper.

Lifting in the manner of Martinez et al. (ICCV 2017): the coordinates of all joints are one vector, so each joint has
weights of its own. A query that gathers thirty joints by attention sees weighted sums of them instead.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

KEYPOINT, READING = 3, 5
"""Numbers for each joint, from `encode_keypoints` and `encode_readings`."""


class Lifted(NamedTuple):
    """Output of the lifter; fields as in cascade.Regression."""

    state: Float[Tensor, "b w"]
    """Hidden state, added to the decoder's queries."""
    root_6d: Float[Tensor, "b 6"]
    pose_code: Float[Tensor, "b p"]
    betas: Float[Tensor, "b 10"]
    camera: Float[Tensor, "b 3"]
    joints_logits: Float[Tensor, "b 15 3"]
    """Logits of joints_img."""


class Lifter(nn.Module):
    """Keypoints and joint readings in, a first estimate of the body out."""

    def __init__(self, joints: int, width: int, layers: int, pose_code: int, places: int) -> None:
        """joints: read. width, layers: of the residual MLP. pose_code: numbers of the pose code. places: joints placed
        in image space."""
        super().__init__()
        self.enter = nn.Linear(joints * (KEYPOINT + READING), width)
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

    def forward(self, keypoints: Float[Tensor, "b j 3"], readings: Float[Tensor, "b j 4"] | None) -> Lifted:
        """keypoints: x and y as fractions of the crop, and 1 where visible. readings: joints read off the image
        (JointReadings.summary); None, or zeros for single joints, where there are none."""
        numbers = torch.cat([encode_keypoints(keypoints), encode_readings(keypoints, readings)], dim=-1)
        x = self.enter(numbers.flatten(1))
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


def encode_keypoints(keypoints: Float[Tensor, "b j 3"]) -> Float[Tensor, "b j 3"]:
    """x and y from the middle of the crop, scaled to about 1, and 1; zeros where the keypoint is not visible."""
    visible = keypoints[..., 2:]
    return torch.cat([(keypoints[..., :2] - 0.5) * 4, torch.ones_like(visible)], -1) * visible


def encode_readings(
    keypoints: Float[Tensor, "b j 3"], readings: Float[Tensor, "b j 4"] | None
) -> Float[Tensor, "b j 5"]:
    """x and y from the middle of the crop, depth and confidence, scaled to about 1, and 1; zeros for joints without a
    reading (confidence 0)."""
    if readings is None:
        return keypoints.new_zeros(*keypoints.shape[:2], READING)
    present = (readings[..., 3:] > 0).to(readings.dtype)
    numbers = [
        (readings[..., :2] - 0.5) * 4,
        4 * readings[..., 2:3],
        10 * readings[..., 3:],
        torch.ones_like(present),
    ]
    return torch.cat(numbers, -1) * present
