"""timm backbones: heatmaps join the early features; output as the diffusion backbone's; timm stays optional."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpmesh.ablations import with_timm
from dpmesh.backbone.features import Features
from dpmesh.backbone.timm import FAMILIES, TimmBackbone, TimmConfig
from dpmesh.config import PAPER
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.geometry.crop_camera import draw_heatmaps
from dpmesh.model import DPMesh

TINY = {
    "resnet": "resnet10t",
    "hrnet": "hrnet_w18_small",
    "vision_transformer": "vit_tiny_patch16_224",
    "swin_transformer_v2": "swinv2_tiny_window16_256",
}
EARLY = {"resnet": 64, "hrnet": 64, "vision_transformer": 16, "swin_transformer_v2": 64}
"""Cells on a side of the map that the heatmaps join."""


def config(model: str) -> TimmConfig:
    return TimmConfig(model=model, fused_channels=32)


def batch_of(batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    visible = torch.ones(batch, 30)
    visible[:, 4] = 0
    crop = torch.rand(batch, 3, 256, 256, generator=g)
    return crop, torch.rand(batch, 30, 2, generator=g) * 256, visible


def features(backbone: TimmBackbone, crop: Tensor, joints: Tensor, visible: Tensor) -> Features:
    return backbone(backbone.encode(crop), backbone.draw_heatmaps(joints, visible))


@pytest.mark.parametrize("family", TINY)
@torch.no_grad()
def test_starts_unchanged_and_then_reads_the_heatmaps(family: str):
    torch.manual_seed(0)
    backbone = TimmBackbone(config(TINY[family])).eval()
    assert backbone.family is FAMILIES[family]
    crop, joints, visible = batch_of()
    normal = (crop - torch.tensor(backbone.model.pretrained_cfg["mean"])[:, None, None]) / torch.tensor(
        backbone.model.pretrained_cfg["std"]
    )[:, None, None]
    last: list[Tensor] = []
    backbone.mix.register_forward_pre_hook(lambda _m, args: last.append(args[0]))
    entered: list[Tensor] = []
    backbone.join.register_forward_pre_hook(lambda _m, args: entered.append(args[0]))
    first = features(backbone, crop, joints, visible)
    assert first.fused.shape == (1, 32, 8, 8) and first.maps == {} and first.readings is None
    plain = backbone.model.forward_features(normal)
    if family == "vision_transformer":
        plain = backbone.down(plain[:, 1:].mT.unflatten(2, (16, 16)))
    elif family == "swin_transformer_v2":
        plain = plain.permute(0, 3, 1, 2)
    torch.testing.assert_close(last[0], plain, atol=1e-4, rtol=1e-4)

    hint = entered[0][:, -30:]
    size = EARLY[family]
    assert backbone.early_size == size
    assert hint.shape[-1] == size and not hint[:, 4].any()
    step = max(32 // size, 1), max(size // 32, 1)  # of the 32-cell map, of this one
    coarse = draw_heatmaps(joints, visible, size=32)
    torch.testing.assert_close(hint[..., :: step[1], :: step[1]], coarse[..., :: step[0], :: step[0]])

    nn.init.normal_(backbone.join.weight, std=0.1)
    before = features(backbone, crop, joints, visible).fused
    assert not torch.allclose(before, features(backbone, crop, 256 - joints, visible).fused)
    elsewhere = torch.where(visible[..., None] > 0, joints, 7.0)
    torch.testing.assert_close(before, features(backbone, crop, elsewhere, visible).fused)
    assert not backbone.model.get_submodule(backbone.family.stem)._forward_hooks


def test_stored_weights_come_back_without_a_hub(tmp_path: Path):
    """A stored config may have pretrained=True and keeps it; loading downloads nothing."""
    small = replace(
        with_timm(PAPER, "resnet10t"),
        backbone=config("resnet10t"),
        regressor=replace(
            PAPER.regressor, fused_channels=32, width=16, heads=2, inner=16, volume_inner=16, pose_code=8
        ),
        pose_prior=replace(PAPER.pose_prior, tokens=4, codes=8, code_width=4, encoder_width=8),
    )
    model = DPMesh(small).eval()
    model.config = replace(small, backbone=replace(small.backbone, pretrained=True))
    model.save_pretrained(tmp_path, {})
    again = DPMesh.from_pretrained(tmp_path)
    assert again.config == model.config and not any(name.startswith("prompt") for name in again.state_dict())
    with torch.no_grad():
        assert torch.equal(again.encode_image(*batch_of()).fused, model.encode_image(*batch_of()).fused)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=r"cannot be downloaded .* pretrained=False"):
        TimmBackbone(replace(config("resnet10t"), pretrained=True))


def test_unknown_models_are_refused():
    with pytest.raises(ConfigError, match="no such model"):
        TimmBackbone(config("resnet51"))
    with pytest.raises(ConfigError, match=r"heatmaps cannot join models of timm's densenet .* resnet, hrnet"):
        TimmBackbone(config("densenet121"))


@pytest.mark.parametrize("missing", ["timm", "torchvision"])
def test_without_timm_the_error_names_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=rf"{missing} is not installed.*pip install 'dpmesh\[timm\]'"):
        TimmBackbone(config("resnet10t"))


def test_nothing_else_imports_timm():
    """Nor does building the model that ships."""
    script = (
        "import sys; import dpmesh.profiling; from dpmesh.model import DPMesh; DPMesh.from_config('embedded')\n"
        "assert not {'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
