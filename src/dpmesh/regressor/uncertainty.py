"""How far each joint of the answer may be off: a standard deviation, told beside the answer. Not in the paper.

The head sees what the answer was made from and the answer itself, all with gradients stopped: it cannot change a body,
neither where it is used nor while it is trained.

The model of the error: the position of a joint less the pelvis' is a trivariate Student t about the answer, the same in
every direction, with TAILS degrees of freedom and a scale that the head tells. Its tails are heavy because a limb is
now and then found on the wrong side; under a normal distribution these few would widen every sigma (docs/embedded.md
has the measured coverage). Its standard deviation along each axis, sqrt(TAILS / (TAILS - 2)) scales, is what is told.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.geometry import CROP
from dpmesh.regressor.lifter import GIVEN, READ, given_numbers, read_numbers
from dpmesh.regressor.transformer import EncoderLayer

TAILS = 5.0
"""Degrees of freedom."""
LEAST, MOST = 0.005, 2.0
"""Metres: no scale is told outside these bounds (before the calibration)."""
START = 0.06
"""Metres: every scale before the training."""
DEVIATION = math.sqrt(TAILS / (TAILS - 2))
"""Standard deviations in a scale."""
_OWN = GIVEN + READ + 13
"""Numbers of each joint, besides what is sampled off the map (_of_joints)."""


@dataclass(frozen=True)
class Evidence:
    """What an answer was made from. given, read: as Lifter.forward. looked_at: the encoded 2D map (b, 64, c), None
    where no picture was looked at. state: (b, n) the lifter's, then the last pose, shape and camera tokens; zeros for
    what there is not."""

    given: Tensor
    read: Tensor | None
    looked_at: Tensor | None
    state: Tensor

    def detached(self) -> "Evidence":
        """The same numbers in fp32, from which no gradient goes back."""
        read, looked_at = (None if x is None else x.detach().float() for x in (self.read, self.looked_at))
        return Evidence(self.given.detach().float(), read, looked_at, self.state.detach().float())


class UncertaintyHead(nn.Module):
    """joints; width: of a token for each of them, which talk twice. looked_at, state, answer: numbers in each.

    offset, slope: the calibration (`calibrated`), fitted on people that nothing was trained on
    (train/objectives/uncertainty.py); stored with the weights, 0 and 1 without.
    """

    def __init__(
        self, joints: int, width: int, heads: int, looked_at: int, state: int, answer: int, layers: int = 2
    ) -> None:
        super().__init__()
        self.looked_at = looked_at
        self.of_joint = nn.Linear(_OWN + looked_at, width)
        everything = state + answer + looked_at + 1
        self.of_person = nn.Sequential(nn.LayerNorm(everything), nn.Linear(everything, width))
        self.which = nn.Parameter(torch.randn(joints, width) * 0.02)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, 2 * width) for _ in range(layers))
        self.out = nn.Parameter(torch.zeros(joints, width))
        start = math.log(START / LEAST) / math.log(MOST / LEAST)
        self.bias = nn.Parameter(torch.full((joints,), math.log(start / (1 - start))))
        self.register_buffer("offset", torch.zeros(joints))
        self.register_buffer("slope", torch.ones(joints))

    def forward(
        self,
        evidence: Evidence,
        answer: Float[Tensor, "b n"],
        joints3d: Float[Tensor, "b j 3"],
        joints2d: Float[Tensor, "b j 2"],
    ) -> Float[Tensor, "b j"]:
        """Natural logarithm of each scale, metres, not calibrated. answer: as regressed, all side by side; joints3d
        (metres, the first is the pelvis), joints2d (crop pixels): its body's."""
        evidence = evidence.detached()
        places = (joints2d.detach().float() / CROP).clamp(-1, 2)
        sampled, mean = self._looked_at(evidence, places)
        own = _of_joints(evidence, joints3d.detach().float(), places)
        person = self.of_person(torch.cat([evidence.state, answer.detach().float(), mean], -1))
        x = self.of_joint(torch.cat([own, sampled], -1)) + person[:, None]
        for layer in self.layers:
            x = layer(x, self.which[None])
        log_least, span = math.log(LEAST), math.log(MOST / LEAST)
        return log_least + span * torch.sigmoid((x * self.out).sum(-1) + self.bias)

    def calibrated(self, log_scale: Float[Tensor, "b j"]) -> Float[Tensor, "b j"]:
        """ln s to offset + slope · ln s, joint by joint."""
        return self.get_buffer("offset") + self.get_buffer("slope") * log_scale

    def sigma(self, log_scale: Float[Tensor, "b j"]) -> Float[Tensor, "b j"]:
        """Metres: the calibrated standard deviation along each axis; 0 for the pelvis, from which the others are
        told."""
        told = DEVIATION * self.calibrated(log_scale).exp()
        return torch.cat([torch.zeros_like(told[:, :1]), told[:, 1:]], 1)

    def _looked_at(self, evidence: Evidence, places: Tensor) -> tuple[Tensor, Tensor]:
        """(b, j, c) of the map where the joints are thought to be, zeros outside; (b, c + 1) its mean, and 1."""
        people, joints = places.shape[:2]
        if evidence.looked_at is None:
            return places.new_zeros(people, joints, self.looked_at), places.new_zeros(
                people, self.looked_at + 1
            )
        tokens = evidence.looked_at  # (b, 64, c)
        side = math.isqrt(int(tokens.shape[1]))
        grid = tokens.transpose(1, 2).reshape(-1, self.looked_at, side, side)
        found = F.grid_sample(grid, places[:, None] * 2 - 1, align_corners=False)
        return found[:, :, 0].transpose(1, 2), F.pad(tokens.mean(1), (0, 1), value=1.0)


def _of_joints(evidence: Evidence, joints3d: Tensor, places: Tensor) -> Float[Tensor, "b j n"]:
    """What was given and read of each joint, where the answer has it (places: fractions of the crop), and how far the
    three are from each other. All about one in size."""
    given, read = given_numbers(evidence.given), read_numbers(evidence.given, evidence.read)
    seen, there = given[..., 2:], read[..., 4:]
    off_pelvis = joints3d - joints3d[:, :1]
    middled = (places - 0.5) * 4
    off_given = 2 * (middled - given[..., :2]) * seen
    off_read = 2 * (middled - read[..., :2]) * there
    off_depth = (4 * off_pelvis[..., 2:] - read[..., 2:3]) * there
    inside = ((places >= 0) & (places < 1)).all(-1, keepdim=True).to(places.dtype)
    lengths = [off.square().sum(-1, keepdim=True).sqrt() for off in (off_given, off_read)]
    return torch.cat(
        [given, read, middled, 2 * off_pelvis, off_given, off_read, off_depth, inside, *lengths], -1
    )
