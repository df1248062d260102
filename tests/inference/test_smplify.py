"""Fitting to keypoints without a network: a body's own projection is recovered."""

import math
from dataclasses import replace

import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import ConfigError
from dpmesh.inference.smplify import FIT, FitSettings, Fitter, blind
from dpmesh.pose_prior.files import load_prior
from dpmesh.skeletons import COCO17, JOINTS30, SMPL24
from dpmesh.types import Prediction

COCO = [i for i in COCO17.indices_in(JOINTS30) if i >= 0]
ARMS = [JOINTS30.index(f"{side}_{part}") for side in "LR" for part in ("Elbow", "Wrist")]


@pytest.fixture(scope="module")
def fitter() -> Fitter:
    return Fitter(BodyModel(free_body()), load_prior().as_decoder("points"))


def error(result: Prediction, joints: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    off = (result.joints2d - joints).norm(dim=-1)
    return (off * visible).sum(1) / visible.sum(1)


@pytest.mark.parametrize("change", [{"rate": float("nan")}, {"sigma": float("inf")}, {"codes": -1.0}])
def test_settings_are_numbers(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="no number may be negative"):
        replace(FIT, **change)  # pyright: ignore[reportArgumentType]


def test_blind_joints_move_no_visible_keypoint() -> None:
    visible = torch.zeros(3, 30)
    visible[:, ARMS] = 1
    legs = [SMPL24.index(f"{side}_{part}") - 1 for side in "LR" for part in ("Hip", "Knee", "Ankle")]
    arms = [SMPL24.index(f"{side}_Shoulder") - 1 for side in "LR"]
    message = blind(visible)
    assert (
        message[:, legs].all()
        and not message[:, arms].any()
        and not message[:, SMPL24.index("Spine") - 1].any()
    )


def test_joints_that_are_not_visible_do_not_pull(fitter: Fitter) -> None:
    """To the bit, wherever their coordinates lie."""
    torch.manual_seed(0)
    joints = torch.rand(3, 30, 2) * 160 + 48
    visible = torch.zeros(3, 30)
    visible[:, COCO] = 1
    visible[0, ARMS] = 0
    elsewhere = torch.where(visible[..., None] > 0, joints, torch.tensor([20.0, 230.0]))
    assert not torch.equal(joints, elsewhere)
    focal, few = torch.full((3,), 600.0), replace(FIT, steps=2)
    fits = [fitter.fit(message, visible, focal, few) for message in (joints, elsewhere)]
    for name in ("latent", "root_6d", "betas", "transl"):
        assert torch.equal(getattr(fits[0], name), getattr(fits[1], name))


def test_fitting_without_a_network(fitter: Fitter) -> None:
    """A body's own projection, also from behind, is recovered from the mean pose, facing the right way."""
    turn = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    root = torch.stack([upright, upright @ turn])
    body = fitter.decode(fitter.mean_latent()).expand(2, -1, -1, -1)
    rotations = torch.cat([root[:, None], body], 1)
    focal = torch.full((2,), 700.0)
    transl = torch.tensor([[0.05, 0.3, 5.0], [-0.1, 0.25, 5.5]])
    true = fitter.body(torch.zeros(2, 10), rotations, transl)
    joints = true.joints30[..., :2] / true.joints30[..., 2:] * focal[:, None, None] + 128
    visible = torch.zeros(2, 30)
    visible[:, COCO] = 1
    result = fitter.prediction_of(fitter.fit(joints, visible, focal, replace(FIT, steps=40)), focal)
    assert error(result, joints, visible).max() < 6
    centred = [p - p[:, :1] for p in (result.joints3d, true.joints30)]
    assert (centred[0] - centred[1]).norm(dim=-1).mean() < 0.1
    blank = fitter.fit(joints, torch.zeros_like(visible), focal, replace(FIT, steps=5))
    assert all(torch.isfinite(v).all() for v in vars(blank).values())


def test_settings_refuse_nonsense() -> None:
    for wrong in ({"steps": -1}, {"rate": 0.0}, {"sigma": -math.pi}):
        with pytest.raises(ConfigError):
            FitSettings(**wrong)
