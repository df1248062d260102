"""Refining a prediction: exact keypoints recover the pose, and what no keypoint shows stays the network's."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.inference.detections import Detection, DetectionResult
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.refine import REFINE, Refiner, RefineSettings
from dpmesh.model import DPMesh
from dpmesh.skeletons import COCO17, JOINTS30, SMPL24
from dpmesh.types import Inputs, Prediction

COCO = [i for i in COCO17.indices_in(JOINTS30) if i >= 0]
LEGS = [JOINTS30.index(f"{side}_{part}") for side in "LR" for part in ("Knee", "Ankle")]
HIPS = [SMPL24.index(f"{side}_{part}") for side in "LR" for part in ("Hip", "Knee", "Ankle")]
ARMS = [SMPL24.index(f"{side}_{part}") for side in "LR" for part in ("Shoulder", "Elbow")]
WRIST = JOINTS30.index("L_Wrist")


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(BodyModel(free_body()))


def _bodies(refiner: Refiner, count: int = 3) -> tuple[Prediction, Prediction]:
    """True bodies, upright and seen from all sides, and predictions that are some ten degrees off."""
    torch.manual_seed(1)
    vectors = torch.randn(count, 24, 3) * 0.2
    turned = torch.tensor([[0.0, float(i), 0.0] for i in range(count)])
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotations = rotation_matrix(vectors)
    rotations[:, 0] = upright @ rotation_matrix(turned)
    transl = torch.tensor([0.05, 0.3, 6.0]).expand(count, 3)
    focal, betas = torch.full((count,), 800.0), torch.randn(count, 10) * 0.5
    off = torch.zeros(count, 24, 3)
    off[:, [0, *HIPS, *ARMS]] = torch.randn(count, 11, 3) * 0.15
    body = refiner.body
    true = Prediction.from_body(body, rotations, betas, transl, focal)
    start = Prediction.from_body(body, rotations @ rotation_matrix(off), betas, transl + 0.02, focal)
    return true, replace(start, joint_sigma=torch.full((count, 30), 0.1))


def _coco(count: int = 3) -> torch.Tensor:
    confidence = torch.zeros(count, 30)
    confidence[:, COCO] = 1
    return confidence


def _refined(
    refiner: Refiner,
    start: Prediction,
    joints: torch.Tensor,
    confidence: torch.Tensor,
    settings: RefineSettings = REFINE,
) -> Prediction:
    empty = torch.zeros(1).expand(len(joints), 3, 256, 256)  # not used
    inputs = Inputs(empty, joints, (confidence > 0).float(), start.focal, confidence)
    return refiner(start, inputs, settings)


def _off(result: Prediction, joints: torch.Tensor) -> torch.Tensor:
    return (result.joints2d - joints)[:, COCO].norm(dim=-1).mean(1)


def _turned(a: Prediction, b: Prediction) -> torch.Tensor:
    """Degrees between the rotations of two predictions, the root first: (b, 24)."""
    x, y = (torch.cat([p.global_orient[:, None], p.body_rotations], 1) for p in (a, b))
    return torch.rad2deg(axis_angle(x.mT @ y).norm(dim=-1))


def _row(result: Prediction, i: int) -> Prediction:
    values = {n: v[i : i + 1] for n, v in vars(result).items() if isinstance(v, torch.Tensor)}
    return replace(result, **values)  # pyright: ignore[reportArgumentType]


def test_exact_keypoints_recover_the_pose(refiner: Refiner) -> None:
    true, start = _bodies(refiner)
    strict = replace(REFINE, pull=0.02, steps=12, outlier=10.0)
    found = _refined(refiner, start, true.joints2d, _coco(), strict)
    assert (_off(start, true.joints2d) > 6).all() and (_off(found, true.joints2d) < 0.5).all()
    usual = _refined(refiner, start, true.joints2d, _coco())
    assert (_off(usual, true.joints2d) < 0.7 * _off(start, true.joints2d)).all()
    centred = [(p.joints3d - p.joints3d[:, :1])[:, COCO] for p in (true, start, usual)]
    before, after = ((c - centred[0]).norm(dim=-1).mean() for c in centred[1:])
    assert after < 0.75 * before  # depth is not in the keypoints


def test_the_result_is_a_body_and_has_the_networks_sigma(refiner: Refiner) -> None:
    true, start = _bodies(refiner)
    found = _refined(refiner, start, true.joints2d, _coco())
    rotations = torch.cat([found.global_orient[:, None], found.body_rotations], 1)
    posed = refiner.body(found.betas, rotations, found.transl)
    torch.testing.assert_close(found.vertices, posed.vertices)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(3, 24, 3, 3), atol=1e-5, rtol=0)
    assert found.joint_sigma is start.joint_sigma


def test_joints_without_a_visible_keypoint_stay(refiner: Refiner) -> None:
    true, start = _bodies(refiner)
    confidence = _coco()
    confidence[:, LEGS] = 0
    degrees = _turned(start, _refined(refiner, start, true.joints2d, confidence))
    assert degrees[:, HIPS].max() < 0.5 and degrees[:, ARMS].mean() > 2
    far = torch.where(confidence[..., None] > 0, true.joints2d, torch.tensor(math.inf))
    assert torch.equal(
        _refined(refiner, start, far, confidence).vertices,
        _refined(refiner, start, true.joints2d, confidence).vertices,
    )


def test_a_wrong_keypoint_counts_little(refiner: Refiner) -> None:
    """However confident; and less than one that is a little off."""
    true, start = _bodies(refiner)
    right = _refined(refiner, start, true.joints2d, _coco())
    wrong, infinite = true.joints2d.clone(), true.joints2d.clone()
    wrong[:, WRIST] += 90
    infinite[:, WRIST] = 1e30  # its square overflows
    without = _coco()
    without[:, WRIST] = 0
    ignored = _refined(refiner, start, true.joints2d, without)
    for points in (wrong, infinite):
        found = _refined(refiner, start, points, _coco())
        assert torch.isfinite(found.vertices).all()
        assert (found.joints3d - ignored.joints3d).norm(dim=-1).max() < 0.06
        others = [i for i in COCO if not JOINTS30.joints[i].startswith(("L_Wrist", "L_Elbow"))]
        assert (found.joints3d - right.joints3d)[:, others].norm(dim=-1).max() < 0.04


def test_confidence_and_sigma_weigh(refiner: Refiner) -> None:
    """A doubtful keypoint moves its joint less, a joint of greater sigma moves more."""
    true, start = _bodies(refiner)
    points, elbow = start.joints2d.clone(), SMPL24.index("L_Elbow")
    points[:, WRIST] += 8

    def moved(confidence: float, sigma: float) -> torch.Tensor:
        given, sigmas = _coco(), torch.full((3, 30), 0.1)
        given[:, WRIST], sigmas[:, WRIST] = confidence, sigma
        found = _refined(refiner, replace(start, joint_sigma=sigmas), points, given)
        return _turned(start, found)[:, elbow]

    assert (moved(0.3, 0.1) < 0.8 * moved(1, 0.1)).all()
    assert (moved(1, 0.05) < 0.8 * moved(1, 0.2)).all()
    missing = replace(start, joint_sigma=None), replace(start, joint_sigma=torch.full((3, 30), math.nan))
    one, other = (_refined(refiner, p, true.joints2d, _coco()) for p in missing)
    assert one.joint_sigma is None and torch.equal(one.vertices, other.vertices)


def test_a_persons_result_is_its_own(refiner: Refiner) -> None:
    true, start = _bodies(refiner)
    noisy = true.joints2d + torch.randn(3, 30, 2) * 6
    together = _refined(refiner, start, noisy, _coco())
    assert torch.equal(together.vertices, _refined(refiner, start, noisy, _coco()).vertices)
    for i in range(3):
        alone = _refined(refiner, _row(start, i), noisy[i : i + 1], _coco(1))
        assert (alone.vertices - together.vertices[i : i + 1]).abs().max() < 2e-4


def test_without_a_keypoint_nothing_changes(refiner: Refiner) -> None:
    true, start = _bodies(refiner)
    confidence = _coco()
    confidence[1] = 0
    found = _refined(refiner, start, true.joints2d, confidence)
    for name in ("vertices", "betas", "transl", "body_rotations", "global_orient", "joints2d", "root_6d"):
        assert torch.equal(getattr(found, name)[1], getattr(start, name)[1])
        assert not torch.equal(getattr(found, name)[0], getattr(start, name)[0])
    found = _refined(refiner, start, torch.full((3, 30, 2), math.nan), torch.zeros(3, 30))
    assert torch.equal(found.vertices, start.vertices)
    found = _refined(refiner, start, true.joints2d, _coco(), replace(REFINE, steps=0))
    assert torch.equal(found.vertices, start.vertices)


def test_the_pose_prior_does_not_matter(refiner: Refiner) -> None:
    """VPoser's latent, as the released design has, and no sigma."""
    true, start = _bodies(refiner)
    start = replace(start, pose_latent=torch.randn(3, 32), joint_sigma=None)
    found = _refined(refiner, start, true.joints2d, _coco())
    assert (_off(found, true.joints2d) < 0.5 * _off(start, true.joints2d)).all()
    assert found.joint_sigma is None and found.pose_latent is start.pose_latent


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"pull": 0.0}, {"keypoint": math.nan}, {"outlier": math.inf}, {"trust": -1.0}]
)
def test_settings_refuse_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="no number may be negative"):
        RefineSettings(**wrong)  # pyright: ignore[reportArgumentType]


def test_the_predictor_refines_with_the_confidences() -> None:
    model = DPMesh.from_pretrained("embedded")

    class OnePerson:
        def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
            raise AssertionError("boxes and keypoints are given")

        def keypoints_in_boxes(
            self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None
        ) -> tuple[Detection, ...]:
            raise AssertionError("boxes and keypoints are given")

    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (200, 200, 3), np.uint8)
    anywhere = np.concatenate([rng.uniform(40, 160, (1, 17, 2)), np.ones((1, 17, 1))], 2)
    person = Predictor(model, OnePerson())(source, keypoints=anywhere).people[0]
    # Where a body can have them; doubtful ones count less.
    sure, doubtful = (
        np.concatenate([person.joints2d[COCO], np.full((17, 1), score)], 1)[None] for score in (1.0, 0.1)
    )
    network, refiner = (
        Predictor(model, OnePerson()),
        Predictor(model, OnePerson(), refiner=Refiner(model.body)),
    )
    plain, refined = (predictor(source, keypoints=sure) for predictor in (network, refiner))
    less = refiner(source, keypoints=doubtful)
    off = [
        np.linalg.norm(s.people[0].joints2d[COCO] - sure[0, :, :2], axis=1).mean()
        for s in (plain, less, refined)
    ]
    assert off[2] < 0.9 * off[1] and off[1] < off[0]
    assert refiner.predicts_sigma and np.isfinite(refined.people[0].joint_sigma).all()
