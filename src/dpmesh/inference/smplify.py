"""Fit bodies to 2D keypoints under the pose prior, without a network (SMPLify, Bogo et al., ECCV 2016).

Variables: the prior's latent (code-space points of the VQ-VAE), root orientation, shape, translation. The persons of a
batch are fitted together but independently: the energy is a sum over persons.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpmesh.body.layer import BodyModel
from dpmesh.errors import ConfigError
from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import project
from dpmesh.geometry.rotations import rotation_from_6d, rotation_matrix, rotation_to_6d
from dpmesh.pose_prior.vqvae import PoseVQVAE
from dpmesh.skeletons import JOINTS30, SMPL_PARENTS
from dpmesh.types import Prediction


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Steps, learning rate, and weights of the energy. Raises ConfigError for negative or infinite numbers.

    The data term is the Geman-McClure penalty of the pixel error, at most 1 per joint. sigma: its scale, crop pixels.
    codes: weight of the latent's mean square distance to its nearest codes. shape: of betas². pull_*: of the distance
    to the start: rotations (squared Frobenius, per joint of the body; `pull_blind` for a joint that moves no visible
    keypoint), shape.
    """

    steps: int = 120
    rate: float = 0.05
    sigma: float = 12.0
    codes: float = 0.2
    shape: float = 0.01
    pull_pose: float = 0.05
    pull_blind: float = 0.3
    pull_shape: float = 0.05

    def __post_init__(self) -> None:
        numbers = [float(getattr(self, item.name)) for item in fields(self)]
        if not np.isfinite(numbers).all() or min(numbers) < 0 or self.rate == 0 or self.sigma == 0:
            raise ConfigError(
                "no number may be negative or infinite, rate and sigma must be positive", where="FitSettings"
            )


FIT = FitSettings()
"""The pose is pulled to its start, the mean pose, weakly: it stays where no keypoint determines it."""
_STARTS, _FIRST_STEPS = 4, 40
"""Starts around the vertical, and steps of the first stage, which moves root and translation alone."""


@dataclass(frozen=True, eq=False)
class FitVariables:
    """latent: of the prior; root_6d (b, 6); betas (b, 10); transl (b, 3) metres, crop camera."""

    latent: Tensor
    root_6d: Tensor
    betas: Tensor
    transl: Tensor


class Fitter:
    """Fits `body` under `prior`. Deterministic; no weights are changed."""

    def __init__(self, body: BodyModel, prior: PoseVQVAE) -> None:
        """prior: its latent is a point in code space for each token."""
        self.body, self.prior = body, prior

    def decode(self, latent: Tensor) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of the body's joints without the root."""
        return self.prior.decode(latent)

    def fit(
        self,
        joints: Float[Tensor, "b 30 2"],
        visible: Float[Tensor, "b 30"],
        focal: Float[Tensor, " b"],
        settings: FitSettings = FIT,
    ) -> FitVariables:
        """Fit without a network, from the mean pose.

        The upright body starts in four directions; the one that fits best is fitted to the end. Keypoints: crop px.
        """
        b, device = len(joints), joints.device
        latent = self.mean_latent().to(device).expand(_STARTS * b, -1, -1)
        angles = torch.arange(_STARTS, device=device) * (2 * np.pi / _STARTS)
        vectors = torch.stack([torch.zeros_like(angles), angles, torch.zeros_like(angles)], 1)
        upright = torch.diag(torch.tensor([1.0, -1.0, -1.0], device=device))
        roots = rotation_to_6d(upright @ rotation_matrix(vectors))
        transl = self._initial_translation(joints, visible, focal)
        many = FitVariables(
            latent,
            roots.repeat_interleave(b, 0),
            torch.zeros(_STARTS * b, 10, device=device),
            transl.repeat(_STARTS, 1),
        )
        observed = (joints.repeat(_STARTS, 1, 1), visible.repeat(_STARTS, 1), focal.repeat(_STARTS))
        first = self._descend(
            many, *observed, replace(settings, steps=_FIRST_STEPS, sigma=4 * settings.sigma), body=False
        )
        with torch.no_grad():
            cost = self._data(first, *observed, 4 * settings.sigma).reshape(_STARTS, b)
            best = cost.argmin(0) * b + torch.arange(b, device=device)
        chosen = FitVariables(*(getattr(first, n)[best] for n in ("latent", "root_6d", "betas", "transl")))
        return self._descend(chosen, joints, visible, focal, settings)

    def prediction_of(self, fitted: FitVariables, focal: Tensor) -> Prediction:
        """The fitted body as a Prediction. What only a network predicts (camera, joints_img) is zeros."""
        with torch.no_grad():
            rotations = torch.cat([rotation_from_6d(fitted.root_6d)[:, None], self.decode(fitted.latent)], 1)
            return Prediction.from_body(
                self.body,
                rotations,
                fitted.betas,
                fitted.transl,
                focal,
                root_6d=fitted.root_6d,
                pose_latent=fitted.latent,
            )

    def _descend(
        self,
        start: FitVariables,
        joints: Tensor,
        visible: Tensor,
        focal: Tensor,
        s: FitSettings,
        body: bool = True,
    ) -> FitVariables:
        """Minimise the energy with Adam. body=False moves root and translation alone."""
        with torch.inference_mode(False), torch.enable_grad():
            start = FitVariables(
                *(getattr(start, n).detach().clone() for n in ("latent", "root_6d", "betas", "transl"))
            )
            # The coordinate of a joint that is not visible may be infinite: 0 · inf would be NaN.
            joints = torch.where(visible[..., None] > 0, joints, torch.zeros_like(joints))
            visible, focal = visible.clone(), focal.clone()
            moving = FitVariables(
                *(getattr(start, n).clone() for n in ("latent", "root_6d", "betas", "transl"))
            )
            free = [moving.root_6d, moving.transl, *((moving.latent, moving.betas) if body else ())]
            for one in free:
                one.requires_grad_()
            with torch.no_grad():
                start_pose = self.decode(start.latent)
                stiff = torch.where(blind(visible), s.pull_blind, s.pull_pose)
            optimiser = torch.optim.Adam(free, lr=s.rate)
            for step in range(s.steps):
                optimiser.param_groups[0]["lr"] = s.rate * (1 - 0.9 * step / s.steps)
                pose = self.decode(moving.latent)
                rotations = torch.cat([rotation_from_6d(moving.root_6d)[:, None], pose], 1)
                cost = self._pixels(rotations, moving, joints, visible, focal, s.sigma)
                cost = cost + s.shape * moving.betas.square().sum(1)
                cost = cost + (stiff * (pose - start_pose).square().sum((2, 3))).sum(1)
                cost = cost + s.pull_shape * (moving.betas - start.betas).square().sum(1)
                cost = cost + s.codes * self._off_codes(moving.latent)
                optimiser.zero_grad()
                cost.sum().backward()
                optimiser.step()
            return FitVariables(
                *(getattr(moving, n).detach() for n in ("latent", "root_6d", "betas", "transl"))
            )

    def _off_codes(self, latent: Tensor) -> Float[Tensor, " b"]:
        """Mean square distance of the tokens to their nearest codes."""
        with torch.no_grad():
            nearest = self.prior.codebook.codes[self.prior.codebook.nearest(latent)]
        return (latent - nearest).square().sum(-1).mean(1)

    def _data(
        self, at: FitVariables, joints: Tensor, visible: Tensor, focal: Tensor, sigma: float
    ) -> Float[Tensor, " b"]:
        rotations = torch.cat([rotation_from_6d(at.root_6d)[:, None], self.decode(at.latent)], 1)
        return self._pixels(rotations, at, joints, visible, focal, sigma)

    def _pixels(
        self,
        rotations: Tensor,
        at: FitVariables,
        joints: Tensor,
        visible: Tensor,
        focal: Tensor,
        sigma: float,
    ) -> Float[Tensor, " b"]:
        """Geman and McClure's e² / (e² + sigma²), summed over the visible joints."""
        points = project(self.body.joints30_only(at.betas, rotations, at.transl), focal)
        off = (points - joints).square().sum(-1)
        return (visible * off / (off + sigma**2)).sum(1)

    def mean_latent(self) -> Float[Tensor, "1 t d"]:
        """The mean latent of two thousand training poses, evenly spaced."""
        from dpmesh.data.poses import PoseBank  # here: only a fit from the mean pose needs training data

        bank = PoseBank.load("train").both_sides
        poses = torch.from_numpy(bank[:: max(len(bank) // 2000, 1), 1:22])
        with torch.no_grad():
            own = next(self.prior.parameters())
            return self.prior.encode(rotation_matrix(poses).to(own.device, own.dtype)).mean(0, keepdim=True)

    def _initial_translation(self, joints: Tensor, visible: Tensor, focal: Tensor) -> Float[Tensor, "b 3"]:
        """Depth at which a standing body of 1.7 m fills nine tenths of the crop, centred on the visible keypoints."""
        depth = focal * 1.7 / (0.9 * CROP)
        count = visible.sum(1, keepdim=True).clamp(min=1)
        middle = (joints * visible[..., None]).sum(1) / count
        middle = torch.where(visible.sum(1, keepdim=True) > 0, middle, torch.full_like(middle, CROP / 2))
        return torch.cat([(middle - CROP / 2) * (depth / focal)[:, None], depth[:, None]], 1)


def blind(visible: Float[Tensor, "b 30"]) -> Bool[Tensor, "b 23"]:
    """Which of the joints 1..23 move no visible keypoint."""
    return (visible @ _TURNED.to(visible).T <= 0)[:, 1:]


def _turned() -> Float[Tensor, "24 30"]:
    """Row j: the joints of the 30-set that rotation j moves: its descendants; the face moves with the head."""
    parents = (*SMPL_PARENTS, *([JOINTS30.index("Head")] * 6))
    below = np.eye(30)
    for child in range(1, 30):
        below[:, child] += below[:, parents[child]]
    return torch.from_numpy(np.clip(below - np.eye(30), 0, 1)[:24]).float()


_TURNED = _turned()
