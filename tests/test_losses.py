"""Each term against a number worked out by hand."""

import dataclasses
import math

import pytest
import torch

from dpmesh.geometry.heatmap import draw_heatmaps
from dpmesh.losses import Answer, LossWeights, image_space, loss_terms, reading_terms, surface_terms
from dpmesh.skeletons import GRAPH15, JOINTS30


def answer(batch: int = 2) -> Answer:
    generator = torch.Generator().manual_seed(0)
    joints3d = torch.randn(batch, 30, 3, generator=generator) * 0.3 + torch.tensor([0.0, 0.0, 4.0])
    return Answer(
        rotations=torch.eye(3).expand(batch, 24, 3, 3),
        betas=torch.zeros(batch, 10),
        joints3d=joints3d,
        joints2d=torch.rand(batch, 30, 2, generator=generator) * 256,
    )


def test_the_truth_costs_nothing():
    truth = answer()
    terms = loss_terms(truth, image_space(truth.joints3d, truth.joints2d), truth)
    assert all(value == 0 for value in terms.values())
    assert LossWeights().total(terms) == 0


def test_terms_in_their_units():
    truth = answer()
    img = image_space(truth.joints3d, truth.joints2d)
    moved = dataclasses.replace(truth, joints3d=truth.joints3d + torch.tensor([0.0, 0.0, 2.0]))
    assert loss_terms(moved, img, truth)["joints3d"] == pytest.approx(0, abs=1e-6)  # root-relative
    one = truth.joints3d.clone()
    one[:, JOINTS30.index("L_Knee"), 0] += 0.9
    assert loss_terms(dataclasses.replace(truth, joints3d=one), img, truth)["joints3d"] == pytest.approx(
        0.9 / 90
    )
    pixels = dataclasses.replace(truth, joints2d=truth.joints2d + 12.8)
    assert loss_terms(pixels, img, truth)["joints2d"] == pytest.approx(0.05, rel=1e-4)
    fat = dataclasses.replace(truth, betas=torch.ones(2, 10))
    assert loss_terms(fat, img, truth)["betas"] == pytest.approx(1)


def test_root_and_body_are_told_apart():
    truth = answer()
    turned = truth.rotations.clone()
    turned[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    terms = loss_terms(
        dataclasses.replace(truth, rotations=turned), image_space(truth.joints3d, truth.joints2d), truth
    )
    assert terms["root"] == pytest.approx(4 / 9)
    assert terms["pose"] == 0


def test_image_space_of_a_known_joint():
    truth = answer()
    found = image_space(truth.joints3d, truth.joints2d)
    at = GRAPH15.index("R_Wrist")
    whole = JOINTS30.index("R_Wrist")
    torch.testing.assert_close(found[:, at, :2], truth.joints2d[:, whole] / 256)
    depth = truth.joints3d[:, whole, 2] - truth.joints3d[:, 0, 2]
    torch.testing.assert_close(found[:, at, 2], (depth + 1) / 2)
    assert (found[:, 0, 2] == 0.5).all()  # the pelvis itself


def test_joints_outside_the_crop_do_not_pull_at_the_decoder():
    truth = answer()
    far = truth.joints2d.clone()
    far[:] = 400.0
    outside = dataclasses.replace(truth, joints2d=far)
    assert loss_terms(outside, torch.rand(2, 15, 3), outside)["joints_img"] == 0


def test_reading_the_truth_costs_little_and_errors_cost_what_they_are():
    truth = answer()
    heat = draw_heatmaps(truth.joints2d, torch.ones(2, 30), sigma=1.0)
    depth = (truth.joints3d[..., 2] - truth.joints3d[:, :1, 2])[..., None]
    places = torch.cat([truth.joints2d, depth], -1)
    terms = reading_terms(heat.clamp(min=1e-30).log(), places, truth)
    assert terms["read_places"] == terms["read_depths"] == 0
    flat = reading_terms(torch.zeros(2, 30, 32, 32), places, truth)["read_cells"]
    assert flat == pytest.approx(math.log(1024), rel=1e-4)
    assert terms["read_cells"] < flat / 2
    off = reading_terms(heat, places + torch.tensor([2.56, 2.56, 0.25]), truth)
    assert off["read_places"] == pytest.approx(0.01, rel=1e-3)
    assert off["read_depths"] == pytest.approx(0.25, rel=1e-4)


def test_surface_terms_are_cross_entropy_and_metres_over_the_persons_own_cells():
    torch.manual_seed(0)
    surface, depth = torch.randn(3, 26, 4, 4), torch.randn(3, 4, 4)
    parts = torch.randint(0, 25, (3, 4, 4))
    parts[0, 0] = 0
    own = torch.tensor([True, False, True])
    terms = surface_terms(surface, parts, depth, own)
    chosen = surface[own, :-1].permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(
        terms["surface_parts"], torch.nn.functional.cross_entropy(chosen, parts[own].flatten())
    )
    person = (parts > 0) & own[:, None, None]
    torch.testing.assert_close(terms["surface_depths"], (surface[:, -1] - depth).abs()[person].mean())
    nobody = surface_terms(surface, parts, depth, torch.zeros(3, dtype=torch.bool))
    assert nobody["surface_parts"] == nobody["surface_depths"] == 0
