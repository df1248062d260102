"""The variants of the paper's Table 4, and configurations by name."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from dpmesh.backbone.diffusion import Conditions
from dpmesh.backbone.timm import TimmConfig
from dpmesh.config import EMBEDDED, FUSED, PAPER, PRESETS, DPMeshConfig
from dpmesh.config_io import override
from dpmesh.errors import ConfigError
from dpmesh.pose_prior.prior import DirectConfig
from dpmesh.pose_prior.vposer import VPoserConfig
from dpmesh.pose_prior.vqvae import PoseVQVAEConfig

Head = Literal["soft", "straight_through", "vposer", "direct"]
"""Pose heads of the ablation."""


TIMM = {
    "resnet50": TimmConfig(model="resnet50"),
    "hrnet_w48": TimmConfig(model="hrnet_w48"),
    "vit_l16": TimmConfig(model="vit_large_patch16_224"),
    "swinv2_l": TimmConfig(model="swinv2_large_window12to16_192to256"),
}
"""The four backbones of the paper's Table 4. A size in timm's name is that of its training; here the input is 256."""


TIMM_SMALL = {
    "resnet10": TimmConfig(model="resnet10t"),
    "vit_ti": TimmConfig(model="vit_tiny_patch16_224"),
    "swinv2_6m": TimmConfig(
        model="swinv2_tiny_window8_256", embed_dim=48, depths=(2, 2, 4, 2), num_heads=(2, 4, 8, 16)
    ),
}
"""Backbones of about the size of the one in FUSED."""


WIDTHS = {"narrow": (24, 48, 72, 72), "wide": (40, 80, 104, 104)}
"""Channels of the U-Net's levels. "wide" is the widest with at most 12 M parameters in the whole model."""


def with_conditions(base: DPMeshConfig, conditions: Conditions) -> DPMeshConfig:
    """The config with other inputs of the U-Net."""
    frozen = tuple(part for part in base.frozen if part != "controlnet" or conditions != "z0")
    backbone = replace(base.diffusion, conditions=conditions)
    return replace(base, name=f"{base.name}-{conditions}", backbone=backbone, frozen=frozen)


def with_timm(base: DPMeshConfig, model: str) -> DPMeshConfig:
    """The config with a timm backbone, trained as a whole. model: a name in TIMM or TIMM_SMALL, or timm's own."""
    old = base.backbone
    backbone = replace(
        (TIMM | TIMM_SMALL).get(model, TimmConfig(model=model)),
        joints=old.joints,
        fused_channels=old.fused_channels,
        fused_groups=old.fused_groups,
        reading=old.reading,
    )
    return replace(base, name=f"{base.name}-{model}", backbone=backbone, lora_rank=0, frozen=())


def with_widths(base: DPMeshConfig, size: str) -> DPMeshConfig:
    """The config with a narrower or wider U-Net and ControlNet. size: a name in WIDTHS."""
    diffusion = base.diffusion
    backbone = replace(diffusion, unet=replace(diffusion.unet, channels=WIDTHS[size]))
    return replace(base, name=f"{base.name}-{size}", backbone=backbone)


def with_head(base: DPMeshConfig, head: Head) -> DPMeshConfig:
    """The config with another pose head. soft, straight_through: keep the VQ-VAE of base; ConfigError without one.

    The functions combine: with_head(with_timm(PAPER, "resnet50"), "direct").
    """
    name = f"{base.name}-{head}"
    if head == "vposer":
        prior = VPoserConfig()
        return replace(
            base, name=name, pose_prior=prior, regressor=replace(base.regressor, pose_code=prior.latent)
        )
    if head == "direct":
        direct = DirectConfig()
        code = 6 * direct.joints
        return replace(base, name=name, pose_prior=direct, regressor=replace(base.regressor, pose_code=code))
    if not isinstance(base.pose_prior, PoseVQVAEConfig):
        raise ConfigError(f"the head {head} needs a VQ-VAE", where=base.name)
    return replace(base, name=name, token_mode=head)


def ablations(base: DPMeshConfig, timm: Iterable[str]) -> dict[str, tuple[DPMeshConfig, ...]]:
    """The groups of Table 4, one change of `base` in each row, `base` itself last. timm: names of backbones."""
    return {
        "conditions": (*(with_conditions(base, c) for c in get_args(Conditions)[:-1]), base),
        "backbones": (*(with_timm(base, model) for model in timm), base),
        "pose heads": (*(with_head(base, head) for head in get_args(Head) if head != base.token_mode), base),
    }


ABLATIONS = ablations(PAPER, TIMM)


SMALL_ABLATIONS = {
    "conditions": ablations(EMBEDDED, ())["conditions"],
    "backbones": ablations(FUSED, TIMM_SMALL)["backbones"],
    "widths": (*(with_widths(FUSED, size) for size in WIDTHS), FUSED),
    "pose heads": ablations(EMBEDDED, ())["pose heads"],
}
"""Table 4 at the widths of `embedded`, which a CPU can train (benchmarks/accuracy/ablations.py)."""


def configuration(model: str | Mapping[str, Any]) -> DPMeshConfig:
    """A preset or ablation by name, optionally with overrides. Raises ConfigError.

    model: a name, or a table such as {"name": "paper", "backbone": {"pretrained": True}} whose other values override
    those of the named configuration, nested as its fields. The result keeps the name.
    """
    if not isinstance(model, str):
        changes = dict(model)
        if not isinstance(name := changes.pop("name", None), str):
            raise ConfigError(
                "it names no configuration", where="model", fix='Write name = "paper" into [model].'
            )
        return override(configuration(name), changes, "model")
    name = model
    groups = (*ABLATIONS.values(), *SMALL_ABLATIONS.values())
    rows = {row.name: row for group in groups for row in group if row.name not in PRESETS}
    if (config := (PRESETS | rows).get(name)) is None:
        raise ConfigError(
            f"there is no configuration {name[:80]!r}",
            fix=f"There are: {', '.join(PRESETS)}; for the ablation {', '.join(rows)}.",
        )
    return config
