"""Predicts how far each joint of the body may be off, as a standard deviation. Not in the paper.

The head reads what the body was regressed from and the body itself, all detached: it cannot change a prediction, and
training it does not change the rest of the model.

The model of the error: a joint's position relative to the pelvis is a trivariate Student t around the prediction, the
same in every direction, with TAILS degrees of freedom and the predicted scale. The tails are heavy because a limb is
sometimes predicted on the wrong side; under a normal distribution these few errors would widen every sigma. The
reported standard deviation along each axis is sqrt(TAILS / (TAILS - 2)) times the scale.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.geometry import CROP
from dpmesh.regressor.lifter import KEYPOINT, READING, encode_keypoints, encode_readings
from dpmesh.regressor.transformer import EncoderLayer

TAILS = 5.0
"""Degrees of freedom."""
LEAST, MOST = 0.005, 2.0
"""Bounds of the predicted scale before the calibration, metres."""
START = 0.06
"""Scale of every joint before the training, metres."""
DEVIATION = math.sqrt(TAILS / (TAILS - 2))
"""Standard deviation of a distribution of scale 1."""
_JOINT_NUMBERS = KEYPOINT + READING + 13
"""Input numbers for each joint, without the sampled map (`_joint_numbers`)."""


@dataclass(frozen=True)
class Evidence:
    """What a regression was computed from."""

    keypoints: Float[Tensor, "b j 3"]
    """As Lifter.forward."""
    readings: Float[Tensor, "b j 4"] | None
    """As Lifter.forward."""
    tokens: Float[Tensor, "b 64 c"] | None
    """The encoded 2D map (cascade.Memory); None without an image."""
    state: Float[Tensor, "b n"]
    """The lifter's state, then the last pose, shape and camera tokens; zeros for missing parts."""

    def detached(self) -> "Evidence":
        """The same in fp32, without gradient."""
        readings, tokens = (None if x is None else x.detach().float() for x in (self.readings, self.tokens))
        return Evidence(self.keypoints.detach().float(), readings, tokens, self.state.detach().float())


class UncertaintyHead(nn.Module):
    """One token for each joint, mixed by transformer layers, read out as a scale.

    The buffers `offset` and `slope` hold the calibration (`calibrated`), which is fitted on held-out people
    (train/objectives/uncertainty.py) and stored with the weights; 0 and 1 leave the scale as it is.
    """

    def __init__(
        self,
        joints: int,
        width: int,
        heads: int,
        map_width: int,
        state_width: int,
        regressed: int,
        layers: int = 2,
    ) -> None:
        """joints: tokens. width, heads, layers: of the transformer. map_width: channels of Evidence.tokens.
        state_width: numbers of Evidence.state. regressed: numbers of the regression."""
        super().__init__()
        self.map_width = map_width
        self.of_joint = nn.Linear(_JOINT_NUMBERS + map_width, width)
        everything = state_width + regressed + map_width + 1
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
        regressed: Float[Tensor, "b n"],
        joints3d: Float[Tensor, "b j 3"],
        joints2d: Float[Tensor, "b j 2"],
    ) -> Float[Tensor, "b j"]:
        """Natural logarithm of each joint's scale in metres, before the calibration.

        regressed: root_6d, pose code, betas and camera, concatenated. joints3d: metres, the pelvis first. joints2d:
        crop pixels.
        """
        evidence = evidence.detached()
        places = (joints2d.detach().float() / CROP).clamp(-1, 2)
        sampled, mean = self._sample_map(evidence, places)
        own = _joint_numbers(evidence, joints3d.detach().float(), places)
        person = self.of_person(torch.cat([evidence.state, regressed.detach().float(), mean], -1))
        x = self.of_joint(torch.cat([own, sampled], -1)) + person[:, None]
        for layer in self.layers:
            x = layer(x, self.which[None])
        log_least, span = math.log(LEAST), math.log(MOST / LEAST)
        return log_least + span * torch.sigmoid((x * self.out).sum(-1) + self.bias)

    def calibrated(self, log_scale: Float[Tensor, "b j"]) -> Float[Tensor, "b j"]:
        """offset + slope · ln s, for each joint."""
        return self.get_buffer("offset") + self.get_buffer("slope") * log_scale

    def sigma(self, log_scale: Float[Tensor, "b j"]) -> Float[Tensor, "b j"]:
        """Calibrated standard deviation along each axis, metres; 0 for the pelvis, which the others are relative to."""
        sigma = DEVIATION * self.calibrated(log_scale).exp()
        return torch.cat([torch.zeros_like(sigma[:, :1]), sigma[:, 1:]], 1)

    def _sample_map(
        self, evidence: Evidence, places: Float[Tensor, "b j 2"]
    ) -> tuple[Float[Tensor, "b j c"], Float[Tensor, "b d"]]:
        """The map at each joint, zeros outside; and its mean with a 1 appended, all zeros without an image.

        places: fractions of the crop.
        """
        people, joints = places.shape[:2]
        if evidence.tokens is None:
            sampled = places.new_zeros(people, joints, self.map_width)
            return sampled, places.new_zeros(people, self.map_width + 1)
        tokens = evidence.tokens
        side = math.isqrt(int(tokens.shape[1]))
        grid = tokens.transpose(1, 2).reshape(-1, self.map_width, side, side)
        sampled = F.grid_sample(grid, places[:, None] * 2 - 1, align_corners=False)
        return sampled[:, :, 0].transpose(1, 2), F.pad(tokens.mean(1), (0, 1), value=1.0)


def _joint_numbers(
    evidence: Evidence, joints3d: Float[Tensor, "b j 3"], places: Float[Tensor, "b j 2"]
) -> Float[Tensor, "b j n"]:
    """For each joint its keypoint, reading and predicted position, and the differences of the three; scaled to about 1.

    places: the predicted position, fractions of the crop.
    """
    keypoints = encode_keypoints(evidence.keypoints)
    readings = encode_readings(evidence.keypoints, evidence.readings)
    visible, present = keypoints[..., 2:], readings[..., 4:]
    off_pelvis = joints3d - joints3d[:, :1]
    centred = (places - 0.5) * 4
    off_keypoint = 2 * (centred - keypoints[..., :2]) * visible
    off_reading = 2 * (centred - readings[..., :2]) * present
    off_depth = (4 * off_pelvis[..., 2:] - readings[..., 2:3]) * present
    inside = ((places >= 0) & (places < 1)).all(-1, keepdim=True).to(places.dtype)
    lengths = [off.square().sum(-1, keepdim=True).sqrt() for off in (off_keypoint, off_reading)]
    parts = [keypoints, readings, centred, 2 * off_pelvis, off_keypoint, off_reading, off_depth, inside]
    return torch.cat([*parts, *lengths], -1)
