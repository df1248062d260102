"""Noisy key-point reasoning (section 3.3, Eq. 7-8): a student's features are held to those of a frozen teacher.

mesh.py adds the two terms to the student's losses; their weights are `nkr_mse` and `nkr_contrast` (losses.py).

Features: those that the released teacher returns, two maps that the regressor computes from the fused one before any
query: the 2D map (b, 64, c) after its 1×1 convolution, and the 3D volume (b, c, d, 8, 8) after its transformer.
Teacher and student have the same crop; the teacher's input are the ground-truth joints, the student's corrupted ones.

L_MSE: mean square of the difference of all numbers, summed over the two features.

L_SimCLR: Eq. 8 is printed log(e^{D(S_i,T_i)} / Σ_{j≠i} e^{D(S_i,T_j)}), without a minus and without the positive in the
denominator. With a similarity its minimum pushes the student *away* from its own teacher. With a true distance the
sign is right, but e^{D} is then largest for the negatives that are farthest already: the loss spends its gradient
on them and has no lower bound. So it is SimCLR's own loss, which the sentence around the equation describes and
cites: with D the cosine distance 1 - cos of a person's whole feature,

    L_i = -log( e^{-D(S_i,T_i)/τ} / Σ_j e^{-D(S_i,T_j)/τ} ),   τ = 0.1,

j over all people of the batch, those of other processes included, the positive too: then L ≥ 0, and a batch of one
gives 0 and not -∞. The cosine, because lengths are L_MSE's business. τ: features of different people share most
of their direction (they are maps of a person in the middle), cosines differ by a few hundredths to tenths; SimCLR's
usual 0.1 makes logits of that, the released fragment's 1.0 next to none.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dpmesh.backbone.diffusion import DiffusionBackbone
from dpmesh.model import DPMesh

TEMPERATURE = 0.1

Watched = dict[str, Tensor]
""""map" (b, 64, c) and "volume" (b, c, d, 8, 8), as soon as the regressor has made them."""


@contextmanager
def watch(model: DPMesh) -> Generator[Watched, None, None]:
    """Record the two features that the regressor computes within the context."""
    features: Watched = {}
    parts = {"map": model.regressor.down, "volume": model.regressor.volume}

    def keep(name: str):
        return lambda _part, _inputs, out: features.update({name: out})

    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()


class Teaching:
    """A frozen teacher of a student. No module, so that it is not trained, saved or counted."""

    def __init__(self, teacher: DPMesh, student: DPMesh) -> None:
        self.teacher = teacher.requires_grad_(False).eval()
        share_frozen(teacher, student)
        self.one_encoder = same_encoder(teacher, student)
        self.watch = watch
        self.device = torch.device("cpu")

    @torch.no_grad()
    def features(
        self, crop: Tensor, joints: Tensor, visible: Tensor, latent: Tensor | None = None
    ) -> Watched:
        """The teacher's features. joints, visible: ground truth. latent: the student's, where `one_encoder`."""
        if self.device != crop.device:  # Fabric does not move it
            self.teacher.to(crop.device)
            self.device = crop.device
        with watch(self.teacher) as features:
            self.teacher.regressor.build_memory(
                self.teacher.encode_image(crop, joints, visible, latent).fused
            )
        return features

    def terms(
        self,
        student: Watched,
        crop: Tensor,
        joints: Tensor,
        visible: Tensor,
        latent: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Eq. 7's two, summed over the features. Arguments as `features`."""
        teacher = self.features(crop, joints, visible, latent)
        pairs = [(student[name].flatten(1).float(), teacher[name].flatten(1).float()) for name in teacher]
        return {
            "nkr_contrast": torch.stack([contrast(s, gathered(t)) for s, t in pairs]).sum(),
            "nkr_mse": torch.stack([F.mse_loss(s, t.detach()) for s, t in pairs]).sum(),
        }


def contrast(student: Float[Tensor, "b n"], teacher: Float[Tensor, "m n"]) -> Float[Tensor, ""]:
    """L_SimCLR, mean over the students. teacher: of all processes, this one's b rows at its rank's place."""
    with torch.autocast(student.device.type, enabled=False):
        cosine = F.normalize(student, dim=1) @ F.normalize(teacher.detach(), dim=1).T
    rank = dist.get_rank() if len(teacher) > len(student) else 0
    own = torch.arange(len(student), device=student.device) + rank * len(student)
    return F.cross_entropy((cosine - 1) / TEMPERATURE, own)


def gathered(features: Float[Tensor, "b n"]) -> Float[Tensor, "m n"]:
    """The rows of all processes, in the order of their ranks; without gradient."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return features
    parts = [torch.empty_like(features) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, features.detach().contiguous())
    return torch.cat(parts)


def share_frozen(teacher: DPMesh, student: DPMesh) -> None:
    """Share the parameters that the student does not train and the teacher has alike (the VAE, most of the U-Net)."""
    own = dict(student.named_parameters())
    for name, parameter in list(teacher.named_parameters()):
        if not own[name].requires_grad and torch.equal(own[name], parameter):
            part, _, leaf = name.rpartition(".")
            setattr(teacher.get_submodule(part), leaf, own[name])


def same_encoder(teacher: DPMesh, student: DPMesh) -> bool:
    """Whether both make the same latent of a crop: their encoders are the same frozen numbers (after share_frozen)."""
    ours, theirs = (
        model.backbone if isinstance(model.backbone, DiffusionBackbone) else None
        for model in (student, teacher)
    )
    if ours is None or theirs is None or ours.config.vae != theirs.config.vae:
        return False
    pairs = zip(ours.vae.parameters(), theirs.vae.parameters(), strict=True)
    return all(own is other and not own.requires_grad for own, other in pairs)
