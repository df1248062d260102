"""From a batch to a loss: the only place where model and targets meet."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dpmesh.losses import Answer, LossWeights, loss_terms, reading_terms, surface_terms
from dpmesh.model import DPMesh, project
from dpmesh.pose_prior.rotations import rotation_matrix
from dpmesh.pose_prior.vqvae import POINT_MODES, PoseVQVAE
from dpmesh.train.feed import BLIND, Tensors
from dpmesh.train.imagined import imagined_reading
from dpmesh.train.settings import Stage


class Objective(nn.Module):
    """The model with its losses. A module of its own, so that Fabric may wrap it for several processes.

    bf16: matrix products in bf16. Fabric's own "bf16-mixed" also rounds what goes in, and a target of four metres
    is then off by up to 16 mm; so Fabric runs in fp32 and the autocast is here.
    """

    def __init__(self, model: DPMesh, weights: LossWeights, stage: Stage, *, bf16: bool = False) -> None:
        super().__init__()
        self.model, self.weights, self.stage, self.bf16 = model, weights, stage, bf16

    def forward(self, batch: Tensors, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms. seed: of what is left out or scrambled in this step."""
        # On a CPU the fused attention's backward pass is slower than plain products for so few tokens.
        device = batch["joints"].device.type
        kernels = [SDPBackend.MATH] if device == "cpu" else [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        with sdpa_kernel(kernels), torch.autocast(device, torch.bfloat16, enabled=self.bf16):
            return self._losses(batch, seed)

    def _losses(self, batch: Tensors, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self._terms(batch, seed)
        total = self.weights.total(terms)
        blind = {name.removeprefix(BLIND): v for name, v in batch.items() if name.startswith(BLIND)}
        if blind:
            total = total + self.weights.total(self._terms(blind, seed))
        return total, terms

    def _terms(self, batch: Tensors, seed: int) -> dict[str, Tensor]:
        model, truth = self.model, truth_of(batch)
        seen, read, reading = None, None, dict[str, Tensor]()
        if "crop" in batch:
            crop, own, felt = self._crop(batch, seed)
            seen = model.look(crop, batch["joints"], batch["visible"])
            if seen.read is not None:  # somebody else's picture still shows the hint, and where to doubt it
                reading = reading_terms(seen.read.scores, seen.read.places, truth)
                reading |= surface_terms(seen.read.surface, batch["parts"].long(), batch["surface"], own)
            seen = seen.times(felt)
        elif model.config.reads:
            read = imagined_reading(batch, seed)
        answer = model.regress(seen, batch["joints"], batch["visible"], read)
        parameters = model.parameters_of(answer, batch["focal"])
        with torch.autocast(batch["joints"].device.type, enabled=False):
            joints3d = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
            joints2d = project(joints3d, batch["focal"])
            given = Answer(parameters.rotations, parameters.betas, joints3d, joints2d)
            terms = loss_terms(given, answer.joints_img.float(), truth)
            terms |= reading
            prior = model.pose_prior
            if isinstance(prior, PoseVQVAE) and prior.mode in POINT_MODES:
                terms |= {"pose_latent": _latent_term(prior, parameters.pose_latent, truth)}
            return terms

    def _crop(self, batch: Tensors, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Crops (b, 3, 256, 256), some the next person's; which are their own; and 1 where the features count."""
        crop = batch["crop"].permute(0, 3, 1, 2).float() / 255
        chance = torch.rand(2, len(crop), generator=torch.Generator().manual_seed(seed)).to(crop.device)
        own = chance[0] >= self.stage.scrambled
        felt = (chance[1] >= self.stage.no_features).to(crop.dtype)
        return torch.where(own[:, None, None, None], crop, crop.roll(1, 0)), own, felt


def _latent_term(prior: PoseVQVAE, points: Tensor, truth: Answer) -> Tensor:
    """Mean square of the distance to the true pose's own place in code space."""
    with torch.no_grad():
        target = prior.encode(truth.rotations[:, 1 : prior.config.joints + 1])
    return (points - target).square().mean()


def truth_of(batch: Tensors) -> Answer:
    """The targets of a batch (data/record.py), in fp32 also under autocast."""
    with torch.autocast(batch["pose"].device.type, enabled=False):
        rotations = rotation_matrix(batch["pose"])
    return Answer(rotations, batch["betas"], batch["joints3d"], batch["joints2d"])
