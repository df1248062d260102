"""The model's configuration, and the named presets."""

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
"""Parts of the diffusion backbone that training may freeze, besides the U-Net under LoRA."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DPMeshConfig:
    """The whole model. Widths that two parts share are checked; ConfigError where they differ."""

    name: str
    """Name of the configuration."""
    backbone: BackboneConfig | TimmConfig = field(default_factory=BackboneConfig)
    """Image backbone."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    """Joint prompt; unused by a timm backbone."""
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    """Cascade decoder."""
    pose_prior: PriorConfig = field(default_factory=PoseVQVAEConfig)
    """Pose prior: VQ-VAE, VPoser or none."""
    token_mode: Mode = "soft"
    """Latent of the VQ-VAE and how it becomes a pose (PoseVQVAE.decode_latent)."""
    token_width: int = 32
    """Width of the tokens in the pose head."""
    depth_scale: float = 2.5
    """Largest size in metres that the crop spans at the body; the regressed camera chooses a fraction of it. 2.5 in the
    released code."""
    camera: Literal["crop", "image"] = "crop"
    """Camera whose focal length and frame the model uses. "crop": the camera turned towards the middle of the crop
    (geometry/camera.py). "image": the focal length is the diagonal of the full image in its pixels, and the root
    orientation is in the camera frame of the full image (released code)."""
    shared_focal: bool = False
    """Use the focal length of the first sample for the whole batch (released code)."""
    lora_rank: int = 0
    """Rank of the LoRA updates of the U-Net, whose own weights are then frozen; 0 trains the U-Net itself."""
    lora_targets: Literal["cross", "released"] = "cross"
    """Linear layers with LoRA: those of the cross-attention, or those of the released code (diffusion/lora.py)."""
    frozen: tuple[BackbonePart, ...] = ()
    """Other parts of the backbone that are not trained."""

    def __post_init__(self) -> None:
        check_sizes(self, ("lora_rank",))
        backbone, regressor = self.backbone, self.regressor
        pairs = [
            ("regressor.fused_channels", regressor.fused_channels, "backbone.fused_channels", backbone.fused_channels),
            ("regressor.lifter_joints", regressor.lifter_joints, "backbone.joints", backbone.joints),
        ]  # fmt: skip
        freezable: tuple[str, ...] = ()
        if isinstance(backbone, BackboneConfig):
            freezable = ("vae", "controlnet") if backbone.controlled else ("vae",)
            vae, unet = backbone.vae, backbone.unet
            if not {8, 16} <= set(unet.map_sizes) <= {8, 16, 32}:
                raise ConfigError(
                    f"map_sizes={unet.map_sizes} must hold 8 and 16, may hold 32", where="UNetConfig"
                )
            for level, size in enumerate((32, 16, 8)):
                if size in unet.map_sizes and not unet.attention[level]:
                    raise ConfigError(
                        f"map_sizes has {size}, but its level has no attention", where="UNetConfig"
                    )
            pairs += [
                ("prompt.width", self.prompt.width, "backbone.unet.context_width", unet.context_width),
                ("prompt.joints", self.prompt.joints, "backbone.joints", backbone.joints),
                ("vae.latent_channels", vae.latent_channels, "unet.latent_channels", unet.latent_channels),
            ]  # fmt: skip
        elif self.lora_rank:
            raise ConfigError(f"lora_rank={self.lora_rank} needs a U-Net", where="DPMeshConfig")
        for part in self.frozen:
            if part not in freezable:
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
        """Whether the backbone reads joints off its feature maps."""
        return self.backbone.reading

    def as_stored(self) -> "DPMeshConfig":
        """The config without downloads from timm's hub, for a model whose weights are loaded from a file or not
        needed."""
        if isinstance(self.backbone, TimmConfig) and self.backbone.pretrained:
            return replace(self, backbone=replace(self.backbone, pretrained=False))
        return self


def stored_config(plain: Mapping[str, Any], where: str) -> DPMeshConfig:
    """The config of a weights folder, from the content of its config.json. where: its path, for messages.

    Raises ConfigError, also for a `release` stored before `regressor.position_table` was a setting: its outputs would
    differ from the released code's.
    """
    regressor = plain.get("regressor")
    if (
        plain.get("name") == "release"
        and isinstance(regressor, Mapping)
        and "position_table" not in regressor
    ):
        raise ConfigError(
            "the config has no regressor.position_table, which `release` needs",
            where=where,
            fix="Convert the checkpoint again (dpmesh convert released). For weights trained with an older version of"
            ' this package, add "position_table": "detr" to the regressor.',
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

# The defaults of the parts are the sizes of Stable Diffusion 1.5.
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

# The paper's design at the widths of `embedded`, without our additions (lifter, joint readings, uncertainty head) but
# with a point in code space for each token. Trained from random weights on 6,000 images it predicts the mean pose.
BARE = replace(
    EMBEDDED,
    name="bare",
    backbone=replace(EMBEDDED.diffusion, reading=False),
    regressor=replace(EMBEDDED.regressor, lifter=0, uncertainty=0),
)

# `embedded` with its joints read off the fused map, so that other backbones can replace the U-Net and be trained with
# the same losses.
FUSED = replace(
    EMBEDDED,
    name="fused",
    backbone=replace(EMBEDDED.diffusion, read_from="fused"),
    regressor=replace(EMBEDDED.regressor, uncertainty=0),
)

PRESETS = {config.name: config for config in (EMBEDDED, PAPER, RELEASE, BARE, FUSED)}


def narrow(full: DPMeshConfig) -> DPMeshConfig:
    """The config with the same layers at small widths, for tests and dry runs. full: with a diffusion backbone."""
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
