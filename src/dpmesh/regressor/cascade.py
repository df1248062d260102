"""The cascade decoder: queries for pose, shape and camera refined together with 15 joints placed in image space."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.config_io import check_sizes
from dpmesh.errors import ConfigError
from dpmesh.regressor.lifter import Lifter
from dpmesh.regressor.transformer import DecoderLayer, EncoderLayer, PositionTable, sine_position_2d
from dpmesh.regressor.uncertainty import Evidence, UncertaintyHead
from dpmesh.regressor.volume import FeatureVolume

SIZE = 8  # cells of the fused map on a side


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressorConfig:
    """Widths and depths; the defaults are the released model's, but for three details of its layers:

    shared_content: the queries of pose, shape and camera start from one learned vector and those of the joints from
    another (released); else each has its own.
    place_mlp: the position of a sampled joint is coded by two layers (released); else by one.
    position_table: positions of the encoder's 64 cells, DETR's or the released code's (sine_position_2d).

    lifter: width of a first answer from the joints' coordinates (lifter.py), which the decoder then refines; 0 starts
    from nothing, as in the paper. `lifter_layers` deep, for `lifter_joints` joints.
    pose_code: numbers regressed for the body pose, before the pose prior's head.
    uncertainty: width of what tells how sure the answer is (uncertainty.py); 0 tells nothing, as in the paper.
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
    shared_content: bool = False
    place_mlp: bool = False
    position_table: PositionTable = "detr"
    lifter: int = 0
    lifter_layers: int = 3
    lifter_joints: int = 30
    uncertainty: int = 0

    def __post_init__(self) -> None:
        check_sizes(self, ("lifter", "lifter_layers", "uncertainty", "encoder_layers", "volume_layers"))
        if self.width % self.heads or self.width % 4:
            raise ConfigError(
                f"width={self.width} must be a multiple of heads={self.heads} and of 4",
                where="RegressorConfig",
            )
        if self.uncertainty < 0 or self.uncertainty % self.heads:
            raise ConfigError(
                f"uncertainty={self.uncertainty} must be 0 or a multiple of heads={self.heads}",
                where="RegressorConfig",
            )


@dataclass(frozen=True)
class Memory:
    """What the decoder looks at. tokens: (b, 64, c) of the fused map. volume: (b, c, depth, 8, 8)."""

    tokens: Tensor
    volume: Tensor


@dataclass(frozen=True)
class Regression:
    """root_6d (b, 6), pose_code (b, p), betas (b, 10), camera (b, 3), joints_img (b, 15, 3) in [0, 1]; and what they
    were made from."""

    root_6d: Tensor
    pose_code: Tensor
    betas: Tensor
    camera: Tensor
    joints_img: Tensor
    evidence: Evidence


class CascadeHead(nn.Module):
    """One linear layer for each decoder layer; each sees its token and the answer so far, and adds to it.

    started: there is an answer before the first layer.
    """

    def __init__(self, width: int, out: int, layers: int, started: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(width + (out if i or started else 0), out) for i in range(layers)
        )

    def forward(self, tokens: list[Tensor], start: Tensor | None = None) -> Float[Tensor, "b o"]:
        answer = start
        for layer, token in zip(self.layers, tokens, strict=True):
            answer = layer(token) if answer is None else answer + layer(torch.cat([token, answer], dim=-1))
        assert answer is not None  # decoder_layers >= 1
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
        self.query_content = nn.Parameter(torch.randn(2 if config.shared_content else queries, width) * 0.02)
        self.query_position = nn.Parameter(torch.randn(queries, width) * 0.02)
        started = config.lifter > 0
        self.lifter = (
            Lifter(config.lifter_joints, config.lifter, config.lifter_layers, config.pose_code, config.joints)
            if started
            else None
        )
        self.lifted_in = nn.Linear(config.lifter, width) if started else None
        self.joint_place = nn.ModuleList(
            nn.Linear(width + (3 if i or started else 0), 3) for i in range(layers)
        )
        self.place_position = place_code(width) if config.place_mlp else nn.Linear(3, width)
        self.root_head = CascadeHead(width, 6, layers, started)
        self.pose_head = CascadeHead(width, config.pose_code, layers, started)
        self.shape_head = CascadeHead(width, 10, layers, started)
        self.camera_head = CascadeHead(width, 3, layers, started)
        self.register_buffer(
            "position", sine_position_2d(width, SIZE, config.position_table)[None], persistent=False
        )
        state, answer = config.lifter + 3 * width, 6 + config.pose_code + 10 + 3
        self.uncertainty = (
            UncertaintyHead(
                config.lifter_joints,
                config.uncertainty,
                config.heads,
                looked_at=width,
                state=state,
                answer=answer,
            )
            if config.uncertainty
            else None
        )

    def remember(self, fused: Float[Tensor, "b f 8 8"]) -> Memory:
        """What the decoder will look at: the encoded 2D map and the 3D volume."""
        tokens = self.down(fused.flatten(2).transpose(1, 2))
        for layer in self.encoder:
            tokens = layer(tokens, self.get_buffer("position"))
        return Memory(tokens, self.volume(fused))

    def forward(
        self,
        memory: Memory | None,
        given: Float[Tensor, "b j 3"],
        read: Float[Tensor, "b j 4"] | None = None,
    ) -> Regression:
        """memory=None gives the lifter's answer: no picture is looked at. given, read: Lifter.forward."""
        lifted = None if self.lifter is None else self.lifter(given, read)
        if memory is None:
            if lifted is None:
                raise ConfigError(
                    "without a picture and without a lifter there is nothing to look at", where="Regressor"
                )
            state = torch.cat([lifted.state, lifted.state.new_zeros(len(given), 3 * self.config.width)], -1)
            joints_img = torch.sigmoid(lifted.joints_logits)
            evidence = Evidence(given, read, None, state)
            return Regression(*lifted[1:5], joints_img=joints_img, evidence=evidence)
        x = self._content().expand(given.shape[0], -1, -1)
        joints_img: Tensor | None = None
        if lifted is not None:
            assert self.lifted_in is not None  # made together
            x = x + self.lifted_in(lifted.state)[:, None]
            joints_img = torch.sigmoid(lifted.joints_logits)
        outputs: list[Tensor] = []
        for layer, place in zip(self.decoder, self.joint_place, strict=True):
            sampled, sampled_at = self._look_at_joints(memory, joints_img)
            position = self.get_buffer("position").to(memory.tokens.dtype).expand(given.shape[0], -1, -1)
            x = layer(
                x,
                self.query_position[None],
                torch.cat([memory.tokens, *sampled], 1),
                torch.cat([position, *sampled_at], 1),
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
        root_6d, pose_code, betas, camera_start = (None,) * 4 if lifted is None else lifted[1:5]
        state = torch.cat([*([] if lifted is None else [lifted.state]), outputs[-1][:, :3].flatten(1)], -1)
        return Regression(
            self.root_head(pose, root_6d),
            self.pose_head(pose, pose_code),
            self.shape_head(shape, betas),
            self.camera_head(camera, camera_start),
            joints_img,
            Evidence(given, read, memory.tokens, state),
        )

    def unsure(
        self, answer: Regression, joints3d: Float[Tensor, "b j 3"], joints2d: Float[Tensor, "b j 2"]
    ) -> Float[Tensor, "b j"] | None:
        """UncertaintyHead.forward of an answer and its body's joints; None without such a head."""
        if self.uncertainty is None:
            return None
        numbers = torch.cat([answer.root_6d, answer.pose_code, answer.betas, answer.camera], -1)
        return self.uncertainty(answer.evidence, numbers, joints3d, joints2d)

    def _content(self) -> Float[Tensor, "q c"]:
        """What each query starts from."""
        if not self.config.shared_content:
            return self.query_content
        body, joint = self.query_content
        return torch.cat([body.expand(3, -1), joint.expand(self.config.joints, -1)])

    def _look_at_joints(self, memory: Memory, joints_img: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Volume features where the joints are thought to be, and the position code of those places."""
        if joints_img is None:
            return [], []
        places = self.place_position(inverse_sigmoid(joints_img))
        return [self.volume.sample(memory.volume, joints_img)], [places]


def place_code(width: int) -> nn.Sequential:
    """From the logits of a place to its position code, as released."""
    return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit, with both odds clamped from below."""
    x = x.float()
    return torch.log(x.clamp(eps, 1.0) / (1 - x).clamp(eps, 1.0))
