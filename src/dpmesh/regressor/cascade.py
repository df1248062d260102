"""The cascade decoder: regresses pose, shape and camera together with 15 joints in image space (JOTR's design)."""

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

SIZE = 8
"""Cells of the fused map along a side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressorConfig:
    """The regressor. Defaults are the sizes of the released model."""

    fused_channels: int = 2048
    """Channels of the backbone's fused map."""
    width: int = 256
    """Width of all tokens."""
    heads: int = 8
    """Attention heads."""
    inner: int = 2048
    """Width of the feed-forward layers of encoder and decoder."""
    encoder_layers: int = 2
    """Encoder layers over the 64 cells of the fused map."""
    decoder_layers: int = 4
    """Decoder layers, and steps of every cascade."""
    volume_depth: int = 8
    """Cells of the feature volume in depth."""
    volume_inner: int = 1024
    """Width of the feed-forward layers over the volume."""
    volume_layers: int = 2
    """Encoder layers over the cells of the volume."""
    joints: int = 15
    """Joints placed in image space; 15 everywhere (skeletons.GRAPH15)."""
    pose_code: int = 32
    """Numbers regressed for the body pose, the input of the pose head (tokens.py)."""
    shared_content: bool = False
    """Queries of pose, shape and camera share one learned start vector, those of the joints another (released); else
    every query has its own."""
    place_mlp: bool = False
    """Encode the position of a sampled joint with two layers (released); else with one."""
    position_table: PositionTable = "detr"
    """Position table of the encoder's 64 cells (transformer.sine_position_2d)."""
    lifter: int = 0
    """Width of the lifter, whose estimate from the keypoints starts the cascade (lifter.py). 0: no lifter, as in the
    paper."""
    lifter_layers: int = 3
    """Layers of the lifter."""
    lifter_joints: int = 30
    """Keypoints that the lifter and the uncertainty head read."""
    uncertainty: int = 0
    """Width of the head that predicts how far each joint may be off (uncertainty.py). 0: no head, as in the paper."""

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
    """Keys and values of the decoder, computed from the fused map."""

    tokens: Float[Tensor, "b 64 c"]
    """The encoded 2D map."""
    volume: Float[Tensor, "b c d 8 8"]
    """The 3D feature volume."""


@dataclass(frozen=True)
class Regression:
    """Output of the regressor; fields as in types.Prediction."""

    root_6d: Float[Tensor, "b 6"]
    pose_code: Float[Tensor, "b p"]
    """Input of the pose head."""
    betas: Float[Tensor, "b 10"]
    camera: Float[Tensor, "b 3"]
    joints_img: Float[Tensor, "b 15 3"]
    """In [0, 1]."""
    evidence: Evidence
    """What it was computed from, for the uncertainty head."""


class CascadeHead(nn.Module):
    """One linear layer for each decoder layer: it reads a token and the current estimate, and adds its output to it."""

    def __init__(self, width: int, out: int, layers: int, has_start: bool) -> None:
        """width: of a token. out: numbers regressed. has_start: the first layer, too, gets an estimate to refine."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(width + (out if i or has_start else 0), out) for i in range(layers)
        )

    def forward(
        self, tokens: list[Float[Tensor, "b c"]], start: Tensor | None = None
    ) -> Float[Tensor, "b o"]:
        """tokens: one for each layer. start: the estimate (b, o) that the first layer refines."""
        estimate = start
        for layer, token in zip(self.layers, tokens, strict=True):
            step = layer(token if estimate is None else torch.cat([token, estimate], dim=-1))
            estimate = step if estimate is None else estimate + step
        assert estimate is not None  # decoder_layers >= 1
        return estimate


class Regressor(nn.Module):
    """Fused map, keypoints and joint readings in; root, pose code, shape, camera and joints_img out."""

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
        lifted = config.lifter > 0
        self.lifter = (
            Lifter(config.lifter_joints, config.lifter, config.lifter_layers, config.pose_code, config.joints)
            if lifted
            else None
        )
        self.lifted_in = nn.Linear(config.lifter, width) if lifted else None
        self.joint_place = nn.ModuleList(
            nn.Linear(width + (3 if i or lifted else 0), 3) for i in range(layers)
        )
        self.place_position = position_mlp(width) if config.place_mlp else nn.Linear(3, width)
        self.root_head = CascadeHead(width, 6, layers, lifted)
        self.pose_head = CascadeHead(width, config.pose_code, layers, lifted)
        self.shape_head = CascadeHead(width, 10, layers, lifted)
        self.camera_head = CascadeHead(width, 3, layers, lifted)
        self.register_buffer(
            "position", sine_position_2d(width, SIZE, config.position_table)[None], persistent=False
        )
        self.uncertainty = (
            UncertaintyHead(
                config.lifter_joints,
                config.uncertainty,
                config.heads,
                map_width=width,
                state_width=config.lifter + 3 * width,
                regressed=6 + config.pose_code + 10 + 3,
            )
            if config.uncertainty
            else None
        )

    def build_memory(self, fused: Float[Tensor, "b f 8 8"]) -> Memory:
        """The encoded 2D map and the 3D volume, which the decoder attends to."""
        tokens = self.down(fused.flatten(2).transpose(1, 2))
        for layer in self.encoder:
            tokens = layer(tokens, self.get_buffer("position"))
        return Memory(tokens, self.volume(fused))

    def forward(
        self,
        memory: Memory | None,
        keypoints: Float[Tensor, "b j 3"],
        readings: Float[Tensor, "b j 4"] | None = None,
    ) -> Regression:
        """memory: from build_memory; None returns the lifter's estimate, without an image. keypoints, readings: as
        Lifter.forward. Raises ConfigError with neither memory nor lifter."""
        lifted = None if self.lifter is None else self.lifter(keypoints, readings)
        if memory is None:
            if lifted is None:
                raise ConfigError("a model without a lifter needs an image", where="Regressor")
            zeros = lifted.state.new_zeros(len(keypoints), 3 * self.config.width)
            evidence = Evidence(keypoints, readings, None, torch.cat([lifted.state, zeros], -1))
            return Regression(*lifted[1:5], joints_img=torch.sigmoid(lifted.joints_logits), evidence=evidence)
        x = self._query_content().expand(keypoints.shape[0], -1, -1)  # (b, 3 + 15, c)
        joints_img: Tensor | None = None
        if lifted is not None:
            assert self.lifted_in is not None  # made together
            x = x + self.lifted_in(lifted.state)[:, None]
            joints_img = torch.sigmoid(lifted.joints_logits)
        position = self.get_buffer("position").to(memory.tokens.dtype).expand(keypoints.shape[0], -1, -1)
        outputs: list[Tensor] = []
        for layer, place in zip(self.decoder, self.joint_place, strict=True):
            sampled, sampled_position = self._sample_joints(memory, joints_img)
            x = layer(
                x,
                self.query_position[None],
                torch.cat([memory.tokens, *sampled], 1),
                torch.cat([position, *sampled_position], 1),
            )
            x = self.norm(x)  # feeds the next layer, as released; DETR norms only what it reads out
            outputs.append(x)
            joint_tokens = x[:, 3:]
            if joints_img is None:
                joints_img = torch.sigmoid(place(joint_tokens))
            else:
                logits = inverse_sigmoid(joints_img)
                step = place(torch.cat([joint_tokens, logits.to(joint_tokens.dtype)], dim=-1))
                joints_img = torch.sigmoid(logits + step)
        assert joints_img is not None  # decoder_layers >= 1
        pose, shape, camera = ([out[:, i] for out in outputs] for i in range(3))
        root_start, pose_start, betas_start, camera_start = (None,) * 4 if lifted is None else lifted[1:5]
        state = torch.cat([*([] if lifted is None else [lifted.state]), outputs[-1][:, :3].flatten(1)], -1)
        return Regression(
            self.root_head(pose, root_start),
            self.pose_head(pose, pose_start),
            self.shape_head(shape, betas_start),
            self.camera_head(camera, camera_start),
            joints_img,
            Evidence(keypoints, readings, memory.tokens, state),
        )

    def predict_log_scale(
        self, regression: Regression, joints3d: Float[Tensor, "b j 3"], joints2d: Float[Tensor, "b j 2"]
    ) -> Float[Tensor, "b j"] | None:
        """UncertaintyHead.forward of a regression and the joints of its body; None without such a head."""
        if self.uncertainty is None:
            return None
        regressed = [regression.root_6d, regression.pose_code, regression.betas, regression.camera]
        return self.uncertainty(regression.evidence, torch.cat(regressed, -1), joints3d, joints2d)

    def start_upright(self) -> None:
        """Set the initial weights so that the untrained output is an upright person in front of the camera, 1.9 m
        across the crop.

        From a random start the 2D losses would first turn every body around, and cannot move one that is behind the
        camera.
        """
        upright = torch.tensor([1.0, 0.0, 0.0, -1.0, 0.0, 0.0])  # half a turn about x, as six numbers
        for cascade, lifted, bias in (
            (self.root_head, "root", upright),
            (self.camera_head, "camera", torch.tensor([0.0, 0.0, 1.15])),
        ):
            start = [] if self.lifter is None else [self.lifter.get_submodule(lifted)]
            for i, layer in enumerate([*start, *cascade.layers]):
                assert isinstance(layer, nn.Linear)
                with torch.no_grad():
                    layer.weight.mul_(0.1)
                    layer.bias.copy_(bias if i == 0 else torch.zeros_like(bias))

    def _query_content(self) -> Float[Tensor, "q c"]:
        """Initial content of each query: pose, shape, camera, then the joints."""
        if not self.config.shared_content:
            return self.query_content
        body, joint = self.query_content
        return torch.cat([body.expand(3, -1), joint.expand(self.config.joints, -1)])

    def _sample_joints(self, memory: Memory, joints_img: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Volume features at the current joint positions, and their position codes; both empty without positions."""
        if joints_img is None:
            return [], []
        places = self.place_position(inverse_sigmoid(joints_img))
        return [self.volume.sample(memory.volume, joints_img)], [places]


def position_mlp(width: int) -> nn.Sequential:
    """From the logits of a position (3) to its position code, as released."""
    return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit in fp32, with both odds clamped from below."""
    x = x.float()
    return torch.log(x.clamp(eps, 1.0) / (1 - x).clamp(eps, 1.0))
