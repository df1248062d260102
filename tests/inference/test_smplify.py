"""Fitting to keypoints: it lowers the reprojection error, keeps what nothing is known of, and is deterministic."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dpmesh.errors import ConfigError
from dpmesh.inference.detections import DetectionResult
from dpmesh.inference.predictor import REFINED, Predictor
from dpmesh.inference.smplify import FIT, REFINE, FitSettings, Fitter, blind, fitter_of
from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_prior
from dpmesh.skeletons import COCO17, JOINTS30, SMPL24
from dpmesh.types import Inputs, Prediction

COCO = [i for i in COCO17.indices_in(JOINTS30) if i >= 0]
ARMS = [JOINTS30.index(f"{side}_{part}") for side in "LR" for part in ("Elbow", "Wrist")]
QUICK = replace(REFINE, steps=30)


@pytest.fixture(scope="module")
def model() -> DPMesh:
    return DPMesh.from_pretrained("embedded")


@pytest.fixture(scope="module")
def predicted(model: DPMesh) -> tuple[Prediction, torch.Tensor, torch.Tensor]:
    """A prediction, and keypoints some 10 px off its own joints."""
    torch.manual_seed(0)
    joints = torch.rand(3, 30, 2) * 160 + 48
    visible = torch.zeros(3, 30)
    visible[:, COCO] = 1
    with torch.inference_mode():
        result = model(Inputs(torch.rand(3, 3, 256, 256), joints, visible, torch.full((3,), 600.0)))
        return result, result.joints2d + torch.randn(3, 30, 2) * 10, visible


def error(result: Prediction, joints: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    off = (result.joints2d - joints).norm(dim=-1)
    return (off * visible).sum(1) / visible.sum(1)


def test_refining_lowers_the_reprojection_error(
    model: DPMesh, predicted: tuple[Prediction, torch.Tensor, torch.Tensor]
) -> None:
    result, joints, visible = predicted
    refined = fitter_of(model).refine(result, joints, visible, QUICK)
    assert (error(refined, joints, visible) < 0.9 * error(result, joints, visible)).all()
    again = fitter_of(model).refine(result, joints, visible, QUICK)
    assert torch.equal(refined.vertices, again.vertices)
    alone = fitter_of(model).refine(_row(result, 1), joints[1:2], visible[1:2], QUICK)
    assert (alone.vertices - refined.vertices[1:2]).abs().max() < 2e-3  # a person's fit is its own
    kept = fitter_of(model).refine(result, joints, visible, replace(QUICK, steps=0))
    assert (kept.vertices - result.vertices).abs().max() < 1e-4  # it starts where the network ended


def _row(result: Prediction, i: int) -> Prediction:
    values = {n: v[i : i + 1] for n, v in vars(result).items() if isinstance(v, torch.Tensor)}
    return Prediction(**values)


def test_without_a_keypoint_nothing_moves(
    model: DPMesh, predicted: tuple[Prediction, torch.Tensor, torch.Tensor]
) -> None:
    result, joints, visible = predicted
    some = visible.clone()
    some[1] = 0
    refined = fitter_of(model).refine(result, joints, some, QUICK)
    for name in ("vertices", "betas", "transl", "body_rotations", "global_orient", "joints2d"):
        assert torch.equal(getattr(refined, name)[1], getattr(result, name)[1])
        assert not torch.equal(getattr(refined, name)[0], getattr(result, name)[0])


def test_a_joint_that_is_not_visible_has_no_effect_however_far_out(
    model: DPMesh, predicted: tuple[Prediction, torch.Tensor, torch.Tensor]
) -> None:
    result, joints, visible = predicted
    far = torch.where(visible[..., None] > 0, joints, torch.full_like(joints, 1e30))
    few = replace(REFINE, steps=3)
    refined, usual = (fitter_of(model).refine(result, at, visible, few) for at in (far, joints))
    assert torch.equal(refined.vertices, usual.vertices)
    one = joints.clone()
    one[1, COCO[0]] = 1e30  # visible: its square overflows
    refined = fitter_of(model).refine(result, one, visible, few)
    assert torch.isfinite(refined.vertices).all()


@pytest.mark.parametrize("change", [{"rate": float("nan")}, {"sigma": float("inf")}, {"codes": -1.0}])
def test_settings_are_numbers(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="no number may be negative"):
        replace(REFINE, **change)  # pyright: ignore[reportArgumentType]


def test_joints_without_a_visible_keypoint_stay(
    model: DPMesh, predicted: tuple[Prediction, torch.Tensor, torch.Tensor]
) -> None:
    result, joints, _ = predicted
    visible = torch.zeros(3, 30)
    visible[:, ARMS] = 1
    refined = fitter_of(model).refine(result, joints, visible, QUICK)
    free = fitter_of(model).refine(result, joints, visible, replace(QUICK, pull_pose=0.0, pull_blind=0.0))
    degrees, freely = _turned(result, refined), _turned(result, free)
    legs = [SMPL24.index(f"{side}_{part}") - 1 for side in "LR" for part in ("Hip", "Knee", "Ankle")]
    arms = [SMPL24.index(f"{side}_Shoulder") - 1 for side in "LR"]
    assert degrees[:, legs].max() < 5 and degrees[:, arms].mean() > 2 * degrees[:, legs].mean()
    assert degrees[:, legs].mean() < 0.7 * freely[:, legs].mean()
    message = blind(visible)
    assert (
        message[:, legs].all()
        and not message[:, arms].any()
        and not message[:, SMPL24.index("Spine") - 1].any()
    )


def test_joints_that_are_not_visible_do_not_pull(
    model: DPMesh, predicted: tuple[Prediction, torch.Tensor, torch.Tensor]
) -> None:
    """To the bit: wherever their coordinates lie, refining and fitting give the same."""
    result, joints, visible = predicted
    visible = visible.clone()
    visible[0, ARMS] = 0
    elsewhere = torch.where(visible[..., None] > 0, joints, torch.tensor([20.0, 230.0]))
    fitter, few = fitter_of(model), replace(QUICK, steps=4)
    assert not torch.equal(joints, elsewhere)
    one, other = (fitter.refine(result, message, visible, few) for message in (joints, elsewhere))
    assert torch.equal(one.vertices, other.vertices) and not torch.equal(one.vertices, result.vertices)
    moved = torch.where(visible[..., None] > 0, joints + 9, joints)
    assert not torch.equal(
        fitter.refine(result, moved, visible, few).vertices, one.vertices
    )  # the visible ones do
    alone = Fitter(model.body, load_prior().as_decoder("points"))
    fits = [
        alone.fit(message, visible, result.focal, replace(FIT, steps=2)) for message in (joints, elsewhere)
    ]
    for name in ("latent", "root_6d", "betas", "transl"):
        assert torch.equal(getattr(fits[0], name), getattr(fits[1], name))


def _turned(a: Prediction, b: Prediction) -> torch.Tensor:
    """Degrees between the rotations of two predictions, (b, 23)."""
    trace = (b.body_rotations.transpose(-1, -2) @ a.body_rotations).diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def test_fitting_without_a_network(model: DPMesh) -> None:
    """A body's own projection, also from behind, is recovered from the mean pose, facing the right way."""
    fitter = Fitter(model.body, load_prior().as_decoder("points"))
    turn = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    root = torch.stack([upright, upright @ turn])
    body = fitter.decode(fitter.mean_latent()).expand(2, -1, -1, -1)
    rotations = torch.cat([root[:, None], body], 1)
    focal = torch.full((2,), 700.0)
    transl = torch.tensor([[0.05, 0.3, 5.0], [-0.1, 0.25, 5.5]])
    true = model.body(torch.zeros(2, 10), rotations, transl)
    joints = true.joints30[..., :2] / true.joints30[..., 2:] * focal[:, None, None] + 128
    visible = torch.zeros(2, 30)
    visible[:, COCO] = 1
    result = fitter.prediction_of(fitter.fit(joints, visible, focal, replace(FIT, steps=40)), focal)
    assert error(result, joints, visible).max() < 6
    centred = [p - p[:, :1] for p in (result.joints3d, true.joints30)]
    assert (centred[0] - centred[1]).norm(dim=-1).mean() < 0.1
    blank = fitter.fit(joints, torch.zeros_like(visible), focal, replace(FIT, steps=5))
    assert all(torch.isfinite(v).all() for v in vars(blank).values())


def test_the_predictor_refines(model: DPMesh) -> None:
    class OnePerson:
        def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
            raise AssertionError("boxes and keypoints are given")

        keypoints_in_boxes = __call__

    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (200, 200, 3), np.uint8)
    anywhere = np.concatenate([rng.uniform(40, 160, (1, 17, 2)), np.ones((1, 17, 1))], 2)
    person = Predictor(model, OnePerson())(source, keypoints=anywhere).people[0]
    keypoints = np.concatenate([person.joints2d[COCO], np.ones((17, 1))], 1)[
        None
    ]  # where a body can have them
    plain, refined = (
        Predictor(model, OnePerson(), fitter=fitter)(source, keypoints=keypoints)
        for fitter in (None, fitter_of(model))
    )
    off = [
        np.linalg.norm(s.people[0].joints2d[COCO] - keypoints[0, :, :2], axis=1).mean()
        for s in (plain, refined)
    ]
    assert off[1] < 0.9 * off[0]
    assert REFINED in refined.notes and REFINED not in plain.notes


def test_settings_refuse_nonsense() -> None:
    for wrong in ({"steps": -1}, {"rate": 0.0}, {"sigma": -math.pi}):
        with pytest.raises(ConfigError):
            FitSettings(**wrong)
