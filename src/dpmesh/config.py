"""The named configurations of the one model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dpmesh.backbone.diffusion import BackboneConfig
from dpmesh.backbone.prompt import PromptConfig
from dpmesh.backbone.timm import TimmConfig
from dpmesh.config_io import check_sizes, from_dict
from dpmesh.diffusion.unet import UNetConfig
from dpmesh.diffusion.vae import VAEConfig
from dpmesh.errors import ConfigError
from dpmesh.pose_prior.prior import PriorConfig
from dpmesh.pose_prior.vposer import VPoserConfig
from dpmesh.pose_prior.vqvae import Mode, PoseVQVAEConfig
from dpmesh.regressor.cascade import RegressorConfig

BackbonePart = Literal["vae", "controlnet"]
"""What of the diffusion backbone training may leave as it is, besides the U-Net under LoRA."""


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
    backbone: BackboneConfig | TimmConfig = field(default_factory=BackboneConfig)
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
    frozen: tuple[BackbonePart, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, ("lora_rank",))
        backbone, regressor = self.backbone, self.regressor
        pairs = [
            ("regressor.fused_channels", regressor.fused_channels, "backbone.fused_channels", backbone.fused_channels),
            ("regressor.lifter_joints", regressor.lifter_joints, "backbone.joints", backbone.joints),
        ]  # fmt: skip
        there: tuple[str, ...] = ()  # parts that can be frozen
        if isinstance(backbone, BackboneConfig):
            there = ("vae", "controlnet") if backbone.controlled else ("vae",)
            vae, unet = backbone.vae, backbone.unet
            if not {8, 16} <= set(unet.map_sizes) <= {8, 16, 32}:
                raise ConfigError(
                    f"map_sizes={unet.map_sizes} must hold 8 and 16, may hold 32", where="UNetConfig"
                )
            for level, size in enumerate((32, 16, 8)):
                if size in unet.map_sizes and not unet.attention[level]:
                    raise ConfigError(f"no attention at {size}, whose maps are wanted", where="UNetConfig")
            pairs += [
                ("prompt.width", self.prompt.width, "backbone.unet.context_width", unet.context_width),
                ("prompt.joints", self.prompt.joints, "backbone.joints", backbone.joints),
                ("vae.latent_channels", vae.latent_channels, "unet.latent_channels", unet.latent_channels),
            ]  # fmt: skip
        elif self.lora_rank:
            raise ConfigError(f"lora_rank={self.lora_rank}, but there is no U-Net", where="DPMeshConfig")
        for part in self.frozen:
            if part not in there:
                raise ConfigError(f"frozen has {part}, which the backbone lacks", where="DPMeshConfig")
        for one, value, other, expected in pairs:
            if value != expected:
                raise ConfigError(f"{one}={value} must equal {other}={expected}", where="DPMeshConfig")

    @property
    def diffusion(self) -> BackboneConfig:
        """The backbone's configuration; raises ConfigError where it is not a diffusion U-Net."""
        if isinstance(self.backbone, BackboneConfig):
            return self.backbone
        raise ConfigError(f"its backbone is {self.backbone.model}, not a diffusion U-Net", where=self.name)

    @property
    def reads(self) -> bool:
        """Whether the backbone reads joints off its maps."""
        return self.backbone.reading

    def as_stored(self) -> "DPMeshConfig":
        """For a model whose weights come from a file, or that has none: nothing is fetched from a hub."""
        if isinstance(self.backbone, TimmConfig) and self.backbone.pretrained:
            return replace(self, backbone=replace(self.backbone, pretrained=False))
        return self


def stored_config(plain: Mapping[str, Any], where: str) -> DPMeshConfig:
    """The config of a weights folder, from its config.json. Raises ConfigError, also for a `release` that was stored
    before `regressor.position_table` was a setting: its outputs would be others than the released code's."""
    regressor = plain.get("regressor")
    if (
        plain.get("name") == "release"
        and isinstance(regressor, Mapping)
        and "position_table" not in regressor
    ):
        raise ConfigError(
            "these weights were stored without regressor.position_table, and the released position table is needed",
            where=where,
            fix="Convert the checkpoint again (dpmesh convert released). For weights that were trained here without"
            ' it, add "position_table": "detr" to the regressor.',
        )
    return from_dict(DPMeshConfig, plain, where=where)


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
        uncertainty=128,
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
    regressor=RegressorConfig(pose_code=32, shared_content=True, place_mlp=True, position_table="released"),
    pose_prior=VPoserConfig(),
    camera="image",
    shared_focal=True,
    lora_rank=64,
    lora_targets="released",
    frozen=("vae", "controlnet"),
)

# The paper's design at the embedded model's widths, without what is ours: no lifter, no joints read off the maps, no
# uncertainty. A point in code space for each token stays. From random weights 6,000 pictures teach it the mean pose.
BARE = replace(
    EMBEDDED,
    name="bare",
    backbone=replace(EMBEDDED.diffusion, reading=False),
    regressor=replace(EMBEDDED.regressor, lifter=0, uncertainty=0),
)

# The embedded model with its joints read off the fused map, so that another backbone can take the U-Net's place and
# be taught in the same way.
FUSED = replace(
    EMBEDDED,
    name="fused",
    backbone=replace(EMBEDDED.diffusion, read_from="fused"),
    regressor=replace(EMBEDDED.regressor, uncertainty=0),
)

PRESETS = {config.name: config for config in (EMBEDDED, PAPER, RELEASE, BARE, FUSED)}


def narrow(full: DPMeshConfig) -> DPMeshConfig:
    """All the layers of a full-size diffusion model, at small widths: for tests and dry runs."""
    backbone = full.diffusion
    return replace(
        full,
        backbone=replace(
            backbone,
            vae=replace(backbone.vae, channels=(8, 8, 16, 16), groups=4),
            unet=replace(backbone.unet, channels=(16, 24, 32, 48), groups=8, heads=2, context_width=12),
            fused_channels=32,
        ),
        prompt=replace(full.prompt, width=12),
        regressor=replace(full.regressor, fused_channels=32, width=16, heads=2, inner=24, volume_inner=24),
    )
