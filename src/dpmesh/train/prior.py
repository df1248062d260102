"""The stage that trains the VQ-VAE pose prior, and how well it gives back poses that it has not seen."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from dpmesh.body.files import BodyArrays, free_body
from dpmesh.data.poses import PoseBank
from dpmesh.pose_prior.files import save_prior
from dpmesh.pose_prior.rotations import rotation_matrix
from dpmesh.pose_prior.vqvae import PoseVQVAE, PoseVQVAEConfig
from dpmesh.skeletons import SMPL_PARENTS
from dpmesh.train.feed import Tensors, pose_bank
from dpmesh.train.objective import Group, Objective
from dpmesh.train.part import Part
from dpmesh.train.stages import Prior


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


@dataclass(frozen=True)
class PriorScore:
    """Reconstruction with the nearest codes: mean of frames and 24 joints, relative to the pelvis."""

    mpjpe_mm: float
    worst_tenth_mm: float
    code_use: float
    frames: int


@torch.no_grad()
def evaluate_prior(model: PoseVQVAE, bank: PoseBank, rest: Float32[Tensor, "24 3"]) -> PriorScore:
    """Give every pose of the bank back through the codes. `code_use`: share of the codebook that was hit."""
    was_training = model.training
    model.eval()
    errors, used = [], torch.zeros(model.config.codes, dtype=torch.bool, device=rest.device)
    for rotations in body_rotations(bank.poses).to(rest.device).split(512):
        out = model(rotations[:, : model.config.joints])
        used[out.indices.flatten()] = True
        moved = forward_kinematics(out.rotations, rest) - forward_kinematics(rotations, rest)
        errors.append(moved.norm(dim=-1).mean(-1) * 1000)
    model.train(was_training)
    per_frame = torch.cat(errors).sort().values
    worst = per_frame[int(0.9 * len(per_frame)) :].mean()
    return PriorScore(float(per_frame.mean()), float(worst), float(used.float().mean()), len(per_frame))


class PriorObjective(Objective):
    """Rotations, joints and commitment of poses given back through the codes.

    With several processes the codebook is that of the first: its moving averages see its share of the batch.
    """

    mixed = False
    rest: Tensor

    def __init__(self, config: PoseVQVAEConfig, stage: Prior) -> None:
        super().__init__()
        self.model, self.stage = PoseVQVAE(config), stage
        self.register_buffer("rest", rest_joints(), persistent=False)

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: "pose" (b, 24, 3) axis-angle, "smooth" (b,) where the latents are not quantised."""
        model, stage = self.model, self.stage
        target = rotation_matrix(batch["pose"][:, 1:])
        latents = model.encode(target[:, : model.config.joints])
        codes, indices, commitment = model.quantise(latents)
        rotations = model.decode(torch.where(batch["smooth"][:, None, None], latents, codes))
        turned = (rotations - target).square().sum((-1, -2)).mean()
        off = forward_kinematics(rotations, self.rest) - forward_kinematics(target, self.rest)
        error = off.norm(dim=-1).mean()
        loss = turned + stage.joints_weight * error + stage.commitment_weight * commitment
        used = latents.new_tensor(indices.unique().numel() / model.config.codes)
        return loss, {"rotations": turned, "joints_mm": error * 1000, "commitment": commitment, "used": used}

    def groups(self) -> list[Group]:
        return [Group("prior", list(self.model.parameters()))]

    def figures(self) -> dict[str, float]:
        score = evaluate_prior(self.model, pose_bank("validation", self.stage.poses), self.rest)
        return {name: round(float(value), 4) for name, value in asdict(score).items()}

    def sheet(self, batch: Tensors) -> None:
        return None

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        save_prior(self.model, folder, {**provenance, "validation": self.figures()})
