"""The distribution of a body's parameters, given a prediction, its keypoints, and joints that are pinned.

Prior: normal about the prediction. Its covariance is that of the model's errors on rendered people, which hang together
along limbs and between rotations and depth (shipped/errors/errors.npz, tools/assets/fit_errors.py), scaled for each
person by the spreads of refine.py, hence by joint_sigma. Keypoints: as in refine.py, with a robust penalty. The most
probable body is found by Gauss-Newton steps (Levenberg-Marquardt); about it the distribution is taken as normal
(Laplace's approximation).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dpmesh.assets import shipped
from dpmesh.body.array_files import load_npz
from dpmesh.body.jacobian import PARAMETERS, TURNS, JointJacobian
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.refine import REFINE, keypoint_sigmas, right_jacobian, spreads

STEPS = 20
PIN, PIN_POINT = 0.5, 0.005
"""Standard deviations of a pinned joint: crop px, metres. A keypoint's is several times as great. The latter is also
that of a foot on the floor."""
_FIXED = 1e8
"""Precision of a parameter that does not move."""
_DONE = 0.1
"""Gain of a step, in squared standard deviations, after which no further one is needed."""
_NEAREST = 0.05
"""Metres: depths below it count as it."""


@dataclass(frozen=True, eq=False)
class Observed:
    """b predicted bodies in the camera frame of their image, and what is known of them. Pixels are crop px."""

    rotations: Float[Tensor, "b 24 3 3"]
    betas: Float[Tensor, "b 10"]
    transl: Float[Tensor, "b 3"]
    camera: Float[Tensor, "b 3 3"]
    """Metres to crop px."""
    joint_sigma: Float[Tensor, "b 30"]
    """NaN where it is not known."""
    keypoints: Float[Tensor, "b 30 2"]
    weights: Float[Tensor, "b 30"]
    """Of the keypoints, in [0, 1]; 0 is not visible."""
    pixels: Float[Tensor, "b 30 2"]
    """Where joints are pinned in the image."""
    pinned: Float[Tensor, "b 30"]
    """1 where they are."""
    points: Float[Tensor, "b 30 3"]
    """Where joints are pinned in space, metres, camera frame."""
    placed: Float[Tensor, "b 30"]
    """1 where they are."""
    floor: Float[Tensor, "b 4"]
    """Up and the camera's height above the floor (geometry/floor.py); zero without one."""
    standing: Float[Tensor, "b 30"]
    """1 for joints that have their `soles` height above it."""
    solid: Float[Tensor, "b 30"]
    """1 for those that are not below that height."""
    soles: Float[Tensor, "b 30"]

    @classmethod
    def of_keypoints(
        cls,
        rotations: Tensor,
        betas: Tensor,
        transl: Tensor,
        camera: Tensor,
        joint_sigma: Tensor,
        keypoints: Tensor,
        weights: Tensor,
    ) -> "Observed":
        """Without pins and floor."""
        none, empty = torch.zeros_like(weights), torch.zeros_like(keypoints)
        points = torch.cat([empty, empty[..., :1]], -1)
        nothing = empty, none, points, none, torch.zeros_like(camera.flatten(1)[:, :4]), none, none, none
        return cls(rotations, betas, transl, camera, joint_sigma, keypoints, weights, *nothing)


class Posterior:
    """Of bodies of `body`. Deterministic; a person's result does not depend on the others but for rounding."""

    def __init__(self, body: BodyModel) -> None:
        self.body, self.jacobian = body, JointJacobian(body)

    @torch.no_grad()
    def most_probable(self, o: Observed, steps: int = STEPS, shape: bool = True) -> Float[Tensor, "b 85"]:
        """The displacement of the most probable body from the prediction: rotation vectors in the frame of each joint,
        betas, translation. shape=False: the betas stay."""
        precision = prior_precision(o)
        if not shape:
            precision.diagonal(dim1=1, dim2=2)[:, TURNS:-3] += _FIXED
        at = torch.zeros_like(precision[:, 0])
        damping = torch.full_like(at[:, 0], 1e-3)
        energy = self._energy(o, precision, at)
        for _ in range(steps):
            rows, off = self._rows(o, at)
            pull = (precision @ at[..., None])[..., 0]
            gradient = (rows.mT @ off[..., None])[..., 0] + pull
            normal = rows.mT @ rows + precision
            own = normal.diagonal(dim1=1, dim2=2)
            own.mul_(1 + damping[:, None])
            factor, failed = torch.linalg.cholesky_ex(normal)
            tried = at - torch.cholesky_solve(gradient[..., None], factor)[..., 0]
            there = self._energy(o, precision, tried)
            better = (there < energy) & (failed == 0)
            done = bool((better & (energy - there < _DONE)).all())
            at = torch.where(better[:, None], tried, at)
            energy = torch.where(better, there, energy)
            damping = torch.where(better, damping / 3, damping * 10)
            if done:
                break
        return at

    @torch.no_grad()
    def precision(self, o: Observed, at: Float[Tensor, "b 85"]) -> Float[Tensor, "b 85 85"]:
        """Inverse covariance of the displacement about `at`, where that is the most probable one."""
        rows, _ = self._rows(o, at)
        return rows.mT @ rows + prior_precision(o)

    def body_at(self, o: Observed, at: Float[Tensor, "b 85"]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations, betas and translation of a displacement."""
        turns = rotation_matrix(at[:, :TURNS].unflatten(1, (24, 3)))
        return o.rotations @ turns, o.betas + at[:, TURNS:-3], o.transl + at[:, -3:]

    def joint_derivative(self, o: Observed, at: Float[Tensor, "b 85"]) -> Float[Tensor, "b 30 3 85"]:
        """Of the joints, metres, by the displacement."""
        rotations, betas, _ = self.body_at(o, at)
        return self.jacobian(betas, rotations, right_jacobian(at[:, :TURNS].unflatten(1, (24, 3))))

    def _joints(self, o: Observed, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Joints (b, 30, 3) in metres, their depth and their pixels."""
        rotations, betas, transl = self.body_at(o, at)
        points = self.body.joints30_only(betas, rotations, transl)
        depth = points[..., 2:].clamp(min=_NEAREST)
        pixels = torch.cat([points[..., :2], depth], -1) @ o.camera[:, :2].mT / depth
        return points, depth, pixels

    def _energy(self, o: Observed, precision: Tensor, at: Tensor) -> Float[Tensor, " b"]:
        points, _, pixels = self._joints(o, at)
        off = (pixels - o.keypoints) / _scale(o)
        # e / (1 + e / scale), which is finite for an infinite e.
        scale = REFINE.outlier**2
        penalty = scale * (1 - 1 / (1 + off.square().sum(-1) / scale))
        data = (o.weights * penalty).sum(1)
        data = data + (o.pinned * (pixels - o.pixels).square().sum(-1)).sum(1) / PIN**2
        data = data + (o.placed * (points - o.points).square().sum(-1)).sum(1) / PIN_POINT**2
        above, held = _above(o, points)
        data = data + (held * above.square()).sum(1) / PIN_POINT**2
        return data + torch.einsum("bi,bij,bj->b", at, precision, at)

    def _rows(self, o: Observed, at: Tensor) -> tuple[Float[Tensor, "b r 85"], Float[Tensor, "b r"]]:
        """Derivatives of what the squares are summed of, and its values, without the prior."""
        points, depth, pixels = self._joints(o, at)
        by_point = self.joint_derivative(o, at)
        camera = o.camera[:, None, :2]
        slope = torch.cat([camera[..., :2].expand(*pixels.shape, 2), camera[..., 2:] - pixels[..., None]], -1)
        by_pixel = (slope / depth[..., None]) @ by_point
        off = (pixels - o.keypoints) / _scale(o)
        robust = (o.weights.sqrt() / (1 + off.square().sum(-1) / REFINE.outlier**2))[..., None]
        pinned, placed = o.pinned[..., None] / PIN, o.placed[..., None] / PIN_POINT
        above, held = _above(o, points)
        held = held[..., None] / PIN_POINT
        rows = [
            by_pixel * (robust / _scale(o))[..., None],
            by_pixel * pinned[..., None],
            by_point * placed[..., None],
            (o.floor[:, None, None, :3] @ by_point) * held[..., None],
        ]
        values = [
            off * robust,
            (pixels - o.pixels) * pinned,
            (points - o.points) * placed,
            above[..., None] * held,
        ]
        return (
            torch.cat([row.flatten(1, 2) for row in rows], 1),
            torch.cat([value.flatten(1) for value in values], 1),
        )


def _above(o: Observed, points: Tensor) -> tuple[Float[Tensor, "b 30"], Float[Tensor, "b 30"]]:
    """Heights of joints above where they stand, metres, and 1 for those that are to be zero."""
    above = points @ o.floor[:, :3, None]
    above = above[..., 0] + o.floor[:, 3:] - o.soles
    return above, torch.maximum(o.standing, o.solid * (above < 0))


def _scale(o: Observed) -> Float[Tensor, "30 1"]:
    """Standard deviation of a certain keypoint, crop px."""
    return REFINE.keypoint * keypoint_sigmas().to(o.keypoints)[:, None]


def prior_precision(o: Observed) -> Float[Tensor, "b 85 85"]:
    """Inverse covariance of the prediction's errors."""
    inverse = 1 / spreads(o.betas, o.joint_sigma)
    return inverse[:, :, None] * _shipped_precision().to(inverse) * inverse[:, None, :]


@cache
def _shipped_precision() -> Float[Tensor, "85 85"]:
    """Inverse covariance of the errors in units of spreads."""
    covariance = load_npz(shipped("errors/errors.npz"))["covariance"].astype(np.float64)
    assert covariance.shape == (PARAMETERS, PARAMETERS)
    return torch.from_numpy(np.linalg.inv(covariance))
