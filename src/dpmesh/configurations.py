"""The named configurations of the one model, and configs as plain data (JSON) and back."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from dpmesh.backbone.diffusion import BackboneConfig
from dpmesh.backbone.prompt import PromptConfig
from dpmesh.diffusion.unet import UNetConfig
from dpmesh.diffusion.vae import VAEConfig
from dpmesh.errors import ConfigError
from dpmesh.pose_prior.prior import PriorConfig
from dpmesh.pose_prior.vposer import VPoserConfig
from dpmesh.pose_prior.vqvae import Mode, PoseVQVAEConfig
from dpmesh.regressor.cascade import RegressorConfig

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True, slots=True)
class DPMeshConfig:
    """Everything that shapes the model. The widths that two parts share are checked here.

    depth_scale: metres that the 256 pixels of the crop span at most; the camera's third number chooses a
    fraction of it (2.5 in the released code).
    camera: whose focal length and frame the model works with. "crop": the camera turned towards the middle of the
    crop (docs/conventions.md). "image": the focal length is the full picture's diagonal, in its pixels, and the root
    orientation is in the full picture's camera frame, as in the released code.
    shared_focal: the first sample's focal length serves the whole batch, as the released code has it.
    token_mode: what is regressed for each pose token and how it becomes a pose (PoseVQVAE.decode_latent).
    lora_rank: 0 trains the U-Net's own weights; else they are frozen and every linear layer of `lora_targets`
    gets a low-rank update. frozen: other parts of the backbone that training leaves as they are.
    """

    name: str
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    pose_prior: PriorConfig = field(default_factory=PoseVQVAEConfig)
    token_mode: Mode = "soft"
    token_width: int = 32
    depth_scale: float = 2.5
    camera: Literal["crop", "image"] = "crop"
    shared_focal: bool = False
    lora_rank: int = 0
    lora_targets: Literal["cross", "released"] = "cross"
    frozen: tuple[Literal["vae", "controlnet"], ...] = ()

    def __post_init__(self) -> None:
        backbone, regressor = self.backbone, self.regressor
        vae, unet = backbone.vae, backbone.unet
        pairs = (
            ("prompt.width", self.prompt.width, "backbone.unet.context_width", unet.context_width),
            ("regressor.fused_channels", regressor.fused_channels, "backbone.fused_channels", backbone.fused_channels),
            ("prompt.joints", self.prompt.joints, "backbone.joints", backbone.joints),
            ("regressor.lifter_joints", regressor.lifter_joints, "backbone.joints", backbone.joints),
            ("vae.latent_channels", vae.latent_channels, "unet.latent_channels", unet.latent_channels),
        )  # fmt: skip
        for one, value, other, expected in pairs:
            if value != expected:
                raise ConfigError(f"{one}={value} must equal {other}={expected}", where="DPMeshConfig")


EMBEDDED = DPMeshConfig(
    name="embedded",
    backbone=BackboneConfig(
        vae=VAEConfig(
            channels=(16, 32, 64),
            stem_stride=2,
            mid_attention=False,
            layers=1,
            groups=4,
            latent_channels=32,
            latent_scale=1.0,
        ),
        unet=UNetConfig(
            channels=(32, 64, 96, 96),
            attention=(False, True, True, False),
            layers=1,
            groups=8,
            heads=2,
            latent_channels=32,
            context_width=128,
        ),
        fused_channels=256,
        fused_groups=8,
        reading=True,
    ),
    prompt=PromptConfig(width=128, identity=True),
    regressor=RegressorConfig(
        fused_channels=256,
        width=128,
        heads=4,
        inner=256,
        encoder_layers=1,
        volume_depth=4,
        volume_inner=256,
        volume_layers=1,
        pose_code=128,
        lifter=512,
    ),
    pose_prior=PoseVQVAEConfig(
        codes=1024, code_width=32, encoder_width=64, decoder_width=96, decoder_layers=3
    ),
    token_mode="points",
)

# Stable Diffusion 1.5's sizes are the defaults of the parts. docs/paper_vs_code.md has every choice and its reason.
PAPER = DPMeshConfig(
    name="paper",
    backbone=BackboneConfig(
        vae=VAEConfig(image_range="symmetric", latent_scale=0.18215),
        unet=UNetConfig(timestep=1, map_sizes=(8, 16, 32)),
    ),
    prompt=PromptConfig(layers=2, visible_only=True),
    regressor=RegressorConfig(pose_code=256, shared_content=True, place_mlp=True),
    pose_prior=PoseVQVAEConfig(
        tokens=48,
        codes=2048,
        code_width=256,
        encoder_width=512,
        encoder_layers=4,
        decoder_width=32,
        decoder_layers=1,
    ),
    token_mode="soft",
    token_width=64,
    lora_rank=64,
    lora_targets="cross",
    frozen=("vae",),
)

RELEASE = DPMeshConfig(
    name="release",
    backbone=BackboneConfig(
        vae=VAEConfig(image_range="unit", latent_scale=1.0),
        unet=UNetConfig(timestep=1, map_sizes=(8, 16)),
    ),
    prompt=PromptConfig(layers=1, visible_only=False),
    regressor=RegressorConfig(pose_code=32, shared_content=True, place_mlp=True),
    pose_prior=VPoserConfig(),
    camera="image",
    shared_focal=True,
    lora_rank=64,
    lora_targets="released",
    frozen=("vae", "controlnet"),
)

PRESETS = {config.name: config for config in (EMBEDDED, PAPER, RELEASE)}


def configuration(name: str) -> DPMeshConfig:
    """A named configuration; raises ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"there is no configuration {name!r}", fix=f"There are: {', '.join(PRESETS)}.")
    return PRESETS[name]


def to_plain(config: object) -> dict[str, Any]:
    """A config dataclass as nested dictionaries, for JSON."""
    return dataclasses.asdict(config)  # pyright: ignore[reportArgumentType]  (any dataclass instance)


def from_plain(kind: type[Config], data: Mapping[str, Any], where: str = "") -> Config:
    """A config dataclass from nested dictionaries (JSON, TOML); raises ConfigError on unknown or missing names."""
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    place = where or kind.__name__
    if unknown := sorted(set(data) - names):
        raise ConfigError(
            f"unknown setting {unknown[0]!r}", where=place, fix=f"There are: {', '.join(sorted(names))}."
        )
    values = {name: _value(hints[name], value, f"{place}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(str(error).replace("__init__() ", ""), where=place) from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kinds := _kinds(arguments):
        given = typing.cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {"kind": "?"}
        kind = str(given.get("kind", next(iter(kinds))))
        if kind not in kinds:
            raise ConfigError(f"its kind must be one of {', '.join(kinds)}", where=where)
        return from_plain(kinds[kind], given, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(typing.cast("type[Any]", hint), typing.cast("Mapping[str, Any]", value), where)
    if origin is tuple and isinstance(value, list):
        items = typing.cast("list[Any]", value)
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{value!r} is not one of {', '.join(map(repr, arguments))}", where=where)
        return value
    if origin in (typing.Union, types.UnionType):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{value!r} is not a {hint.__name__}", where=where)
    return value


def _kinds(union: tuple[Any, ...]) -> dict[str, Any]:
    """The dataclasses of a union by their `kind`; the first is meant where a file names none."""
    members = (member for member in union if dataclasses.is_dataclass(member))
    return {str(f.default): m for m in members for f in dataclasses.fields(m) if f.name == "kind"}
