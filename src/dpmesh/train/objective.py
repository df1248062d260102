"""From a batch to a loss: the only place where model and targets meet."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dpmesh.losses import Answer, LossWeights, loss_terms, reading_terms
from dpmesh.model import DPMesh, project
from dpmesh.pose_prior.rotations import rotation_matrix
from dpmesh.train.feed import Tensors
from dpmesh.train.imagined import imagined_reading
from dpmesh.train.settings import Stage


class Objective(nn.Module):
    """The model with its losses. A module of its own, so that Fabric may wrap it for several processes."""

    def __init__(self, model: DPMesh, weights: LossWeights, stage: Stage) -> None:
        super().__init__()
        self.model, self.weights, self.stage = model, weights, stage

    def forward(self, batch: Tensors, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms. seed: of what is left out or scrambled in this step."""
        # On a CPU the fused attention's backward pass is slower than plain products for so few tokens.
        on_cpu = batch["joints"].device.type == "cpu"
        with sdpa_kernel([SDPBackend.MATH] if on_cpu else [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return self._losses(batch, seed)

    def _losses(self, batch: Tensors, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        model, truth = self.model, truth_of(batch)
        prompt = model.prompt(batch["joints"], batch["visible"])
        seen, read, reading = None, None, dict[str, Tensor]()
        if self.stage.source == "images":
            crop, felt = self._crop(batch, seed)
            seen = model.backbone(crop, batch["joints"], batch["visible"], prompt)
            if seen.read is not None:  # somebody else's picture still shows the hint, and where to doubt it
                reading = reading_terms(seen.read.scores, seen.read.places, truth)
            seen = seen.times(felt)
        elif model.config.regressor.reading:
            read = imagined_reading(batch, seed, self.stage.no_features)
        answer = model.regress(seen, prompt, batch["joints"], batch["visible"], read)
        parameters = model.parameters_of(answer, batch["focal"])
        with torch.autocast(prompt.device.type, enabled=False):
            joints3d = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
            joints2d = project(joints3d, batch["focal"])
            given = Answer(parameters.rotations, parameters.betas, joints3d, joints2d)
            terms = loss_terms(given, answer.joints_img.float(), truth)
            return self.weights.total({**terms, **reading}), {**terms, **reading}

    def _crop(self, batch: Tensors, seed: int) -> tuple[Tensor, Tensor]:
        """Crops (b, 3, 256, 256), some exchanged for the next person's; and 1 where the features count."""
        crop = batch["crop"].permute(0, 3, 1, 2).float() / 255
        chance = torch.rand(2, len(crop), generator=torch.Generator().manual_seed(seed)).to(crop.device)
        own = chance[0] >= self.stage.scrambled
        felt = (chance[1] >= self.stage.no_features).to(crop.dtype)
        return torch.where(own[:, None, None, None], crop, crop.roll(1, 0)), felt


def truth_of(batch: Tensors) -> Answer:
    """The targets of a batch (data/record.py)."""
    return Answer(rotation_matrix(batch["pose"]), batch["betas"], batch["joints3d"], batch["joints2d"])
