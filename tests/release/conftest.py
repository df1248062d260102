"""`release` at small widths, and inputs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dpmesh.config import RELEASE
from dpmesh.model import DPMesh
from dpmesh.pose_prior.vposer import VPoserConfig
from dpmesh.types import Inputs

BACKBONE, REGRESSOR = RELEASE.backbone, RELEASE.regressor
SMALL = replace(
    RELEASE,
    backbone=replace(
        BACKBONE,
        vae=replace(BACKBONE.vae, channels=(8, 8, 16, 16), layers=1, groups=4),
        unet=replace(BACKBONE.unet, channels=(16, 24, 32, 48), groups=8, heads=2, context_width=12),
        fused_channels=32,
    ),
    prompt=replace(RELEASE.prompt, width=12),
    regressor=replace(
        REGRESSOR, fused_channels=32, width=16, heads=2, inner=24, volume_inner=24, pose_code=8
    ),
    pose_prior=VPoserConfig(latent=8, hidden=16),
    lora_rank=3,
)


@pytest.fixture(scope="module")
def model() -> DPMesh:
    torch.manual_seed(0)
    model = DPMesh(SMALL).eval()
    for p in model.parameters():  # zero convolutions, LoRA and biases would hide what they belong to
        nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.dim() > 1 else 0.3)
    return model


@pytest.fixture(scope="module")
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
