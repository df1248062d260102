"""Several bodies for one person: they agree with the visible keypoints, and differ where nothing is visible.

The distribution of the body about its prediction (posterior.py) is drawn from; the draws are gathered into clusters by
their joints, the first of which stays at the prediction (k-means). Each other cluster's mean is a hypothesis, fitted
to the visible keypoints again; its weight is the share of the draws. So a few bodies stand for the whole distribution,
and their spread grows with joint_sigma.
"""

from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpmesh.body.jacobian import TURNS
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.rotations import axis_angle
from dpmesh.inference.pins import observed_people, with_bodies
from dpmesh.inference.posterior import Observed, Posterior
from dpmesh.inference.preprocess import MIN_DETECTED, MIN_SUPPLIED
from dpmesh.inference.scene_data import HYPOTHESES_SHAPES, Hypotheses, Person, SceneData
from dpmesh.skeletons import COCO17, GRAPH15, JOINTS30, convert

Kind = TypeVar("Kind", bound=SceneData)
DRAWS = 512
FREEDOM = 5.0
"""Degrees of freedom of the errors' distribution, as of joint_sigma's."""
_SCALE, _SCALE_DOUBT = 0.87, 1.5
"""Factor of standard deviations: _SCALE, and exp(_SCALE_DOUBT d) times as great where keypoints are doubted by d."""
_TRUST, _TRUST_DOUBT = 0.1, -4.0
"""Factor of the keypoints' weights, likewise: one of a wrong limb or person looks like a right one. These four by
coverage, and by the best of five, on SynthOcc's people from 2,500 on (60 with each source of keypoints)."""
_MOST_DOUBT = 0.6
"""Doubt is 1 less the visible keypoints' mean confidence, and at most that."""
_ROUNDS = 15
_FIT_STEPS = 2
_CLUSTERED = [i for i in GRAPH15.indices_in(JOINTS30) if i >= 0]
"""The joints by which draws are compared: face and hands would count the same limbs again."""


def with_hypotheses(scene: Kind, count: int, body: BodyModel) -> Kind:
    """The scene with `count` hypotheses for each person; 1 changes nothing."""
    if count == 1:
        return scene
    supplied = scene.options.get("keypoints") is not None
    least = MIN_SUPPLIED if supplied else MIN_DETECTED
    people = [_with_own(person, scene, count, body, least) for person in scene.people]
    return replace(scene, people=tuple(people), options={**scene.options, "hypotheses": count})


def _with_own(person: Person, scene: SceneData, count: int, body: BodyModel, least: float) -> Person:
    # One person at a time: what is drawn for one does not depend on the others.
    keypoints = convert(person.keypoints2d, COCO17, JOINTS30)
    keypoints[keypoints[:, 2] <= least, 2] = 0
    observed = observed_people([person], [keypoints], scene.K, body.faces.device)
    displaced, weights = hypotheses(Posterior(body), observed, count)
    repeated = _repeated(observed, count)
    posterior = Posterior(body)
    others = with_bodies([person] * count, *posterior.body_at(repeated, displaced[0]), body, scene.K)
    others[0] = person
    names = [name for name in HYPOTHESES_SHAPES if name != "weight"]
    arrays = {
        name: torch.stack([torch.from_numpy(getattr(one, name)) for one in others]).numpy() for name in names
    }
    return replace(person, hypotheses=Hypotheses(weight=weights[0].cpu().numpy(), **arrays))


@torch.no_grad()
def hypotheses(
    posterior: Posterior, o: Observed, count: int, seed: int = 0
) -> tuple[Float[Tensor, "b n 85"], Float[Tensor, "b n"]]:
    """Displacements of `count` bodies from the predicted one, the first of which is zero, and their weights, which sum
    to 1. The same for the same input on one machine."""
    at = torch.zeros_like(torch.cat([o.rotations.flatten(1)[:, :TURNS], o.betas, o.transl], 1))
    drawn = _draws(distribution(posterior, o), DRAWS, seed)  # (b, m, 85)
    derivative = posterior.joint_derivative(o, at)
    relative = derivative[:, _CLUSTERED] - derivative[:, :1]
    joints = torch.einsum("bjcp,bmp->bmjc", relative, drawn).flatten(2)  # (b, m, 3 j)
    member = _clusters(joints, count)
    shares, means = list[Tensor](), [at]
    for k in range(count):
        own = (member == k).float()
        shares.append(own.mean(1))
        if k:
            mean = (own[:, :, None] * drawn).sum(1) / own.sum(1, keepdim=True).clamp(min=1)
            means.append(_fitted(posterior, o, mean))
    return torch.stack(means, 1), torch.stack(shares, 1)


def distribution(posterior: Posterior, o: Observed) -> Float[Tensor, "b 85 85"]:
    """Inverse scale matrix of the displacement's multivariate t distribution with FREEDOM degrees of freedom.

    Wider than Laplace's approximation, the more so the less the detector is sure of its keypoints: then the prediction
    errs more.
    """
    at = torch.zeros_like(torch.cat([o.rotations.flatten(1)[:, :TURNS], o.betas, o.transl], 1))
    scale = _SCALE * torch.exp(_SCALE_DOUBT * _doubt(o))
    return posterior.precision(_doubted(o), at) / scale[:, None, None] ** 2


def _doubt(o: Observed) -> Float[Tensor, " b"]:
    visible = (o.weights > 0).sum(1).clamp(min=1)
    return (1 - o.weights.sum(1) / visible).clamp(0, _MOST_DOUBT)


def _doubted(o: Observed) -> Observed:
    return replace(o, weights=o.weights * (_TRUST * torch.exp(_TRUST_DOUBT * _doubt(o)))[:, None])


def _draws(precision: Float[Tensor, "b 85 85"], count: int, seed: int) -> Float[Tensor, "b m 85"]:
    """In pairs of opposite sign: their mean is zero. From the normal distribution of that inverse covariance: clusters
    of the t distribution would be single outliers."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(1, precision.shape[1], count // 2, generator=generator).to(precision)
    normal = torch.cat([half, -half], 2).expand(len(precision), -1, -1)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(precision).mT, normal, upper=True).mT


def _clusters(points: Float[Tensor, "b m d"], count: int) -> Int[Tensor, "b m"]:
    """The cluster of each point, by k-means from the farthest points; the middle of cluster 0 stays at zero."""
    rows = torch.arange(len(points), device=points.device)
    centres = torch.zeros_like(points[:, :count])
    nearest = points.square().sum(-1)
    for k in range(1, count):
        centres[:, k] = points[rows, nearest.argmax(1)]
        nearest = torch.minimum(nearest, (points - centres[:, k : k + 1]).square().sum(-1))
    member = torch.cdist(points, centres).argmin(2)
    for _ in range(_ROUNDS):
        own = torch.nn.functional.one_hot(member, count).to(points)  # (b, m, n)
        size = own.sum(1)[..., None]
        means = torch.where(size > 0, own.mT @ points / size.clamp(min=1), centres)
        centres = torch.cat([centres[:, :1], means[:, 1:]], 1)
        member = torch.cdist(points, centres).argmin(2)
    return member


def _fitted(posterior: Posterior, o: Observed, at: Float[Tensor, "b 85"]) -> Float[Tensor, "b 85"]:
    """The displacement after a few steps towards the visible keypoints, from `at` and pulled to it."""
    rotations, betas, transl = posterior.body_at(o, at)
    moved = replace(_doubted(o), rotations=rotations, betas=betas, transl=transl)
    rotations, betas, transl = posterior.body_at(moved, posterior.most_probable(moved, _FIT_STEPS))
    turns = axis_angle(o.rotations.mT @ rotations).flatten(1)
    return torch.cat([turns, betas - o.betas, transl - o.transl], 1)


def _repeated(o: Observed, count: int) -> Observed:
    """One person `count` times."""
    return Observed(**{name: value.expand(count, *value.shape[1:]) for name, value in vars(o).items()})
