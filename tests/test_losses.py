"""Each loss term against an expected number."""

import dataclasses
import math

import pytest
import torch

from dpmesh.geometry.crop_camera import draw_heatmaps
from dpmesh.losses import (
    TERMS,
    KnownTargets,
    LossWeights,
    SupervisedBody,
    balanced,
    image_space,
    loss_terms,
    reading_terms,
    surface_terms,
    uncertainty_term,
)
from dpmesh.regressor.uncertainty import LEAST, TAILS
from dpmesh.skeletons import GRAPH15, JOINTS30


def body(batch: int = 2) -> SupervisedBody:
    generator = torch.Generator().manual_seed(0)
    joints3d = torch.randn(batch, 30, 3, generator=generator) * 0.3 + torch.tensor([0.0, 0.0, 4.0])
    return SupervisedBody(
        rotations=torch.eye(3).expand(batch, 24, 3, 3),
        betas=torch.zeros(batch, 10),
        joints3d=joints3d,
        joints2d=torch.rand(batch, 30, 2, generator=generator) * 256,
    )


def test_the_truth_costs_nothing():
    truth = body()
    terms = loss_terms(truth, image_space(truth.joints3d, truth.joints2d), truth)
    assert all(value == 0 for value in terms.values())
    assert LossWeights().total(terms) == 0


def test_terms_in_their_units():
    truth = body()
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


def test_root_and_body_have_separate_terms():
    truth = body()
    turned = truth.rotations.clone()
    turned[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    terms = loss_terms(
        dataclasses.replace(truth, rotations=turned), image_space(truth.joints3d, truth.joints2d), truth
    )
    assert terms["root"] == pytest.approx(4 / 9)
    assert terms["pose"] == 0


def test_image_space_of_a_known_joint():
    truth = body()
    predicted = image_space(truth.joints3d, truth.joints2d)
    at = GRAPH15.index("R_Wrist")
    whole = JOINTS30.index("R_Wrist")
    torch.testing.assert_close(predicted[:, at, :2], truth.joints2d[:, whole] / 256)
    depth = truth.joints3d[:, whole, 2] - truth.joints3d[:, 0, 2]
    torch.testing.assert_close(predicted[:, at, 2], (depth + 1) / 2)
    assert (predicted[:, 0, 2] == 0.5).all()  # the pelvis itself


def test_joints_outside_the_crop_do_not_pull_at_the_decoder():
    truth = body()
    far = truth.joints2d.clone()
    far[:] = 400.0
    outside = dataclasses.replace(truth, joints2d=far)
    assert loss_terms(outside, torch.rand(2, 15, 3), outside)["joints_img"] == 0


def test_reading_the_truth_costs_little_and_errors_cost_what_they_are():
    truth = body()
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
    none_valid = surface_terms(surface, parts, depth, torch.zeros(3, dtype=torch.bool))
    assert none_valid["surface_parts"] == none_valid["surface_depths"] == 0


def known(truth: SupervisedBody, **changed: torch.Tensor) -> KnownTargets:
    return dataclasses.replace(KnownTargets.complete(truth), **changed)


def wrong(truth: SupervisedBody) -> SupervisedBody:
    """Every number off by one unit of its term."""
    turned = truth.rotations + 1
    return SupervisedBody(turned, truth.betas + 1, truth.joints3d + _OFF, truth.joints2d + 25.6)


_OFF = torch.ones(30, 1)
_OFF[0] = 0  # the pelvis stays, so that all others are a metre off it


def test_masks_leave_out_unknown_targets_and_keep_the_denominator():
    """A plain mean over all elements, masked zeros included."""
    truth = body()
    img, predicted = torch.rand(2, 15, 3), wrong(truth)
    joints, pose = torch.ones(2, 30), torch.ones(2, 24)
    joints[0, 3:], pose[0, 0], pose[1, 1:8] = 0, 0, 0
    mask = known(truth, joints2d=joints, joints3d=joints, pose=pose, betas=torch.tensor([0.0, 1.0]))
    terms = loss_terms(predicted, img, truth, mask)
    assert terms["joints3d"] == pytest.approx((2 + 29) / 60)  # the pelvis' own 0 is among the known
    assert terms["joints2d"] == pytest.approx(0.1 * 33 / 60, rel=1e-4)
    assert terms["root"] == pytest.approx(0.5)
    assert terms["pose"] == pytest.approx(1 - 7 / 42)
    assert terms["betas"] == pytest.approx(0.5)
    without_pelvis = joints.clone()
    without_pelvis[1, 0] = 0
    rootless = loss_terms(predicted, img, truth, dataclasses.replace(mask, joints3d=without_pelvis))
    assert rootless["joints3d"] == pytest.approx(2 / 60)  # a depth from nowhere is none


def test_depth_of_the_decoder_counts_only_where_it_is_measured():
    truth = body()
    near = dataclasses.replace(truth, joints2d=torch.full_like(truth.joints2d, 128.0))
    target = image_space(near.joints3d, near.joints2d)
    off = target + torch.tensor([0.0, 0.0, 0.3])
    flat = known(near, joints3d=torch.zeros(2, 30))
    assert loss_terms(near, off, near)["joints_img"] > 0.05
    assert loss_terms(near, off, near, flat)["joints_img"] == 0
    aside = loss_terms(near, target + torch.tensor([0.3, 0.0, 0.0]), near, flat)["joints_img"]
    assert aside == pytest.approx(0.1, rel=1e-4)
    deep = dataclasses.replace(
        near, joints3d=near.joints3d * torch.tensor([1.0, 1.0, 90.0])
    )  # metres off the grid
    assert loss_terms(deep, off, deep, flat)["joints_img"] == 0
    assert loss_terms(deep, target + 0.3, deep, flat)["joints_img"] == pytest.approx(0.2, rel=1e-4)


def test_only_inside_leaves_out_joints_outside_the_crop():
    truth = body()
    far = dataclasses.replace(truth, joints2d=truth.joints2d + 1000)
    off = dataclasses.replace(far, joints2d=far.joints2d - 900)
    img = torch.rand(2, 15, 3)
    assert loss_terms(off, img, far)["joints2d"] > 0.1
    assert loss_terms(off, img, far, weights=LossWeights(only_inside=True))["joints2d"] == 0


def test_fitted_meshes_have_terms_of_their_own():
    truth = body()
    weights = LossWeights(fit_img=1.0, fit3d=1.0)
    moved = truth.joints3d + _OFF
    fit = torch.tensor([1.0, 0.0])
    mask = known(truth, fit3d=moved, fit=fit, fit2d=torch.full_like(truth.joints2d, 128.0))
    terms = loss_terms(truth, torch.full((2, 15, 3), 0.5), truth, mask, weights)
    assert terms["fit3d"] == pytest.approx(0.5 * 29 / 30)
    assert terms["fit_img"] > 0
    none = loss_terms(
        truth, torch.rand(2, 15, 3), truth, dataclasses.replace(mask, fit=torch.zeros(2)), weights
    )
    assert none["fit_img"] == none["fit3d"] == 0
    assert "fit3d" not in loss_terms(truth, torch.rand(2, 15, 3), truth)


def test_automatic_weighting():
    """L / (2 p²) + ln(1 + p²), with its minimum where the derivative in p vanishes."""
    p = torch.tensor(1.0, requires_grad=True)
    assert balanced(torch.tensor(3.0), p).item() == pytest.approx(1.5 + math.log(2))
    terms = {"betas": torch.tensor(4.0), "pose": torch.tensor(1.0)}
    balance = torch.ones(len(TERMS), requires_grad=True)
    total = LossWeights(automatic=True).total(terms, balance)
    assert total.item() == pytest.approx((0.05 * 4 + 2 * 1) / 2 + 2 * math.log(2))
    total.backward()
    used = {TERMS[i] for i in balance.grad.nonzero().flatten().tolist()}
    assert used == {"betas", "pose"}


def test_two_halves_average_to_the_whole():
    truth, predicted, img = body(4), wrong(body(4)), torch.rand(4, 15, 3)
    mask = known(truth, joints3d=(torch.rand(4, 30) > 0.4).float())

    def rows(of: object, part: slice) -> object:
        return type(of)(*(getattr(of, f.name)[part] for f in dataclasses.fields(of)))  # type: ignore[arg-type]

    whole = loss_terms(predicted, img, truth, mask)
    halves = [
        loss_terms(rows(predicted, part), img[part], rows(truth, part), rows(mask, part))
        for part in (slice(0, 2), slice(2, 4))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(value, (halves[0][name] + halves[1][name]) / 2)


def test_the_uncertainty_term_is_the_likelihood_of_a_student_t():
    """Against scipy's, up to a constant; the pelvis and what is not measured do not count."""
    from scipy.stats import multivariate_t

    g = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randn(2, 30, 3, generator=g) for _ in range(2))
    log_scale = torch.randn(2, 30, generator=g) - 1
    known = torch.ones(2, 30)
    known[0, 5] = 0

    def slow(log_scale: torch.Tensor) -> float:
        total = 0.0
        for b in range(2):
            for j in range(1, 30):
                off = ((predicted[b, j] - predicted[b, 0]) - (truth[b, j] - truth[b, 0])).numpy()
                shape = torch.eye(3).numpy() * float(torch.exp(2 * log_scale[b, j]))
                total -= float(known[b, j]) * multivariate_t(shape=shape, df=TAILS).logpdf(off)
        return total / (2 * 29)

    def fast(log_scale: torch.Tensor) -> float:
        return float(uncertainty_term(log_scale, predicted, truth, known))

    other = log_scale + 0.7 * torch.randn(2, 30, generator=g)
    assert fast(other) - fast(log_scale) == pytest.approx(slow(other) - slow(log_scale), abs=1e-4)
    elsewhere = log_scale.clone()
    elsewhere[:, 0], elsewhere[0, 5] = 3.0, 3.0
    assert fast(elsewhere) == fast(log_scale)
    assert fast(torch.full((2, 30), math.log(LEAST))) > 0
    assert float(
        uncertainty_term(torch.full((2, 30), math.log(LEAST)), truth, truth, known)
    ) == pytest.approx(0, abs=1e-5)
    known[:, 0] = 0  # without a pelvis nothing is measured
    assert fast(log_scale) == 0
