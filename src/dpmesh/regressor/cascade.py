"""The cascade decoder: queries for pose, shape and camera refined together with 15 joints placed in image space."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.errors import ConfigError
from dpmesh.regressor.transformer import DecoderLayer, EncoderLayer, sine_position_2d
from dpmesh.regressor.volume import FeatureVolume

SIZE = 8  # cells of the fused map on a side


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressorConfig:
    """Widths and depths; the defaults are the released model's.

    prompt_memory: the decoder also attends to the joint prompt itself (width `prompt_width`), so that the answer
    does not hang on the image features alone; `prompt_layers` encoder layers let its tokens talk. Not in the paper.
    reading: those tokens also carry where the picture shows the joint (backbone/reading.py). Not in the paper.
    frequencies: those tokens also carry their joint's coordinates as so many octaves of sines and cosines
    (Tancik et al. 2020): from the plain numbers the decoder learns places far too slowly. Not in the paper.
    pose_code: numbers regressed for the body pose, before the pose prior's head.
    """

    fused_channels: int = 2048
    width: int = 256
    heads: int = 8
    inner: int = 2048
    encoder_layers: int = 2
    decoder_layers: int = 4
    volume_depth: int = 8
    volume_inner: int = 1024
    volume_layers: int = 2
    joints: int = 15
    pose_code: int = 32
    prompt_memory: bool = False
    prompt_layers: int = 0
    reading: bool = False
    frequencies: int = 0
    prompt_width: int = 768

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise ConfigError(
                f"width={self.width} must be a multiple of heads={self.heads} and of 4",
                where="RegressorConfig",
            )


@dataclass(frozen=True)
class Memory:
    """What the decoder looks at. tokens: (b, 64, c) of the fused map. volume: (b, c, depth, 8, 8)."""

    tokens: Tensor
    volume: Tensor


@dataclass(frozen=True)
class Regression:
    """root_6d (b, 6), pose_code (b, p), betas (b, 10), camera (b, 3), joints_img (b, 15, 3) in [0, 1]."""

    root_6d: Tensor
    pose_code: Tensor
    betas: Tensor
    camera: Tensor
    joints_img: Tensor


class CascadeHead(nn.Module):
    """One linear layer for each decoder layer; each sees its token and the answer so far, and adds to it."""

    def __init__(self, width: int, out: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width + (out if i else 0), out) for i in range(layers))

    def forward(self, tokens: list[Tensor]) -> Float[Tensor, "b o"]:
        answer = self.layers[0](tokens[0])
        for layer, token in zip(list(self.layers)[1:], tokens[1:], strict=True):
            answer = answer + layer(torch.cat([token, answer], dim=-1))
        return answer


class Regressor(nn.Module):
    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.config = config
        width, layers = config.width, config.decoder_layers
        self.volume = FeatureVolume(
            config.fused_channels,
            width,
            config.volume_depth,
            config.heads,
            config.volume_inner,
            config.volume_layers,
        )
        self.down = nn.Linear(config.fused_channels, width)
        self.encoder = nn.ModuleList(
            EncoderLayer(width, config.heads, config.inner) for _ in range(config.encoder_layers)
        )
        self.decoder = nn.ModuleList(DecoderLayer(width, config.heads, config.inner) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        queries = 3 + config.joints  # pose, shape, camera, then the joints
        self.query_content = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.query_position = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.joint_place = nn.ModuleList(nn.Linear(width if i == 0 else width + 3, 3) for i in range(layers))
        self.place_position = nn.Linear(3, width)
        self.prompt_in = nn.Linear(config.prompt_width, width) if config.prompt_memory else None
        waves = 4 * config.frequencies
        self.given_in = nn.Linear(waves + 1, width) if waves else None
        self.read_in = nn.Linear(waves + 3, width) if config.reading else None
        self.prompt_encoder = nn.ModuleList(
            EncoderLayer(width, config.heads, config.inner) for _ in range(config.prompt_layers)
        )
        self.root_head = CascadeHead(width, 6, layers)
        self.pose_head = CascadeHead(width, config.pose_code, layers)
        self.shape_head = CascadeHead(width, 10, layers)
        self.camera_head = CascadeHead(width, 3, layers)
        self.register_buffer("position", sine_position_2d(width, SIZE)[None], persistent=False)

    def remember(self, fused: Float[Tensor, "b f 8 8"]) -> Memory:
        """What the decoder will look at: the encoded 2D map and the 3D volume."""
        tokens = self.down(fused.flatten(2).transpose(1, 2))
        for layer in self.encoder:
            tokens = layer(tokens, self.get_buffer("position"))
        return Memory(tokens, self.volume(fused))

    def forward(
        self,
        memory: Memory | None,
        prompt: Float[Tensor, "b j d"],
        given: Float[Tensor, "b j 3"] | None = None,
        read: Float[Tensor, "b j 4"] | None = None,
    ) -> Regression:
        """memory=None answers from the joints alone (needs prompt_memory): the fused map is not looked at.

        given: x and y of the keypoints as fractions of the crop, and 1 where they are seen. read: the joints read
        off the picture (JointsRead.summary); zeros, or None, where none were. Both only where the config wants them.
        """
        batch = len(prompt)
        seen: list[Tensor] = []
        placed: list[Tensor] = []
        if memory is not None:
            seen.append(memory.tokens)
            placed.append(self.get_buffer("position").to(memory.tokens.dtype).expand(batch, -1, -1))
        elif self.prompt_in is None:
            raise ConfigError(
                "without a picture and without prompt_memory there is nothing to look at", where="Regressor"
            )
        if self.prompt_in is not None:
            told = self._joint_tokens(self.prompt_in(prompt), given, read)
            nowhere = torch.zeros_like(told)
            for layer in self.prompt_encoder:
                told = layer(told, nowhere)
            seen, placed = [*seen, told], [*placed, nowhere]
        x = self.query_content.expand(batch, -1, -1)
        joints_img: Tensor | None = None
        outputs: list[Tensor] = []
        for layer, place in zip(self.decoder, self.joint_place, strict=True):
            sampled, sampled_at = self._look_at_joints(memory, joints_img)
            x = layer(
                x,
                self.query_position[None],
                torch.cat([*seen, *sampled], 1),
                torch.cat([*placed, *sampled_at], 1),
            )
            x = self.norm(
                x
            )  # the normed output feeds the next layer, as released; DETR norms only what it reads out
            outputs.append(x)
            joint_tokens = x[:, 3:]
            if joints_img is None:
                joints_img = torch.sigmoid(place(joint_tokens))
            else:
                before = inverse_sigmoid(joints_img)
                joints_img = torch.sigmoid(
                    before + place(torch.cat([joint_tokens, before.to(joint_tokens.dtype)], dim=-1))
                )
        assert joints_img is not None  # decoder_layers >= 1
        pose, shape, camera = ([out[:, i] for out in outputs] for i in range(3))
        return Regression(
            self.root_head(pose),
            self.pose_head(pose),
            self.shape_head(shape),
            self.camera_head(camera),
            joints_img,
        )

    def _joint_tokens(self, told: Tensor, given: Tensor | None, read: Tensor | None) -> Tensor:
        """The prompt's tokens with the places that were given and the places that were read."""
        count = self.config.frequencies
        if self.given_in is not None and given is not None:
            visible = given[..., 2:]
            told = told + self.given_in(torch.cat([octaves(given[..., :2], count), visible], -1) * visible)
        if self.read_in is not None and read is not None:
            there = (read[..., 3:] > 0).to(read.dtype)
            # Depths of decimetres and certainties of hundredths, brought to the size of the sines.
            numbers = torch.cat(
                [octaves(read[..., :2], count), 4 * read[..., 2:3], 10 * read[..., 3:], there], -1
            )
            told = told + self.read_in(numbers * there)
        return told

    def _look_at_joints(
        self, memory: Memory | None, joints_img: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Volume features where the joints are thought to be, and the position code of those places."""
        if memory is None or joints_img is None:
            return [], []
        places = self.place_position(inverse_sigmoid(joints_img))
        return [self.volume.sample(memory.volume, joints_img)], [places]


def octaves(places: Float[Tensor, "*b 2"], count: int) -> Float[Tensor, "*b w"]:
    """Sines and cosines of π·2^k times each coordinate, k < count: 4·count numbers."""
    scale = torch.pi * 2.0 ** torch.arange(count, device=places.device, dtype=places.dtype)
    angles = (places[..., None] * scale).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit, with both odds clamped from below."""
    x = x.float().clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
