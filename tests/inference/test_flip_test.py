"""Test-time flip: mirrored inputs give the mirrored prediction, and the mean is of both passes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import WeightsError
from dpmesh.geometry.rotations import nearest_rotation, rotation_matrix
from dpmesh.inference.flip_test import FlipTest, mirrored, mirrored_rotations, predict_partly_mirrored
from dpmesh.inference.predictor import FLIPPED, Predictor
from dpmesh.model import DPMesh
from dpmesh.skeletons import COCO17, GRAPH15, JOINTS30
from dpmesh.types import Inputs, Prediction

SIDE = torch.tensor([-1.0, 1.0, 1.0])
ORDER = list(JOINTS30.flip)


@pytest.fixture(scope="module")
def model() -> DPMesh:
    return DPMesh.from_pretrained("embedded")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    torch.manual_seed(0)
    visible = torch.zeros(2, 30)
    visible[:, [i for i in COCO17.indices_in(JOINTS30) if i >= 0]] = 1
    visible[0, JOINTS30.index("L_Wrist")] = 0
    crop = torch.rand(2, 3, 256, 256)
    crop[..., 0] = crop[..., 1]  # the one column that a mirror of the mirror image does not bring back
    return Inputs(crop, torch.rand(2, 30, 2) * 160 + 48, visible, torch.tensor([500.0, 900.0]))


def test_a_mirror_exchanges_sides_about_pixel_128(inputs: Inputs) -> None:
    other = mirrored(inputs)
    assert torch.equal(other.crop[..., 128], inputs.crop[..., 128])
    assert torch.equal(other.crop[..., 1], inputs.crop[..., 255])
    left, right = JOINTS30.index("L_Wrist"), JOINTS30.index("R_Wrist")
    x, y = inputs.joints[0, left].tolist()
    assert other.joints[0, right].tolist() == pytest.approx([256 - x, y])
    assert other.visible[0, right] == 0 and other.visible[0, left] == 1
    again = mirrored(other)
    for name in ("crop", "joints", "visible", "focal"):
        torch.testing.assert_close(getattr(again, name), getattr(inputs, name))


def test_mirrored_rotations_make_the_mirror_image() -> None:
    """Of the free body, whose two sides are alike; 6 mm is what they differ by."""
    body = BodyModel(free_body())
    torch.manual_seed(1)
    rotations = rotation_matrix(torch.randn(4, 24, 3) * 0.6)
    betas = torch.randn(4, 10)
    own = body(betas, rotations).joints30
    other = body(betas, mirrored_rotations(rotations)).joints30
    off = (own - own[:, :1]) * SIDE - (other - other[:, :1])[:, ORDER]
    assert off.norm(dim=-1).max() < 0.006


def test_mirrored_inputs_give_the_mirrored_prediction(model: DPMesh, inputs: Inputs) -> None:
    flip = FlipTest(model)
    with torch.inference_mode():
        one, other, single = flip(inputs), flip(mirrored(inputs)), model(inputs)
    assert one.joint_sigma is not None and other.joint_sigma is not None
    turns = [torch.cat([p.global_orient[:, None], p.body_rotations], 1) for p in (one, other)]
    torch.testing.assert_close(mirrored_rotations(turns[1]), turns[0], atol=1e-4, rtol=0)
    for name in ("betas", "focal"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-4, rtol=0)
    for name in ("camera", "transl"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name) * SIDE, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.joint_sigma, other.joint_sigma[:, ORDER], atol=1e-5, rtol=0)
    places = other.joints_img[:, list(GRAPH15.flip)]
    places = torch.cat([1 - places[..., :1], places[..., 1:]], -1)
    torch.testing.assert_close(one.joints_img, places, atol=1e-4, rtol=0)
    assert (one.vertices - single.vertices).abs().max() > 0.01  # and one pass alone differs


def test_people_are_mirrored_one_by_one(model: DPMesh, inputs: Inputs) -> None:
    """Of two people the second one's mirror image is predicted: it is its part of the mean of both passes."""
    with torch.inference_mode():
        partly = predict_partly_mirrored(model, inputs, torch.tensor([False, True]))
        single, second = model(inputs), model(mirrored(inputs))
    close = {"atol": 1e-4, "rtol": 1e-4}
    for name in ("global_orient", "body_rotations", "transl", "joints3d", "joint_sigma", "joints_img"):
        torch.testing.assert_close(getattr(partly, name)[0], getattr(single, name)[0], **close)
    turns = mirrored_rotations(torch.cat([second.global_orient[:, None], second.body_rotations], 1))
    torch.testing.assert_close(partly.global_orient[1], turns[1, 0], **close)
    torch.testing.assert_close(partly.body_rotations[1], turns[1, 1:], **close)
    torch.testing.assert_close(partly.transl[1], second.transl[1] * SIDE, **close)
    own, other = (p.joints3d[1] - p.joints3d[1, :1] for p in (partly, second))
    assert (own - other[ORDER] * SIDE).norm(dim=-1).max() < 0.006  # the body's two sides differ by as much
    torch.testing.assert_close(
        partly.joint_sigma, torch.stack([single.joint_sigma[0], second.joint_sigma[1, ORDER]])
    )


def test_it_is_the_mean_of_both_passes(model: DPMesh, inputs: Inputs) -> None:
    with torch.inference_mode():
        one, first, second = FlipTest(model)(inputs), model(inputs), model(mirrored(inputs))
    torch.testing.assert_close(one.betas, (first.betas + second.betas) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.camera, (first.camera + second.camera * SIDE) / 2, atol=1e-4, rtol=1e-4)

    def angle(a: Tensor, b: Tensor) -> Tensor:
        return ((a.transpose(-1, -2) @ b).diagonal(dim1=-2, dim2=-1).sum(-1).clamp(-1, 3) / 2 - 0.5).acos()

    def turns(p: Prediction) -> Tensor:
        return torch.cat([p.global_orient[:, None], p.body_rotations], 1)

    middle, a, b = turns(one), turns(first), mirrored_rotations(turns(second))
    torch.testing.assert_close(angle(middle, a), angle(middle, b), atol=5e-3, rtol=0)
    torch.testing.assert_close(angle(middle, a) + angle(middle, b), angle(a, b), atol=5e-3, rtol=0)
    joints = model.body(one.betas, middle, one.transl).joints30
    torch.testing.assert_close(one.joints3d, joints, atol=1e-5, rtol=0)


def test_opposite_rotations_have_a_mean_all_the_same() -> None:
    half = rotation_matrix(torch.tensor([[0.0, torch.pi, 0.0]]))
    result = nearest_rotation((half + torch.eye(3)) / 2)
    torch.testing.assert_close(result @ result.transpose(-1, -2), torch.eye(3)[None], atol=1e-5, rtol=0)
    assert result.det().item() == pytest.approx(1, abs=1e-5)


def test_predictor_flips_and_notes_it() -> None:
    once, twice = (
        Predictor.from_pretrained("embedded", "cpu", 1, flip=flip, refine=False) for flip in (False, True)
    )
    assert twice.predicts_sigma and FLIPPED in twice.notes and FLIPPED not in once.notes
    image = torch.randint(0, 255, (200, 160, 3), dtype=torch.uint8).numpy()
    keypoints = torch.cat([torch.rand(1, 17, 2) * 120 + 20, torch.ones(1, 17, 1)], -1).numpy()
    a, b = (p(image, keypoints=keypoints).people[0] for p in (once, twice))
    assert abs(a.vertices - b.vertices).max() > 0.001
    refined = Predictor.from_pretrained("embedded", "cpu", 1)
    assert isinstance(refined.model, FlipTest) and FLIPPED not in refined.notes
    quick = Predictor.from_pretrained("embedded", "cpu", 1, fast=True)
    assert not isinstance(quick.model, FlipTest) and quick.refiner


def test_a_pass_that_is_not_finite_is_refused(model: DPMesh, inputs: Inputs) -> None:
    broken = FlipTest(model)
    broken.model = lambda both: replace(model(both), global_orient=torch.full((4, 3, 3), torch.nan))  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad(), pytest.raises(WeightsError, match="NaN or infinity"):
        broken(inputs)
