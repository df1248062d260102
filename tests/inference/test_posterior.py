"""The body about its prediction: pins are met, what no keypoint shows follows by the errors' covariance; hypotheses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import ConfigError, InputError
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.inference.hypotheses import hypotheses, with_hypotheses
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.posterior import Observed, Posterior
from dpmesh.inference.scene import Person, Scene
from dpmesh.skeletons import COCO17, JOINTS30

WRIST, ELBOW, ANKLE = (JOINTS30.index(name) for name in ("L_Wrist", "L_Elbow", "R_Ankle"))
COCO = [i for i in COCO17.indices_in(JOINTS30) if i >= 0]
ARM = [JOINTS30.index(f"L_{name}") for name in ("Elbow", "Wrist")]
CAMERA = torch.tensor([[800.0, 0, 128], [0, 800.0, 128], [0, 0, 1]])


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    return Posterior(BodyModel(free_body()))


@pytest.fixture(scope="module")
def observed(posterior: Posterior) -> Observed:
    """A standing person whose keypoints are where the prediction has them."""
    rotations = torch.eye(3).repeat(1, 24, 1, 1)
    rotations[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotations[:, [18, 19]] = rotation_matrix(torch.tensor([[0.0, -0.6, 0.0], [0.0, 0.6, 0.0]]))
    betas, transl = torch.zeros(1, 10), torch.tensor([[0.0, 0.3, 6.0]])
    joints = posterior.body.joints30_only(betas, rotations, transl)
    pixels = joints[..., :2] / joints[..., 2:] * 800 + 128
    weights = torch.zeros(1, 30)
    weights[:, COCO] = 0.9
    sigma = torch.full((1, 30), 0.1)
    return Observed.of_keypoints(rotations, betas, transl, CAMERA[None], sigma, pixels, weights)


def _joints(posterior: Posterior, o: Observed, at: torch.Tensor) -> torch.Tensor:
    rotations, betas, transl = posterior.body_at(o, at)
    return posterior.body.joints30_only(betas, rotations, transl)[0]


def _pixels(joints: torch.Tensor) -> torch.Tensor:
    return joints[..., :2] / joints[..., 2:] * 800 + 128


def _pinned(o: Observed, joint: int, by: tuple[float, float]) -> Observed:
    pinned, weights, pixels = (t.clone() for t in (o.pinned, o.weights, o.pixels))
    pinned[0, joint], weights[0, joint] = 1, 0
    pixels[0, joint] = o.keypoints[0, joint] + torch.tensor(by)
    return replace(o, pinned=pinned, weights=weights, pixels=pixels)


def test_a_pinned_joint_is_there_and_the_others_stay(posterior: Posterior, observed: Observed) -> None:
    pinned = _pinned(observed, WRIST, (-12.0, 25.0))
    after = _pixels(_joints(posterior, pinned, posterior.most_probable(pinned)))
    assert (after[WRIST] - pinned.pixels[0, WRIST]).norm() < 0.7
    others = [joint for joint in COCO if joint not in ARM]
    assert (after - observed.keypoints[0])[others].norm(dim=-1).max() < 4.0


def test_a_point_in_space_is_reached(posterior: Posterior, observed: Observed) -> None:
    before = _joints(posterior, observed, torch.zeros(1, 85))
    points, placed = torch.zeros(1, 30, 3), torch.zeros(1, 30)
    points[0, WRIST] = before[WRIST] + torch.tensor([0.0, 0.1, -0.15])
    placed[0, WRIST] = 1
    pinned = replace(observed, points=points, placed=placed, weights=observed.weights * (1 - placed))
    for shape in (True, False):
        at = posterior.most_probable(pinned, shape=shape)
        assert (_joints(posterior, pinned, at)[WRIST] - points[0, WRIST]).norm() < 0.006
        assert (at[:, 72:82].abs().max() < 1e-4) is not shape


def test_without_pins_the_prediction_stays(posterior: Posterior, observed: Observed) -> None:
    assert posterior.most_probable(observed).abs().max() < 1e-3


def test_the_derivative_is_that_of_the_joints(posterior: Posterior, observed: Observed) -> None:
    at = 0.1 * torch.randn(1, 85, generator=torch.Generator().manual_seed(0))
    step = 1e-2 * torch.randn(1, 85, generator=torch.Generator().manual_seed(1))
    off = _joints(posterior, observed, at + step) - _joints(posterior, observed, at - step)
    linear = 2 * (posterior.joint_derivative(observed, at)[0] @ step[0])
    assert (off - linear).abs().max() < 0.1 * off.abs().max()  # the pose correctives are left out


def test_hypotheses_differ_where_nothing_is_visible(posterior: Posterior, observed: Observed) -> None:
    weights = observed.weights.clone()
    weights[:, ARM] = 0
    hidden = replace(observed, weights=weights)
    at, share = hypotheses(posterior, hidden, 5)
    assert at.shape == (1, 5, 85) and (at[:, 0] == 0).all()
    assert share.sum() == pytest.approx(1) and (share > 0.02).all()
    found = torch.stack([_joints(posterior, hidden, one[None]) for one in at[0]])
    spread = (_pixels(found) - _pixels(found)[:1]).norm(dim=-1).mean(0)
    shown = [joint for joint in COCO if joint not in ARM]
    assert spread[WRIST] > 3 * spread[shown].mean() and spread[shown].max() < 10


def test_they_spread_with_sigma(posterior: Posterior, observed: Observed) -> None:
    weights = observed.weights.clone()
    weights[:, ARM] = 0

    def spread(sigma: float) -> float:
        o = replace(observed, weights=weights, joint_sigma=torch.full((1, 30), sigma))
        at, _ = hypotheses(posterior, o, 5)
        found = torch.stack([_joints(posterior, o, one[None]) for one in at[0]])
        return float((found - found[:1])[:, WRIST].norm(dim=-1).mean())

    assert spread(0.2) > 1.3 * spread(0.07)


def test_a_scene_keeps_them(posterior: Posterior, observed: Observed, tmp_path: Path) -> None:
    body = posterior.body
    posed = body(observed.betas, observed.rotations, observed.transl)
    vectors = axis_angle(observed.rotations)[0].numpy()
    keypoints = np.concatenate([observed.keypoints[0, COCO].numpy(), np.full((17, 1), 0.9)], 1).astype(
        np.float32
    )
    person = Person(
        box=np.array([25.6, 25.6, 230.4, 230.4], np.float32), keypoints2d=keypoints, score=0.9,
        global_orient=vectors[0], body_pose=vectors[1:].reshape(-1), betas=np.zeros(10, np.float32),
        transl=observed.transl[0].numpy(), vertices=posed.vertices[0].numpy(), joints3d=posed.joints30[0].numpy(),
        joints2d=observed.keypoints[0].numpy(), joint_sigma=np.full(30, 0.1, np.float32),
    )  # fmt: skip
    scene = Scene(
        K=CAMERA.double().numpy(), image_size=(256, 256), joint_names=JOINTS30.joints,
        faces=body.faces.numpy().astype(np.int32), people=(person,), body=body, image=np.zeros((256, 256, 3), np.uint8),
    )  # fmt: skip
    several = with_hypotheses(scene, 3, body)
    own = several[0].hypotheses
    assert own is not None and len(own) == 3 and scene[0].hypotheses is None
    np.testing.assert_array_equal(own.joints3d[0], person.joints3d)
    assert (several.overlay() != scene.overlay()).any()
    loaded = Scene.load(several.save(tmp_path, formats=["npz", "json"]))[0].hypotheses
    assert loaded is not None
    for name, values in vars(own).items():
        np.testing.assert_allclose(getattr(loaded, name), values, atol=1e-6)
    path = tmp_path / "scene" / "scene.npz"
    with np.load(path) as file:
        arrays = {**file, "hypotheses_betas": np.zeros((1, 2, 10), np.float32)}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="hypotheses_betas"):
        Scene.load(tmp_path / "scene")


@pytest.mark.parametrize("count", [0, 33, -1])
def test_how_many(count: int) -> None:
    with pytest.raises(ConfigError, match=f"hypotheses={count}"):
        PredictOptions(hypotheses=count)
