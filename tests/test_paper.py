"""`paper` at small widths: its differences from `release`."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpmesh.config import PAPER
from dpmesh.errors import ConfigError
from dpmesh.model import DPMesh
from dpmesh.types import Inputs

BACKBONE, REGRESSOR = PAPER.backbone, PAPER.regressor
SMALL = replace(
    PAPER,
    backbone=replace(
        BACKBONE,
        vae=replace(BACKBONE.vae, channels=(8, 8, 16, 16), layers=1, groups=4),
        unet=replace(BACKBONE.unet, channels=(16, 24, 32, 48), groups=8, heads=2, context_width=12),
        fused_channels=32,
    ),
    prompt=replace(PAPER.prompt, width=12),
    regressor=replace(
        REGRESSOR, fused_channels=32, width=16, heads=2, inner=24, volume_inner=24, pose_code=8
    ),
    pose_prior=replace(PAPER.pose_prior, tokens=6, codes=10, code_width=5, encoder_width=8),
    token_width=4,
    lora_rank=3,
)


@pytest.fixture(scope="module")
def model() -> DPMesh:
    torch.manual_seed(0)
    model = DPMesh(SMALL).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.dim() > 1 else 0.3)
    model.pose_prior.codebook.codes.normal_()
    return model


def inputs() -> Inputs:
    g = torch.Generator().manual_seed(1)
    visible = torch.ones(2, 30)
    visible[:, ::3] = 0
    return Inputs(
        crop=torch.rand(2, 3, 256, 256, generator=g),
        joints=torch.rand(2, 30, 2, generator=g) * 256,
        visible=visible,
        focal=torch.tensor([1500.0, 700.0]),
    )


@torch.no_grad()
def test_stable_diffusions_own_range_and_scale(model: DPMesh):
    """The inputs of the pre-trained U-Net: images in [-1, 1], latents times 0.18215."""
    vae, crop = model.backbone.vae, inputs().crop
    moments = vae.quant_conv(vae.encoder(crop * 2 - 1))
    torch.testing.assert_close(vae(crop), moments[:, :4] * 0.18215)


@torch.no_grad()
def test_the_prompt_is_a_two_layer_mlp_on_visible_joints(model: DPMesh):
    batch = inputs()
    first, act, second = model.prompt.mlp
    tokens = model.prompt(batch.joints, batch.visible)
    torch.testing.assert_close(tokens[:, 1], second(act(first(batch.joints[:, 1] / 256))))
    assert torch.equal(tokens[:, 0], model.prompt.unseen.expand(2, -1))
    elsewhere = torch.where(batch.visible[..., None] > 0, batch.joints, torch.full_like(batch.joints, 99.0))
    moved = model(replace(batch, joints=elsewhere))
    torch.testing.assert_close(model(batch).vertices, moved.vertices)


@torch.no_grad()
def test_the_finest_map_is_a_feature_too(model: DPMesh):
    """Maps "in the same resolution" as the features of 8, 16 and 32 cells (paper 3.4)."""
    features = model(inputs(), features=True).features
    assert {size: tuple(m.shape) for size, m in features.maps.items()} == {
        size: (2, 30, size, size) for size in (8, 16, 32)
    }
    fusion = model.backbone.fusion
    at = [torch.randn(2, w, s, s) for w, s in zip((48, 32, 24, 16), (4, 8, 16, 32), strict=True)]
    entered: list[torch.Tensor] = []
    handle = fusion.from_32.register_forward_pre_hook(lambda _m, args: entered.append(args[0]))
    fusion(at, features.maps)
    handle.remove()
    assert torch.equal(entered[0], torch.cat([at[3], features.maps[32]], 1))


@torch.no_grad()
def test_the_pose_is_the_soft_mean_of_codes(model: DPMesh):
    prediction, prior = model(inputs()), model.pose_prior
    assert prediction.pose_latent.shape == (2, 6, 10)
    codes = F.softmax(prediction.pose_latent, -1) @ prior.codebook.codes
    torch.testing.assert_close(prediction.body_rotations, prior.decode(codes))


@torch.no_grad()
def test_each_sample_has_its_own_focal_length(model: DPMesh):
    both = inputs()
    prediction = model(both)
    for i in range(2):
        one = Inputs(
            both.crop[i : i + 1], both.joints[i : i + 1], both.visible[i : i + 1], both.focal[i : i + 1]
        )
        alone = model(one)
        torch.testing.assert_close(prediction.transl[i : i + 1], alone.transl, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(prediction.joints2d[i : i + 1], alone.joints2d, atol=0.1, rtol=1e-3)


def test_without_a_lifter_an_image_is_needed(model: DPMesh):
    with pytest.raises(ConfigError, match="needs an image"):
        model.regress(None, torch.zeros(1, 30, 2), torch.zeros(1, 30))
