"""The conventions of released checkpoints behind the regressor (regressor/test_released.py): pose, camera, gradients.

The numbers are those of the public code, written out again here: nothing is computed by the package that is also
what a test expects.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpmesh.ablations import configuration
from dpmesh.config import PAPER, RELEASE, stored_config
from dpmesh.config_io import to_dict
from dpmesh.errors import WeightsError
from dpmesh.geometry.crop_camera import project
from dpmesh.model import DPMesh
from dpmesh.types import Inputs


def test_six_numbers_are_two_columns_row_by_row(model: DPMesh, inputs: Inputs):
    """Elements 0, 2, 4 and 1, 3, 5; Gram-Schmidt gives the columns of the matrix."""
    with torch.no_grad():
        prediction = model(inputs)
    first, second = prediction.root_6d[:, 0::2], prediction.root_6d[:, 1::2]
    first = F.normalize(first, dim=1)
    second = F.normalize(second - (first * second).sum(1, keepdim=True) * first, dim=1)
    third = torch.linalg.cross(first, second, dim=1)
    expected = torch.stack([first, second, third], dim=2)
    torch.testing.assert_close(prediction.global_orient, expected, atol=1e-5, rtol=1e-4)


def test_vposer_decodes_the_code_and_hands_rest(model: DPMesh, inputs: Inputs):
    with torch.no_grad():
        prediction = model(inputs)
        state = {name.removeprefix("bodyprior_dec_"): p for name, p in model.pose_prior.named_parameters()}
        x = F.leaky_relu(F.linear(prediction.pose_latent, state["fc1.weight"], state["fc1.bias"]), 0.2)
        x = F.leaky_relu(F.linear(x, state["fc2.weight"], state["fc2.bias"]), 0.2)
        x = F.linear(x, state["out.weight"], state["out.bias"]).view(2, 21, 3, 2)
    assert prediction.pose_latent.shape == (2, 8)
    torch.testing.assert_close(
        prediction.body_rotations[:, :21, :, 0], F.normalize(x[..., 0], dim=-1), atol=1e-5, rtol=1e-4
    )
    plane = torch.linalg.cross(x[..., 0], x[..., 1], dim=-1)
    torch.testing.assert_close(
        prediction.body_rotations[:, :21, :, 2], F.normalize(plane, dim=-1), atol=1e-5, rtol=1e-4
    )
    assert torch.equal(prediction.body_rotations[:, 21:], torch.eye(3).expand(2, 2, 3, 3))


def test_the_camera_and_the_first_samples_focal_length(model: DPMesh, inputs: Inputs):
    with torch.no_grad():
        prediction = model(inputs)
    k = 1500.0 * 2.5 / 256
    expected = torch.stack(
        [prediction.camera[:, 0], prediction.camera[:, 1], k * torch.sigmoid(prediction.camera[:, 2])], dim=1
    )
    torch.testing.assert_close(prediction.transl, expected)
    assert prediction.focal.tolist() == [1500.0, 1500.0]
    x, y, z = prediction.joints3d.unbind(-1)
    pixels = torch.stack([x / (z + 1e-4) * 1500.0 + 128, y / (z + 1e-4) * 1500.0 + 128], dim=-1)
    torch.testing.assert_close(prediction.joints2d, pixels, rtol=1e-4, atol=1e-2)


def test_one_focal_length_for_a_batch_is_a_switch_that_the_paper_leaves_off(model: DPMesh, inputs: Inputs):
    assert RELEASE.shared_focal and not PAPER.shared_focal
    own = DPMesh(replace(model.config, shared_focal=False)).eval()
    own.load_state_dict(model.state_dict())
    with torch.no_grad():
        shared, each = model(inputs), own(inputs)
    torch.testing.assert_close(shared.transl[0], each.transl[0])
    assert each.transl[1, 2] == pytest.approx(float(shared.transl[1, 2]) * 700 / 1500, rel=1e-4)


def test_frozen_parts_get_no_gradient_and_the_rest_does(model: DPMesh, inputs: Inputs):
    prediction = model(inputs, features=True)
    (prediction.vertices.square().mean() + prediction.joints_img.sum()).backward()
    for name, p in model.named_parameters():
        learns = not name.startswith(("backbone.vae", "backbone.controlnet", "pose_prior")) and (
            ".lora_" in name or not name.startswith("backbone.unet")
        )
        assert p.requires_grad == learns, name
        assert (p.grad is not None) == learns, name
    model.zero_grad()


def test_weights_stored_before_the_position_table_was_a_setting(model: DPMesh, tmp_path: Path):
    """A `release` without the field would run with DETR's table, and other outputs; other weights have DETR's."""
    model.save_pretrained(tmp_path, {})
    again = DPMesh.from_pretrained(tmp_path)
    assert again.config.regressor.position_table == "released"
    content = json.loads((tmp_path / "config.json").read_text())
    del content["config"]["regressor"]["position_table"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="position_table") as caught:
        DPMesh.from_pretrained(tmp_path)
    assert "dpmesh convert released" in caught.value.fix
    stored = to_dict(configuration("embedded"))
    del stored["regressor"]["position_table"]
    assert stored_config(stored, "").regressor.position_table == "detr"


def test_every_norm_has_the_released_epsilon(model: DPMesh):
    """1e-6 in the encoder and before the transformer blocks of both nets, 1e-5 elsewhere. Random features are too
    large for an output to show it."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            small = ".vae." in name or (".attentions." in name and name.endswith(".norm"))
            assert layer.eps == (1e-6 if small else 1e-5), name


def test_a_tenth_of_a_millimetre_is_added_to_the_depth():
    """1000 px · 1 m / 1.0001 m + 128, and 1000 px · 0.1 mm / 0.1 mm + 128 for a point in the camera's own plane."""
    points = torch.tensor([[[1.0, -1.0, 1.0], [1e-4, 0.0, 0.0]]])
    result = project(points, torch.tensor([1000.0]))
    expected = torch.tensor([[[1127.9000, -871.9000], [1128.0, 128.0]]])
    torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)
