"""The objective of the uncertainty head alone (regressor/uncertainty.py), and its calibration.

The rest of the model is frozen and runs without gradients, so that a step costs little more than its forward pass.
The model predicts each person with an image twice, as it is and with an occlusion (occlusion_augment.py). Both errors
train the head, and of each pair the scale of a covered joint must rise. The errors alone teach that only on average.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from dpmesh.errors import ConfigError
from dpmesh.geometry.crop_camera import project
from dpmesh.losses import uncertainty_term
from dpmesh.metrics import rank_correlation
from dpmesh.model import DPMesh
from dpmesh.regressor.uncertainty import UncertaintyHead
from dpmesh.train import validate
from dpmesh.train.config import Settings
from dpmesh.train.dataloader import BLIND, Part, Tensors, to_model_camera
from dpmesh.train.distributed import attention_kernels, in_bf16
from dpmesh.train.objectives.base import Group, Objective
from dpmesh.train.objectives.mesh import crop_of
from dpmesh.train.objectives.occlusion_augment import drop, hide
from dpmesh.train.objectives.simulated_readings import simulated_readings
from dpmesh.train.preview import draw_preview
from dpmesh.train.stages import UncertaintyStage
from dpmesh.train.validate import benchmarks
from dpmesh.types import BodyParameters

RISE = 0.1
"""Margin of the term `hiding`: rise of the logarithm of a covered joint's scale below which the term counts."""
CHUNK = 32
"""Validation people at a time."""


class Judged(NamedTuple):
    """Predictions and their uncertainty.

    log_scale (b, 30): of UncertaintyHead.forward. joints3d (b, 30, 3): metres. rotations, betas: as in BodyParameters.
    """

    log_scale: Tensor
    joints3d: Tensor
    rotations: Tensor
    betas: Tensor

    def rows(self, first: int, end: int) -> "Judged":
        """Some of the people."""
        return Judged(*(values[first:end] for values in self))


class UncertaintyObjective(Objective):
    def __init__(self, model: DPMesh, stage: UncertaintyStage, settings: Settings) -> None:
        """Raises ConfigError for a model without the part."""
        super().__init__()
        if model.regressor.uncertainty is None:
            raise ConfigError(
                f"{model.config.name!r} has regressor.uncertainty = 0", where=f"stage {stage.name}"
            )
        self.model, self.stage, self.settings = model.requires_grad_(False), stage, settings
        self.head = model.regressor.uncertainty.requires_grad_(True)

    def train(self, mode: bool = True) -> "UncertaintyObjective":
        """The frozen model stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        self.head.train(mode)
        return self

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        rng, batch = np.random.default_rng([part.own_seed, 23]), to_model_camera(batch, self.model.config)
        terms: dict[str, Tensor] = {}
        blind = {name.removeprefix(BLIND): v for name, v in batch.items() if name.startswith(BLIND)}
        if "crop" not in batch:
            blind = batch
        else:
            terms |= self._image_terms(batch, rng)
        if blind:
            read = simulated_readings(blind, part.own_seed) if self.model.config.reads else None
            judged = self.judge(None, blind["joints"], drop(rng, blind["visible"]), blind["focal"], read)
            terms["uncertainty_blind"] = _term(judged, blind)
        factors = {"uncertainty": 1.0, "uncertainty_blind": 1.0, "hiding": self.stage.hiding_weight}
        return torch.stack([factors[name] * value for name, value in terms.items()]).sum(), terms

    def _image_terms(self, batch: Tensors, rng: np.random.Generator) -> dict[str, Tensor]:
        judged, under = self.judge_twice(batch, rng)
        twice = {name: torch.cat([batch[name], batch[name]]) for name in ("joints3d", "joints3d_valid")}
        before, after = judged.log_scale.chunk(2)
        short = (RISE - (after - before)).clamp(min=0) * under
        return {"uncertainty": _term(judged, twice), "hiding": short.sum() / under.sum().clamp(min=1)}

    def judge_twice(self, batch: Tensors, rng: np.random.Generator) -> tuple[Judged, Tensor]:
        """All people as they are, then all of them with an occlusion (2 b rows); and which joints are covered, without
        the pelvis, (b, 30)."""
        crop, joints, visible = crop_of(batch), batch["joints"], batch["visible"]
        hidden = hide(rng, crop, joints, visible)
        judged = self.judge(
            torch.cat([crop, hidden.crop]),
            torch.cat([joints, joints]),
            torch.cat([visible, hidden.visible]),
            torch.cat([batch["focal"], batch["focal"]]),
        )
        under = hidden.under.clone()
        under[:, 0] = False
        return judged, under

    def judge(
        self, crop: Tensor | None, joints: Tensor, visible: Tensor, focal: Tensor, read: Tensor | None = None
    ) -> Judged:
        """The frozen model's predictions and the head's scales, which alone have a gradient.

        crop: None without an image. read: as of DPMesh.regress.
        """
        model, device = self.model, joints.device.type
        bf16 = self.training and in_bf16(self.settings.precision, device)
        with torch.no_grad():
            with attention_kernels(device), torch.autocast(device, torch.bfloat16, enabled=bf16):
                image_features = None if crop is None else model.encode_image(crop, joints, visible)
                prediction = model.regress(image_features, joints, visible, read)
                parameters = model.decode_parameters(prediction, focal)
            with torch.autocast(device, enabled=False):
                joints3d = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
        with torch.autocast(device, enabled=False):
            log_scale = model.regressor.predict_log_scale(prediction, joints3d, project(joints3d, focal))
        assert log_scale is not None  # __init__ refuses a model without
        return Judged(log_scale, joints3d, parameters.rotations, parameters.betas)

    def groups(self) -> list[Group]:
        return [Group("uncertainty", list(self.head.parameters()))]

    @torch.no_grad()
    def figures(self) -> dict[str, Any]:
        """MPJPE and the like of the frozen model; rank correlation of scale and error over all joints; and the share of
        covered joints whose scale rose."""
        batch = self._validation()
        judged, under = self._validated(batch)
        people = len(under)
        plain, hidden = judged.rows(0, people), judged.rows(people, 2 * people)
        off = _errors(plain.joints3d, batch["joints3d"])
        off[batch["joints3d_valid"] == 0] = torch.nan
        rose = (hidden.log_scale > plain.log_scale)[under]
        own = plain.log_scale[:, 1:].cpu().numpy()
        return {
            **self._accuracy(plain, batch),
            "rank": round(rank_correlation(own, off[:, 1:].cpu().numpy()), 4),
            "hidden_rose": round(float(rose.float().mean()), 4),
        }

    def _accuracy(self, plain: Judged, batch: Tensors) -> dict[str, Any]:
        """MPJPE and the like of the frozen model, on the first data set by its protocol, else on synthetic people."""
        settings = self.settings
        if sets := benchmarks(settings.data, settings.validation_people):
            return sets[0].figures(self.model, self.head.bias.device)
        errors = validate.figures(self.model.body, _bodies(plain), batch)
        return {name: round(float(values.mean()), 2) for name, values in errors.items()}

    def preview(self, batch: Tensors) -> UInt8[ndarray, "h w 3"] | None:
        return draw_preview(self.model, batch, batch["joints"], batch["visible"])

    @torch.no_grad()
    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Calibrate on the validation people, as they are and with an occlusion, and save."""
        batch = self._validation()
        judged, _ = self._validated(batch)
        known = torch.cat([batch["joints3d_valid"]] * 2)
        calibrate(self.head, judged.log_scale, judged.joints3d, torch.cat([batch["joints3d"]] * 2), known)
        origin = {"calibrated_on": f"{len(known) // 2} validation people, each twice"}
        before = {"answers": self.model.provenance} if self.model.provenance else {}
        self.model.save_pretrained(folder, {**provenance, **origin, **before})

    def _validation(self) -> Tensors:
        device = self.head.bias.device
        settings = self.settings
        people = validate.validation_people(settings.data, settings.validation_people, settings.seed)
        return {name: value.to(device) for name, value in to_model_camera(people, self.model.config).items()}

    def _validated(self, batch: Tensors) -> tuple[Judged, Tensor]:
        """judge_twice of many people: first all as they are, then all with an occlusion; always the same."""
        rng = np.random.default_rng(validate.SEED)
        plain, hidden, unders = list[Judged](), list[Judged](), list[Tensor]()
        for start in range(0, len(batch["focal"]), CHUNK):
            judged, under = self.judge_twice({n: v[start : start + CHUNK] for n, v in batch.items()}, rng)
            plain.append(judged.rows(0, len(under)))
            hidden.append(judged.rows(len(under), 2 * len(under)))
            unders.append(under)
        joined = (torch.cat(values) for values in zip(*plain, *hidden, strict=True))
        return Judged(*joined), torch.cat(unders)


def _bodies(judged: Judged) -> BodyParameters:
    """For the figures, which use rotations and shape alone."""
    nothing = judged.betas[:, :0]
    return BodyParameters(judged.rotations, judged.betas, transl=nothing, pose_latent=nothing)


def _term(judged: Judged, batch: Tensors) -> Tensor:
    return uncertainty_term(judged.log_scale, judged.joints3d, batch["joints3d"], batch["joints3d_valid"])


def _errors(predicted: Float[Tensor, "b 30 3"], truth: Float[Tensor, "b 30 3"]) -> Float[Tensor, "b 30"]:
    return ((predicted - predicted[:, :1]) - (truth - truth[:, :1])).square().sum(-1).sqrt()


# The calibration: two numbers a joint, fitted on people that nothing was trained on.


SLOPE = 3.0
"""Largest slope, and inverse of the least: with few people the fit could even reverse the order."""


def calibrate(
    head: UncertaintyHead,
    log_scale: Float[Tensor, "n 30"],
    joints3d: Float[Tensor, "n 30 3"],
    truth: Float[Tensor, "n 30 3"],
    known: Float[Tensor, "n 30"],
) -> None:
    """Set the head's offset and slope of each joint to those of the greatest likelihood (losses.uncertainty_term).

    log_scale: the head's, not calibrated.
    """
    log_scale, joints3d, truth, known = (x.detach().double() for x in (log_scale, joints3d, truth, known))
    offset = torch.zeros(log_scale.shape[1], dtype=torch.float64, device=log_scale.device, requires_grad=True)
    bend = torch.zeros_like(offset).requires_grad_()
    middle = log_scale.mean(0)  # about it offset and slope hardly depend on each other
    optimiser = torch.optim.LBFGS([offset, bend], max_iter=200, line_search_fn="strong_wolfe")

    def slope() -> Tensor:
        return (math.log(SLOPE) * torch.tanh(bend)).exp()

    def closure() -> Tensor:
        optimiser.zero_grad()
        scaled = middle + offset + slope() * (log_scale - middle)
        cost = uncertainty_term(scaled, joints3d, truth, known)
        cost.backward()
        return cost

    with torch.enable_grad():
        optimiser.step(closure)  # pyright: ignore[reportUnknownMemberType]
    with torch.no_grad():
        best = slope()
        head.get_buffer("slope").copy_(best)
        head.get_buffer("offset").copy_(middle + offset - best * middle)
