"""The model: shapes, invariances, configs, and weights on disk."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dpmesh.ablations import configuration
from dpmesh.config import EMBEDDED, DPMeshConfig
from dpmesh.config_io import from_dict, to_dict
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.geometry.crop_camera import camera_translation, project
from dpmesh.model import DPMesh
from dpmesh.profiling import describe
from dpmesh.types import Inputs


@pytest.fixture(scope="module")
def model() -> DPMesh:
    torch.manual_seed(0)
    return DPMesh.from_config("embedded").eval()


def inputs(batch: int = 3, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return Inputs(
        crop=torch.rand(batch, 3, 256, 256, generator=generator),
        joints=torch.rand(batch, 30, 2, generator=generator) * 256,
        visible=(torch.rand(batch, 30, generator=generator) < 0.7).float(),
        focal=torch.tensor([400.0, 1000.0, 2500.0])[:batch],
    )


@torch.no_grad()
def test_the_contract(model: DPMesh):
    prediction = model(inputs(), features=True)
    vertices = model.body.vertex_count
    shapes = {
        "root_6d": (3, 6),
        "body_rotations": (3, 23, 3, 3),
        "betas": (3, 10),
        "camera": (3, 3),
        "joints_img": (3, 15, 3),
        "global_orient": (3, 3, 3),
        "transl": (3, 3),
        "vertices": (3, vertices, 3),
        "joints3d": (3, 30, 3),
        "joints2d": (3, 30, 2),
    }
    for name, shape in shapes.items():
        assert getattr(prediction, name).shape == shape, name
    assert prediction.features.fused.shape == (3, 256, 8, 8)
    assert set(prediction.features.maps) == {8, 16}
    assert model(inputs()).features is None
    rotations = torch.cat([prediction.global_orient[:, None], prediction.body_rotations], 1)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(3, 24, 3, 3), atol=1e-5, rtol=0)
    again = model.body(prediction.betas, rotations, prediction.transl)
    torch.testing.assert_close(again.vertices, prediction.vertices)
    torch.testing.assert_close(project(prediction.joints3d, inputs().focal), prediction.joints2d)


@torch.no_grad()
def test_a_batch_of_mixed_focals_equals_its_samples(model: DPMesh):
    batch = inputs()
    together = model(batch)
    for i in range(3):
        one = Inputs(*(getattr(batch, f.name)[i : i + 1] for f in dataclasses.fields(batch)[:4]))
        alone = model(one)
        for name in ("vertices", "joints2d", "camera", "transl"):
            torch.testing.assert_close(
                getattr(together, name)[i : i + 1], getattr(alone, name), atol=1e-3, rtol=1e-3
            )


@torch.no_grad()
def test_the_coordinate_of_an_invisible_joint_is_ignored(model: DPMesh):
    batch = inputs()
    moved = torch.where(batch.visible[..., None] > 0, batch.joints, torch.full_like(batch.joints, 777.0))
    one, other = model(batch), model(dataclasses.replace(batch, joints=moved))
    torch.testing.assert_close(one.vertices, other.vertices)


@torch.no_grad()
def test_without_visible_joints_there_is_still_a_body(model: DPMesh):
    batch = dataclasses.replace(inputs(), visible=torch.zeros(3, 30))
    vertices = model(batch).vertices
    assert torch.isfinite(vertices).all() and np.ptp(vertices[0].numpy(), axis=0).max() > 0.5
    moved = dataclasses.replace(batch, joints=batch.joints + 50)
    torch.testing.assert_close(model(moved).vertices, vertices)  # joints that are not visible have no effect


@torch.no_grad()
def test_encode_image_is_the_first_four_steps_of_forward(model: DPMesh):
    batch = inputs()
    expected = model(batch, features=True)
    features = model.encode_image(batch.crop, batch.joints, batch.visible)
    assert torch.equal(features.fused, expected.features.fused)
    assert all(torch.equal(features.maps[size], maps) for size, maps in expected.features.maps.items())
    again = model.encode_image(batch.crop, batch.joints, batch.visible, model.backbone.encode(batch.crop))
    assert torch.equal(again.fused, features.fused)
    regression = model.regress(features, batch.joints, batch.visible)
    assert torch.equal(model.decode_body(regression, batch.focal).vertices, expected.vertices)


def test_depth_scales_with_the_focal_length():
    """Twice the focal length gives twice the distance: the size in the crop depends on camera[2] only."""
    camera = torch.tensor([[0.1, -0.2, 0.3]]).expand(2, 3)
    near, far = camera_translation(camera, torch.tensor([500.0, 1000.0]), 2.5)
    assert far[2] == pytest.approx(2 * float(near[2]))
    assert torch.equal(near[:2], far[:2])
    span = 256 / 500 * near[2]  # metres that the crop shows at that depth
    assert float(span) == pytest.approx(2.5 * torch.sigmoid(torch.tensor(0.3)).item(), rel=1e-5)


def test_embedded_is_small_and_described():
    report = describe("embedded")
    assert report["total"]["parameters"] <= 12_000_000
    assert sum(p["parameters"] for p in report["parts"].values()) == report["total"]["parameters"]
    assert sum(p["share"] for p in report["parts"].values()) == pytest.approx(1, abs=0.02)
    assert report["parts"]["pose_prior"]["trainable"] == 0


def test_saved_weights_come_back(model: DPMesh, tmp_path):
    model.save_pretrained(tmp_path / "w", {"note": "test"})
    again = DPMesh.from_pretrained(tmp_path / "w")
    assert again.provenance == {"note": "test"}
    assert again.config == EMBEDDED
    with torch.no_grad():
        torch.testing.assert_close(again(inputs()).vertices, model(inputs()).vertices)
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == ["config.json", "model.safetensors"]


def test_half_weights_are_half_the_size(model: DPMesh, tmp_path):
    model.save_pretrained(tmp_path / "full", {})
    model.save_pretrained(tmp_path / "half", {}, half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.51 * sizes[0]
    assert next(DPMesh.from_pretrained(tmp_path / "half").parameters()).dtype == torch.float32


def test_wrong_weights_are_refused_by_name(model: DPMesh, tmp_path):
    model.save_pretrained(tmp_path, {})
    config = json.loads((tmp_path / "config.json").read_text())
    config["config"]["regressor"]["decoder_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"unexpected: regressor\.camera_head\.layers\.3"):
        DPMesh.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="cannot be read"):
        DPMesh.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="no such shipped weights"):
        DPMesh.from_pretrained("nonsense")


def test_configs_are_data_and_back():
    assert from_dict(DPMeshConfig, json.loads(json.dumps(to_dict(EMBEDDED)))) == EMBEDDED
    with pytest.raises(ConfigError, match="unknown setting 'width'"):
        from_dict(DPMeshConfig, {"name": "x", "width": 3})
    with pytest.raises(ConfigError, match="not one of"):
        from_dict(DPMeshConfig, {**to_dict(EMBEDDED), "token_mode": "hard"})
    with pytest.raises(ConfigError, match=r"prompt\.width=64 must equal"):
        dataclasses.replace(EMBEDDED, prompt=dataclasses.replace(EMBEDDED.prompt, width=64))
    with pytest.raises(ConfigError, match="no configuration"):
        configuration("huge")


def test_conv_weights_are_channels_last(model: DPMesh):
    weight = model.backbone.unet.down_blocks[0].resnets[0].conv1.weight
    assert np.prod(weight.shape[2:]) > 1
    assert weight.is_contiguous(memory_format=torch.channels_last)
