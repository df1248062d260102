"""The models of Table 4 at small widths: the effect of each condition, backbone and pose head, and all combinations."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from dpmesh.ablations import (
    ABLATIONS,
    SMALL_ABLATIONS,
    TIMM,
    TIMM_SMALL,
    Head,
    configuration,
    with_conditions,
    with_head,
    with_timm,
    with_widths,
)
from dpmesh.backbone.diffusion import Conditions
from dpmesh.backbone.joint_reading import FusedReading
from dpmesh.backbone.prompt import ConstantPrompt, JointPrompt
from dpmesh.config import EMBEDDED, FUSED, PAPER, DPMeshConfig
from dpmesh.config_io import from_dict, to_dict
from dpmesh.errors import ConfigError
from dpmesh.model import DPMesh
from dpmesh.types import Inputs, Prediction

SMALL = replace(
    PAPER,
    name="small",
    backbone=replace(
        PAPER.diffusion,
        vae=replace(PAPER.diffusion.vae, channels=(8, 8, 16, 16), layers=1, groups=4, mid_attention=False),
        unet=replace(
            PAPER.diffusion.unet, channels=(16, 24, 32, 48), layers=1, groups=8, heads=2, context_width=12
        ),
        fused_channels=32,
    ),
    prompt=replace(PAPER.prompt, width=12),
    regressor=replace(
        PAPER.regressor, fused_channels=32, width=16, heads=2, inner=24, volume_inner=24, pose_code=8
    ),
    pose_prior=replace(PAPER.pose_prior, tokens=6, codes=10, code_width=5, encoder_width=8),
    token_width=4,
    lora_rank=3,
)
CONDITIONS: tuple[Conditions, ...] = get_args(Conditions)
HEADS: tuple[Head, ...] = get_args(Head)
TINY = ("resnet10t", "hrnet_w18_small", "vit_tiny_patch16_224", "swinv2_tiny_window16_256")
"""Of the families of the paper's four."""


def made(config: DPMeshConfig, start: bool = False) -> DPMesh:
    """start: as training finds it; else with random numbers also where training starts from zeros."""
    torch.manual_seed(0)
    model = DPMesh(config).eval()
    for p in model.parameters():
        if not start and not p.any():
            nn.init.normal_(p, std=0.1)
    if hasattr(model.pose_prior, "codebook"):
        model.pose_prior.codebook.codes.normal_()
    return model


def inputs(seed: int = 1) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    visible = torch.ones(1, 30)
    visible[:, ::3] = 0
    return Inputs(
        crop=torch.rand(1, 3, 256, 256, generator=g),
        joints=torch.rand(1, 30, 2, generator=g) * 256,
        visible=visible,
        focal=torch.tensor([1500.0]),
    )


def fused(model: DPMesh, batch: Inputs) -> Tensor:
    with torch.no_grad():
        return model.encode_image(batch.crop, batch.joints, batch.visible).fused


def moved(batch: Inputs) -> Inputs:
    return replace(batch, joints=256 - batch.joints)


def names(model: DPMesh, part: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(part)}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("variant", [*CONDITIONS, *TINY])
def test_every_combination_runs_forward_and_backward(variant: str, head: Head):
    """Each trainable parameter gets a gradient: nothing is built that is not used."""
    base = with_timm(SMALL, variant) if variant in TINY else with_conditions(SMALL, variant)
    model = made(with_head(base, head))
    prediction: Prediction = model(inputs())
    assert prediction.vertices.shape == (1, model.body.vertex_count, 3)
    assert torch.isfinite(prediction.vertices).all()
    (
        prediction.vertices.square().mean() + prediction.joints2d.mean() + prediction.joints_img.mean()
    ).backward()
    trainable = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert trainable.keys() >= names(model, "regressor") | names(model, "prompt")
    without = [name for name, grad in trainable.items() if grad is None or not torch.isfinite(grad).all()]
    assert not without
    fixed = ("pose_prior", "backbone.vae", *(() if variant in TINY else ("backbone.unet",)))
    assert all(name.startswith(fixed) for name, p in model.named_parameters() if not p.requires_grad)


def test_z0_ignores_the_joints():
    model = made(with_conditions(SMALL, "z0"))
    assert not names(model, "backbone.controlnet") and names(model, "prompt") == {"prompt.tokens"}
    batch = inputs()
    assert torch.equal(fused(model, batch), fused(model, moved(batch)))
    assert not torch.equal(fused(model, batch), fused(model, replace(batch, crop=1 - batch.crop)))


def test_a_fresh_controlnet_is_none():
    """Its residuals start at zero, so that z0 and z0+cj start as the same function."""
    without, fresh = (made(with_conditions(SMALL, c), start=True) for c in ("z0", "z0+cj"))
    fresh.load_state_dict(without.state_dict(), strict=False)
    torch.testing.assert_close(fused(without, inputs()), fused(fresh, inputs()))


def test_cj_changes_the_features_and_its_prompt_is_constant():
    model, batch = made(with_conditions(SMALL, "z0+cj")), inputs()
    assert isinstance(model.prompt, ConstantPrompt)
    assert torch.equal(
        model.prompt(batch.joints, batch.visible), model.prompt(256 - batch.joints, batch.visible)
    )
    assert not torch.allclose(fused(model, batch), fused(model, moved(batch)))
    assert model.backbone.controlnet.conv_in.in_channels == 4 + 30


def test_added_heatmaps_reach_the_controlnet_in_the_latent():
    model, batch = made(with_conditions(SMALL, "z0+cj_added")), inputs()
    backbone = model.backbone
    assert backbone.controlnet.conv_in.in_channels == 4
    read: list[Tensor] = []
    backbone.controlnet.conv_in.register_forward_pre_hook(lambda _m, args: read.append(args[0]))
    backbone.vae.register_forward_hook(lambda _m, _args, latent: read.append(latent))
    fused(model, batch)
    fused(model, replace(batch, visible=torch.zeros(1, 30)))
    latent, joined, same, without = read
    assert torch.equal(latent, same) and not torch.allclose(joined, without)
    fresh = made(model.config, start=True).backbone.added  # training starts without them
    assert torch.equal(fresh(latent, torch.rand(1, 30, 32, 32)), latent)
    assert names(model, "backbone.added") == {
        f"backbone.added.layers.{i}.{n}" for i in (0, 2, 4) for n in ("weight", "bias")
    }


def test_all_conditions_are_the_paper_itself():
    full = with_conditions(SMALL, "z0+cj+ct")
    assert full.backbone == SMALL.backbone
    assert isinstance(DPMesh(full).prompt, JointPrompt)


def test_configurations_of_the_table():
    groups = {group: [row.name for row in rows] for group, rows in ABLATIONS.items()}
    assert groups == {
        "conditions": ["paper-z0", "paper-z0+cj", "paper-z0+cj_added", "paper"],
        "backbones": ["paper-resnet50", "paper-hrnet_w48", "paper-vit_l16", "paper-swinv2_l", "paper"],
        "pose heads": ["paper-straight_through", "paper-vposer", "paper-direct", "paper"],
    }
    small = {group: [row.name for row in rows] for group, rows in SMALL_ABLATIONS.items()}
    assert small == {
        "conditions": ["embedded-z0", "embedded-z0+cj", "embedded-z0+cj_added", "embedded"],
        "backbones": ["fused-resnet10", "fused-vit_ti", "fused-swinv2_6m", "fused"],
        "widths": ["fused-narrow", "fused-wide", "fused"],
        "pose heads": [
            "embedded-soft",
            "embedded-straight_through",
            "embedded-vposer",
            "embedded-direct",
            "embedded",
        ],
    }
    for rows in (*ABLATIONS.values(), *SMALL_ABLATIONS.values()):
        for row in rows:
            assert configuration(row.name) is row
            assert from_dict(DPMeshConfig, json.loads(json.dumps(to_dict(row)))) == row
    four = [row.backbone.model for row in ABLATIONS["backbones"][:-1]]
    assert four == [kind.model for kind in TIMM.values()] and not any(
        row.backbone.pretrained for row in ABLATIONS["backbones"][:-1]
    )


def test_small_backbones_are_of_one_size():
    """Within a tenth of the diffusion backbone's parameters, heat maps and all."""
    own = sum(p.numel() for p in DPMesh(FUSED).backbone.parameters())
    for name in TIMM_SMALL:
        model = DPMesh(with_timm(FUSED, name))
        assert abs(sum(p.numel() for p in model.backbone.parameters()) / own - 1) < 0.12
        assert fused(model.eval(), inputs()).shape == (1, 256, 8, 8)


@pytest.mark.parametrize("config", [FUSED, with_timm(FUSED, "resnet10")], ids=lambda config: config.name)
@torch.no_grad()
def test_joints_are_read_off_the_fused_map(config: DPMeshConfig):
    """Of every backbone, and off nothing else."""
    batch, model = inputs(), DPMesh(config).eval()
    features = model.encode_image(batch.crop, batch.joints, batch.visible)
    assert isinstance(model.backbone.reading, FusedReading) and features.readings is not None
    torch.testing.assert_close(features.readings.positions, model.backbone.reading(features.fused).positions)


def test_widths_stay_within_the_limit():
    """12 M parameters for the embedded model, which has an uncertainty head besides."""
    assert sum(p.numel() for p in DPMesh(with_widths(EMBEDDED, "wide")).parameters()) < 12e6


def test_sizes_that_a_backbone_does_not_take_are_refused():
    backbone = replace(with_timm(FUSED, "resnet10").backbone, embed_dim=48)
    with pytest.raises(ConfigError, match="no such sizes"):
        DPMesh(replace(FUSED, backbone=backbone))


def test_invalid_combinations_are_refused():
    release = configuration("release")
    with pytest.raises(ConfigError, match="needs a VQ-VAE"):
        with_head(release, "soft")
    assert with_conditions(release, "z0").frozen == ("vae",)
    assert with_timm(release, "resnet50").frozen == ()
    with pytest.raises(ConfigError, match="frozen has controlnet"):
        replace(release, backbone=replace(release.diffusion, conditions="z0"))
    timm = with_timm(SMALL, "resnet10t")
    with pytest.raises(ConfigError, match="needs a U-Net"):
        replace(timm, lora_rank=3)
    with pytest.raises(ConfigError, match="frozen has vae"):
        replace(timm, frozen=("vae",))
    with pytest.raises(ConfigError, match="resnet10t, not a diffusion U-Net"):
        _ = timm.diffusion
    with pytest.raises(ConfigError, match=r"fused_channels=32 must equal"):
        replace(timm, backbone=replace(timm.backbone, fused_channels=64))
