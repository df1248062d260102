"""The objective of the VQ-VAE pose prior, and its reconstruction error on held-out poses."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from dpmesh.assets import sha256, shipped
from dpmesh.body.files import BodyArrays, free_body
from dpmesh.data.poses import PoseBank
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.pose_prior.files import save_prior
from dpmesh.pose_prior.vqvae import PoseVQVAE, PoseVQVAEConfig
from dpmesh.skeletons import SMPL_PARENTS
from dpmesh.train.dataloader import Part, Tensors, held_out_poses
from dpmesh.train.objectives.base import Group, Objective
from dpmesh.train.stages import PriorStage


def rest_joints(body: BodyArrays | None = None) -> Float32[Tensor, "24 3"]:
    """The 24 joints of the mean shape in T-pose, metres (the free body's without an argument)."""
    arrays = body or free_body()
    return torch.as_tensor(arrays.J_regressor @ arrays.v_template, dtype=torch.float32)


def forward_kinematics(
    rotations: Float[Tensor, "b 23 3 3"], rest: Float[Tensor, "24 3"]
) -> Float[Tensor, "b 24 3"]:
    """Joints relative to the pelvis, metres, of a body that stands unrotated (body frame)."""
    turned: list[Tensor] = [torch.eye(3, dtype=rest.dtype, device=rest.device).expand(len(rotations), 3, 3)]
    places: list[Tensor] = [torch.zeros_like(rest[:1]).expand(len(rotations), 3)]
    for joint in range(1, 24):
        parent = SMPL_PARENTS[joint]
        turned.append(turned[parent] @ rotations[:, joint - 1])
        places.append(places[parent] + turned[parent] @ (rest[joint] - rest[parent]))
    return torch.stack(places, 1)


def body_rotations(poses: Float32[NDArray[np.float32], "n 24 3"]) -> Float32[Tensor, "n 23 3 3"]:
    """Matrices of joints 1..23 of axis-angle poses."""
    vectors = torch.from_numpy(np.ascontiguousarray(poses[:, 1:]))
    return rotation_matrix(vectors)


TEMPERATURES = (0.5, 1.0)
"""Of the mixtures that are tried, in units of the mean squared distance from a latent to its nearest code. Harder and
softer ones were worse with the shipped prior."""

VALIDATED, MIXED = 4096, 512
"""Evenly spaced poses that a training validates on; and those of them on which mixtures are tried."""

log = logging.getLogger("dpmesh.train")


@dataclass(frozen=True)
class PriorScore:
    """Reconstruction: mean over frames and 24 joints, relative to the pelvis, on the free body.

    mpjpe_mm, worst_tenth_mm: with the nearest codes. code_use: share of the codebook that was hit.
    soft_mm: with mixtures of codes, as a model of token_mode "soft" decodes them; their weights are a softmax over the
    negative squared distances, at the best of TEMPERATURES. continuous_mm: with the latents themselves. These two of
    `MIXED` frames at even distances.
    """

    mpjpe_mm: float
    worst_tenth_mm: float
    code_use: float
    frames: int
    soft_mm: float
    continuous_mm: float


@torch.no_grad()
def evaluate_prior(model: PoseVQVAE, bank: PoseBank, rest: Float32[Tensor, "24 3"]) -> PriorScore:
    """Reconstruct every pose of the bank through the codes."""
    was_training = model.training
    model.eval()
    errors, used = list[Tensor](), torch.zeros(model.config.codes, dtype=torch.bool, device=rest.device)
    for rotations in body_rotations(bank.poses).to(rest.device).split(512):
        codes, indices, _ = model.quantise(model.encode(rotations[:, : model.config.joints]))
        used[indices.flatten()] = True
        errors.append(_off(model, codes, forward_kinematics(rotations, rest), rest))
    per_frame = torch.cat(errors).sort().values
    continuous, *soft = _without_choice(model, evenly_spaced(bank, MIXED), rest)
    model.train(was_training)
    return PriorScore(
        mpjpe_mm=float(per_frame.mean()),
        worst_tenth_mm=float(per_frame[int(0.9 * len(per_frame)) :].mean()),
        code_use=float(used.float().mean()),
        frames=len(per_frame),
        soft_mm=min(soft),
        continuous_mm=continuous,
    )


def _without_choice(model: PoseVQVAE, bank: PoseBank, rest: Float32[Tensor, "24 3"]) -> list[float]:
    """Mean errors, mm, of the latents as they are and of the mixtures at each of TEMPERATURES."""
    codes, errors = model.codebook.codes, list[Tensor]()
    for rotations in body_rotations(bank.poses).to(rest.device).split(128):
        latents = model.encode(rotations[:, : model.config.joints])
        apart = torch.cdist(latents, codes).square()
        apart /= apart.amin(-1).mean().clamp_min(1e-12)
        ways = [latents, *((-apart / t).softmax(-1) @ codes for t in TEMPERATURES)]
        truth = forward_kinematics(rotations, rest)
        errors.append(torch.stack([_off(model, way, truth, rest) for way in ways]))
    return [float(one.mean()) for one in torch.cat(errors, 1)]


def fitted_mixtures(
    model: PoseVQVAE, bank: PoseBank, rest: Float32[Tensor, "24 3"], steps: int = 200
) -> float:
    """What is left when the weights of the mixtures are fitted to each pose itself (Adam, from those by distance): mean
    over frames and joints, mm. No model of token_mode "soft" comes much below, since it decodes mixtures too."""
    model.eval()
    codes, left = model.codebook.codes, list[Tensor]()
    for rotations in body_rotations(bank.poses).to(rest.device).split(64):
        with torch.no_grad():
            latents = model.encode(rotations[:, : model.config.joints])
            apart = torch.cdist(latents, codes).square()
        logits = (-apart / apart.amin(-1).mean().clamp_min(1e-12)).requires_grad_(True)
        truth = forward_kinematics(rotations, rest)
        optimizer = torch.optim.Adam([logits], lr=0.1)
        best = torch.full((len(rotations),), torch.inf, device=rest.device)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - step / steps)
            errors = _off(model, logits.softmax(-1) @ codes, truth, rest)
            best = torch.minimum(best, errors.detach())
            optimizer.zero_grad()
            errors.sum().backward(inputs=[logits])
            optimizer.step()
        left.append(best)
    return float(torch.cat(left).mean())


def _off(
    model: PoseVQVAE,
    codes: Float[Tensor, "b t d"],
    truth: Float[Tensor, "b 24 3"],
    rest: Float[Tensor, "24 3"],
) -> Float[Tensor, " b"]:
    """Mean distance of the joints of decoded poses, mm."""
    return (forward_kinematics(model.decode(codes), rest) - truth).norm(dim=-1).mean(-1) * 1000


def evenly_spaced(bank: PoseBank, many: int = VALIDATED) -> PoseBank:
    """At most `many` poses of the bank, evenly spaced."""
    if len(bank) <= many:
        return bank
    rows = np.linspace(0, len(bank) - 1, many).astype(int)
    return replace(bank, poses=bank.poses[rows], names=("some",), lens=(many,))


def validation_poses(stage: PriorStage) -> PoseBank | None:
    """The clips that the stage holds out; None, with a warning, without any."""
    if (bank := held_out_poses(stage)) is None:
        log.warning("stage %s: no clip is held out, so nothing is validated", stage.name)
        return None
    return evenly_spaced(bank)


def poses_record(stage: PriorStage) -> dict[str, Any]:
    """The poses a prior was trained on, for its provenance."""
    path = Path(stage.poses) if stage.poses else shipped("poses/poses.npz")
    rule = {"held_out": list(stage.held_out), "held_out_share": stage.held_out_share}
    return {"file": path.name, "sha256": sha256(path), **rule}


class PriorObjective(Objective):
    """Rotations, joints and commitment of poses reconstructed through the codes.

    With several processes the codebook is that of the first: its moving averages see its share of the batch.
    """

    mixed = False
    rest: Tensor

    def __init__(self, config: PoseVQVAEConfig, stage: PriorStage) -> None:
        super().__init__()
        self.model, self.stage = PoseVQVAE(config), stage
        self.held_out = validation_poses(stage)
        self.register_buffer("rest", rest_joints(), persistent=False)

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: "pose" (b, 24, 3) axis-angle, "unquantised" (b,) where the latents are not quantised."""
        model, stage = self.model, self.stage
        target = rotation_matrix(batch["pose"][:, 1:])
        latents = model.encode(target[:, : model.config.joints])
        codes, indices, commitment = model.quantise(latents)
        rotations = model.decode(torch.where(batch["unquantised"][:, None, None], latents, codes))
        turned = (rotations - target).square().sum((-1, -2)).mean()
        off = forward_kinematics(rotations, self.rest) - forward_kinematics(target, self.rest)
        error = off.norm(dim=-1).mean()
        loss = turned + stage.joints_weight * error + stage.commitment_weight * commitment
        used = latents.new_tensor(indices.unique().numel() / model.config.codes)
        return loss, {"rotations": turned, "joints_mm": error * 1000, "commitment": commitment, "used": used}

    def groups(self) -> list[Group]:
        return [Group("prior", list(self.model.parameters()))]

    def figures(self) -> dict[str, float]:
        if self.held_out is None:
            return {}
        score = evaluate_prior(self.model, self.held_out, self.rest)
        return {name: round(float(value), 4) for name, value in asdict(score).items()}

    def preview(self, batch: Tensors) -> None:
        return None

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        save_prior(
            self.model,
            folder,
            {**provenance, "poses": poses_record(self.stage), "validation": self.figures()},
        )
