"""From a batch to a loss: the only place where model and targets meet."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dpmesh.losses import Answer, LossWeights, loss_terms
from dpmesh.model import DPMesh, project
from dpmesh.pose_prior.rotations import rotation_matrix
from dpmesh.train.feed import Tensors
from dpmesh.train.settings import Stage


class Objective(nn.Module):
    """The model with its losses. A module of its own, so that Fabric may wrap it for several processes."""

    def __init__(self, model: DPMesh, weights: LossWeights, stage: Stage) -> None:
        super().__init__()
        self.model, self.weights, self.stage = model, weights, stage

    def forward(self, batch: Tensors, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms. seed: of what is left out or scrambled in this step."""
        # On a CPU the fused attention's backward pass is slower than plain products for so few tokens.
        plain = SDPBackend.MATH if batch["joints"].device.type == "cpu" else SDPBackend.EFFICIENT_ATTENTION
        with sdpa_kernel([plain, SDPBackend.MATH]):
            return self._losses(batch, seed)

    def _losses(self, batch: Tensors, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        model = self.model
        prompt = model.prompt(batch["joints"], batch["visible"])
        memory = model.regressor.remember(self._fused(batch, prompt, seed)) if self.stage.source == "images" else None
        answer = model.regressor(memory, prompt)
        parameters = model.parameters_of(answer, batch["focal"])
        with torch.autocast(prompt.device.type, enabled=False):
            joints3d = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
            joints2d = project(joints3d, batch["focal"])
            given = Answer(parameters.rotations, parameters.betas, joints3d, joints2d)
            terms = loss_terms(given, answer.joints_img.float(), truth_of(batch))
            return self.weights.total(terms), terms

    def _fused(self, batch: Tensors, prompt: Tensor, seed: int) -> Tensor:
        stage = self.stage
        generator = torch.Generator().manual_seed(seed)
        count = len(prompt)
        chance = torch.rand(2, count, generator=generator).to(prompt.device)
        crop = batch["crop"].permute(0, 3, 1, 2).float() / 255
        crop = torch.where((chance[0] < stage.scrambled)[:, None, None, None], crop.roll(1, 0), crop)
        fused = self.model.backbone(crop, batch["joints"], batch["visible"], prompt).fused
        return fused * (chance[1] >= stage.no_features)[:, None, None, None]


def truth_of(batch: Tensors) -> Answer:
    """The targets of a batch (data/record.py)."""
    return Answer(rotation_matrix(batch["pose"]), batch["betas"], batch["joints3d"], batch["joints2d"])
