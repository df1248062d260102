"""Refine predicted bodies with their 2D keypoints: the most probable body given the prediction and the keypoints.

The start is a network's prediction, as in Kolotouros et al. (SPIN, ICCV 2019), but the energy has no pose prior of its
own: rotations are pulled to the prediction's, each by how far it may turn (SPREAD) and by joint_sigma. A joint that the
network is sure of moves less; what no keypoint shows stays. The weights are a compromise (docs/research/results.md):
what real frames gain most by costs accuracy on SynthOcc, whose keypoints are noisier.
The energy is a sum of squares, minimised with a few Gauss-Newton steps (Levenberg-Marquardt) for all persons at once.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.body.jacobian import TURNS, JointJacobian
from dpmesh.body.layer import BodyModel
from dpmesh.device import full_precision
from dpmesh.errors import ConfigError
from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import project
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.skeletons import COCO17, COCO_SIGMAS, JOINTS30, SMPL24
from dpmesh.types import Inputs, Prediction

_FREE, _HINGE, _STIFF = 10.0, 15.0, 4.0
SPREAD = {
    "Pelvis": (12.5, 12.5, 7.5),
    **dict.fromkeys(("L_Hip", "R_Hip", "L_Shoulder", "R_Shoulder"), (_HINGE,) * 3),
    **dict.fromkeys(("Torso", "Spine", "Chest"), (_STIFF,) * 3),
    **dict.fromkeys(("L_Knee", "R_Knee"), (_HINGE, _STIFF, _STIFF)),
    **dict.fromkeys(("L_Elbow", "R_Elbow"), (_STIFF, _HINGE, _STIFF)),
    **dict.fromkeys(("L_Toe", "R_Toe", "L_Hand", "R_Hand"), (1.0,) * 3),
}
"""SMPL joint -> degrees about each of its axes that a rotation moves by where keypoints ask for it (a standard
deviation); _FREE for the others. A knee bends about its first axis, an elbow about its second."""
_MOVED = ("L_Knee", "R_Knee", "Spine", "L_Ankle", "R_Ankle", "Chest", "L_Toe", "R_Toe", "Neck", "L_Toe", "R_Toe",
          "Head", "L_Shoulder", "R_Shoulder", "Head_top", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "L_Hand",
          "R_Hand", "L_Hand", "R_Hand")  # fmt: skip
"""What each joint from 1 on moves."""
_TYPICAL = (
    0.074, 0.082, 0.082, 0.020, 0.130, 0.130, 0.036, 0.146, 0.146, 0.062, 0.146, 0.146,
    0.074, 0.066, 0.066, 0.084, 0.095, 0.095, 0.133, 0.133, 0.160, 0.160, 0.160, 0.160,
)  # fmt: skip
"""Median joint_sigma of what each joint moves, the root first, of people of SynthOcc's generator; metres."""
_LIMBS = ("L_Knee", "R_Knee", "L_Shoulder", "R_Shoulder")
"""Their mean stands for the root."""
_LEAST_RATIO, _MOST_RATIO = 0.4, 2.5
_SHAPE_ERRORS = 1.0
"""Root mean square error of betas."""
_PLACE_ERRORS = (0.05, 0.05, 0.6)
"""Of the translation, metres."""
_MIDDLES = (("Pelvis", "L_Hip", "R_Hip"), ("Neck", "L_Shoulder", "R_Shoulder"))
"""Joints that say nothing new where the two others are visible: detectors' are their middles."""
_AREA = 0.29
"""Area of a person's box, in squares of its longer side."""
_BOX = CROP / 1.25
"""Crop px of the longer side of a person's box."""
_SIGMA_OTHERS = 0.107
"""OKS sigma of joints that are not COCO's: that of its hips, the greatest."""
_NEAREST = 0.05
"""Metres: depths below it count as it."""


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """Weights of the energy. Raises ConfigError for negative or infinite numbers.

    steps: Gauss-Newton steps. keypoint: standard deviation of a certain keypoint, in units of its OKS sigma times the
    square root of the box's area (COCO). outlier: standard deviations from which the error of a keypoint counts less
    (Geman-McClure). trust: power of the confidence that weights a keypoint. pull: weight of the prediction.
    """

    steps: int = 6
    keypoint: float = 0.7
    outlier: float = 1.5
    trust: float = 1.0
    pull: float = 1.0

    def __post_init__(self) -> None:
        numbers = [float(getattr(self, item.name)) for item in fields(self)]
        if (
            not np.isfinite(numbers).all()
            or min(numbers) < 0
            or min(self.keypoint, self.outlier, self.pull) == 0
        ):
            raise ConfigError(
                "no number may be negative or infinite; keypoint, outlier and pull must be positive",
                where="RefineSettings",
            )


REFINE = RefineSettings()
UNSCORED = 0.5
"""Confidence that stands for one that is not known: detectors rate their right keypoints 0.5 to 0.9."""


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is fitted, for b persons: the start, the keypoints in crop px with the inverse of their sigmas and their
    weights, and the precisions of the parameters."""

    rotations: Float[Tensor, "b 24 3 3"]
    betas: Float[Tensor, "b 10"]
    transl: Float[Tensor, "b 3"]
    focal: Float[Tensor, " b"]
    keypoints: Float[Tensor, "b 30 2"]
    sharpness: Float[Tensor, " 30"]
    weights: Float[Tensor, "b 30"]
    precision: Float[Tensor, "b 85"]


class Refiner:
    """Refines predictions of `body`, whatever the model's pose prior. Deterministic; a person's result does not depend
    on the others but for rounding."""

    def __init__(self, body: BodyModel) -> None:
        self.body, self.jacobian = body, JointJacobian(body)

    @torch.no_grad()
    def __call__(
        self,
        prediction: Prediction,
        inputs: Inputs,
        settings: RefineSettings = REFINE,
    ) -> Prediction:
        """The prediction after fitting to the keypoints of inputs; its crop is not used.

        joint_sigma, pose_latent, camera and joints_img stay the network's; so does everything of a person without
        visible keypoints, or whose fit is not finite.
        """
        joints, visible = inputs.joints, inputs.visible.clamp(0, 1)
        known = torch.full_like(visible, UNSCORED) if inputs.confidence is None else inputs.confidence
        confidence = torch.where(visible > 0, visible * known, 0)
        problem = self._problem(prediction, joints, confidence, settings)
        with full_precision(joints.device):
            found = self._minimise(problem, settings)
            rotations, betas, transl = _body(problem, found)
            fresh = Prediction.from_body(self.body, rotations, betas, transl, prediction.focal)
        changed = (confidence > 0).any(1) & torch.isfinite(found).all(1) & (found != 0).any(1)
        names = (
            "root_6d", "body_rotations", "betas", "global_orient", "transl", "vertices", "joints3d", "joints2d",
        )  # fmt: skip
        kept = {}
        for name in names:
            new, old = getattr(fresh, name), getattr(prediction, name)
            kept[name] = torch.where(changed.view(-1, *[1] * (new.ndim - 1)), new, old)
        return replace(prediction, **kept)

    def _problem(
        self, prediction: Prediction, joints: Tensor, confidence: Tensor, settings: RefineSettings
    ) -> _Problem:
        weights = confidence.clamp(0, 1)
        seen = weights > 0
        weights = torch.where(seen, weights**settings.trust, 0)
        for middle, left, right in _MIDDLES:
            at, *ends = (JOINTS30.index(name) for name in (middle, left, right))
            weights[:, at] = weights[:, at] * ~seen[:, ends].all(1)
        return _Problem(
            torch.cat([prediction.global_orient[:, None], prediction.body_rotations], 1).float(),
            prediction.betas.float(),
            prediction.transl.float(),
            prediction.focal.float(),
            # The coordinate of a joint that is not visible may be infinite: 0 · inf would be NaN.
            torch.where(seen[..., None], joints, torch.zeros_like(joints)),
            1 / (settings.keypoint * keypoint_sigmas().to(joints)),
            weights,
            settings.pull / spreads(prediction.betas, prediction.joint_sigma).square(),
        )

    def _minimise(self, p: _Problem, settings: RefineSettings) -> Float[Tensor, "b 85"]:
        """The displacement of least energy from the prediction: rotation vectors, betas, translation."""
        scale = settings.outlier**2
        at = torch.zeros_like(p.precision)
        damping = torch.full_like(p.focal, 1e-3)
        points, off, energy = self._energy(p, at, scale)
        for _ in range(settings.steps):
            jacobian = self._projected(p, at, points)
            weights = (p.weights.sqrt() / (1 + off.square().sum(-1) / scale))[..., None]
            rows = (jacobian * weights[..., None]).flatten(1, 2)
            gradient = (rows.mT @ (off * weights).flatten(1)[..., None])[..., 0] + p.precision * at
            normal = rows.mT @ rows
            own = normal.diagonal(dim1=1, dim2=2)
            own.add_(p.precision)
            own.mul_(1 + damping[:, None])
            factor, failed = torch.linalg.cholesky_ex(normal)
            step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
            tried = at - step
            there = self._energy(p, tried, scale)
            better = (there[2] < energy) & (failed == 0)
            at = torch.where(better[:, None], tried, at)
            points = torch.where(better[:, None, None], there[0], points)
            off = torch.where(better[:, None, None], there[1], off)
            energy = torch.where(better, there[2], energy)
            damping = torch.where(better, damping / 3, damping * 10)
        return at

    def _energy(self, p: _Problem, at: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Joints (b, 30, 3) in metres; how far they are from the keypoints, in sigmas (b, 30, 2); and the energy."""
        rotations, betas, transl = _body(p, at)
        points = self.body.joints30_only(betas, rotations, transl)
        near = torch.cat([points[..., :2], points[..., 2:].clamp(min=_NEAREST)], -1)
        off = (project(near, p.focal) - p.keypoints) * p.sharpness[:, None]
        # e / (1 + e / scale), which is finite for an infinite e.
        penalty = scale * (1 - 1 / (1 + off.square().sum(-1) / scale))
        return points, off, (p.weights * penalty).sum(1) + (p.precision * at.square()).sum(1)

    def _projected(self, p: _Problem, at: Tensor, points: Tensor) -> Float[Tensor, "b 30 2 85"]:
        """Derivative of `off` with respect to the displacement."""
        rotations, betas, _ = _body(p, at)
        jacobian = self.jacobian(betas, rotations, right_jacobian(at[:, :TURNS].unflatten(1, (24, 3))))
        depth = points[..., 2:].clamp(min=_NEAREST)
        slope = (points[..., :2] / depth)[..., None]
        scale = p.focal[:, None] / depth[..., 0] * p.sharpness
        return (jacobian[:, :, :2] - slope * jacobian[:, :, 2:]) * scale[..., None, None]


def keypoint_sigmas() -> Float[Tensor, " 30"]:
    """Standard deviation of each joint's keypoint, crop px: COCO's, for a box of the usual proportions."""
    sigmas = dict(zip(COCO17.joints, COCO_SIGMAS, strict=True))
    side = _BOX * _AREA**0.5
    return torch.tensor([side * sigmas.get(name, _SIGMA_OTHERS) for name in JOINTS30.joints])


def spreads(betas: Float[Tensor, "b 10"], joint_sigma: Float[Tensor, "b 30"] | None) -> Float[Tensor, "b 85"]:
    """How far each parameter of a prediction may be moved, as a standard deviation: radians, betas, metres.

    It grows with the square root of joint_sigma, where there is one.
    """
    like = betas.float()
    degrees = [SPREAD.get(name, (_FREE,) * 3) for name in SMPL24.joints]
    turns = torch.deg2rad(torch.tensor(degrees)).to(like).expand(len(like), 24, 3)
    if joint_sigma is not None:
        moved = joint_sigma.float()[:, [JOINTS30.index(name) for name in _MOVED]]
        limbs = joint_sigma.float()[:, [JOINTS30.index(name) for name in _LIMBS]]
        ratio = torch.cat([limbs.mean(1, keepdim=True), moved], 1) / torch.tensor(_TYPICAL).to(like)
        turns = turns * torch.nan_to_num(ratio, nan=1.0).clamp(_LEAST_RATIO, _MOST_RATIO).sqrt()[..., None]
    others = torch.tensor([_SHAPE_ERRORS] * 10 + list(_PLACE_ERRORS)).to(like).expand(len(like), -1)
    return torch.cat([turns.flatten(1), others], 1)


def right_jacobian(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """J with exp(v + x) = exp(v) exp(J x) to first order in x (Solà et al., A micro Lie theory, 2018, eq. 143)."""
    angle = torch.linalg.vector_norm(vectors, dim=-1).clamp(min=1e-4)[..., None, None]
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (zero, -z, y), (z, zero, -x), (-y, x, zero)
    cross = torch.stack([torch.stack(row, -1) for row in rows], -2)
    eye = torch.eye(3, device=vectors.device, dtype=vectors.dtype)
    first, second = (1 - torch.cos(angle)) / angle**2, (angle - torch.sin(angle)) / angle**3
    return eye - first * cross + second * (cross @ cross)


def _body(p: _Problem, at: Float[Tensor, "b 85"]) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations, betas and translation of a displacement."""
    turns = rotation_matrix(at[:, :TURNS].unflatten(1, (24, 3)))
    return p.rotations @ turns, p.betas + at[:, TURNS:-3], p.transl + at[:, -3:]
