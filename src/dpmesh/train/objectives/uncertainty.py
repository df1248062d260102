"""The stage that trains how sure the model is of its answers, and nothing else (regressor/uncertainty.py).

The rest of the model is locked and runs without gradients, so that a step costs little more than its forward pass.
Each person with a picture is seen twice, as it is and with something hidden (train/occlusion_augment.py): the errors of
both teach, and of the pair that a hidden joint is less sure than it was. What less is seen cannot be
surer, but the errors
alone tell it only on average.
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
from dpmesh.train.benchmarks import benchmarks
from dpmesh.train.camera import in_own_camera
from dpmesh.train.config import Settings
from dpmesh.train.dataloader import BLIND, Part, Tensors
from dpmesh.train.distributed import attention_kernels, in_bf16
from dpmesh.train.objectives.base import Group, Objective
from dpmesh.train.objectives.mesh import crop_of
from dpmesh.train.occlusion_augment import drop, hide
from dpmesh.train.preview import draw_sheet
from dpmesh.train.simulated_readings import imagined_reading
from dpmesh.train.stages import Uncertainty
from dpmesh.types import BodyParameters

RISE = 0.1
"""By how much the logarithm of a hidden joint's scale shall rise at least: below it, the term counts."""
CHUNK = 32
"""Validation people at a time."""


class Judged(NamedTuple):
    """Answers and how sure they are. log_scale (b, 30): UncertaintyHead.forward; joints3d (b, 30, 3) metres; rotations
    and betas as in BodyParameters."""

    log_scale: Tensor
    joints3d: Tensor
    rotations: Tensor
    betas: Tensor

    def rows(self, first: int, end: int) -> "Judged":
        """Some of the people."""
        return Judged(*(values[first:end] for values in self))


class UncertaintyObjective(Objective):
    def __init__(self, model: DPMesh, stage: Uncertainty, settings: Settings) -> None:
        """Raises ConfigError for a model without the part."""
        super().__init__()
        if model.regressor.uncertainty is None:
            raise ConfigError(
                f"{model.config.name!r} has regressor.uncertainty = 0", where=f"stage {stage.name}"
            )
        self.model, self.stage, self.settings = model.requires_grad_(False), stage, settings
        self.head = model.regressor.uncertainty.requires_grad_(True)

    def train(self, mode: bool = True) -> "UncertaintyObjective":
        """What is locked stays as it will be used."""
        super().train(mode)
        self.model.eval()
        self.head.train(mode)
        return self

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        rng, batch = np.random.default_rng([part.own_seed, 23]), in_own_camera(batch, self.model.config)
        terms: dict[str, Tensor] = {}
        blind = {name.removeprefix(BLIND): v for name, v in batch.items() if name.startswith(BLIND)}
        if "crop" not in batch:
            blind = batch
        else:
            terms |= self._pictures(batch, rng)
        if blind:
            read = imagined_reading(blind, part.own_seed) if self.model.config.reads else None
            judged = self.judge(None, blind["joints"], drop(rng, blind["visible"]), blind["focal"], read)
            terms["uncertainty_blind"] = _term(judged, blind)
        factors = {"uncertainty": 1.0, "uncertainty_blind": 1.0, "hiding": self.stage.hiding}
        return torch.stack([factors[name] * value for name, value in terms.items()]).sum(), terms

    def _pictures(self, batch: Tensors, rng: np.random.Generator) -> dict[str, Tensor]:
        judged, under = self.judge_twice(batch, rng)
        twice = {name: torch.cat([batch[name], batch[name]]) for name in ("joints3d", "joints3d_valid")}
        before, after = judged.log_scale.chunk(2)
        short = (RISE - (after - before)).clamp(min=0) * under
        return {"uncertainty": _term(judged, twice), "hiding": short.sum() / under.sum().clamp(min=1)}

    def judge_twice(self, batch: Tensors, rng: np.random.Generator) -> tuple[Judged, Tensor]:
        """Everybody as they are, then everybody with something hidden (2 b rows); and which joints are hidden, the
        pelvis left out, (b, 30)."""
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
        """The locked model's answers (crop=None: without a picture, `read` as DPMesh.regress), and the head's view of
        them, which alone has a gradient."""
        model, device = self.model, joints.device.type
        bf16 = self.training and in_bf16(self.settings.precision, device)
        with torch.no_grad():
            with attention_kernels(device), torch.autocast(device, torch.bfloat16, enabled=bf16):
                seen = None if crop is None else model.encode_image(crop, joints, visible)
                answer = model.regress(seen, joints, visible, read)
                parameters = model.decode_parameters(answer, focal)
            with torch.autocast(device, enabled=False):
                joints3d = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
        with torch.autocast(device, enabled=False):
            log_scale = model.regressor.predict_log_scale(answer, joints3d, project(joints3d, focal))
        assert log_scale is not None  # __init__ refuses a model without
        return Judged(log_scale, joints3d, parameters.rotations, parameters.betas)

    def groups(self) -> list[Group]:
        return [Group("uncertainty", list(self.head.parameters()))]

    @torch.no_grad()
    def figures(self) -> dict[str, Any]:
        """MPJPE and the like of the locked model; rank correlation of scale and error over all joints, and the share
        of hidden joints whose scale rose."""
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
        """MPJPE and the like of the locked model: on the first data set by its protocol, else on the synthetic people
        that were judged."""
        settings = self.settings
        if sets := benchmarks(settings.data, settings.validation_people):
            return sets[0].figures(self.model, self.head.bias.device)
        errors = validate.figures(self.model.body, _bodies(plain), batch)
        return {name: round(float(values.mean()), 2) for name, values in errors.items()}

    def sheet(self, batch: Tensors) -> UInt8[ndarray, "h w 3"] | None:
        return draw_sheet(self.model, batch, batch["joints"], batch["visible"])

    @torch.no_grad()
    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Calibrated on the validation people, as they are and with something hidden."""
        batch = self._validation()
        judged, _ = self._validated(batch)
        known = torch.cat([batch["joints3d_valid"]] * 2)
        calibrate(self.head, judged.log_scale, judged.joints3d, torch.cat([batch["joints3d"]] * 2), known)
        told = {"calibrated_on": f"{len(known) // 2} validation people, each twice"}
        before = {"answers": self.model.provenance} if self.model.provenance else {}
        self.model.save_pretrained(folder, {**provenance, **told, **before})

    def _validation(self) -> Tensors:
        device = self.head.bias.device
        settings = self.settings
        found = validate.validation_people(settings.data, settings.validation_people, settings.seed)
        return {name: value.to(device) for name, value in in_own_camera(found, self.model.config).items()}

    def _validated(self, batch: Tensors) -> tuple[Judged, Tensor]:
        """judge_twice of many people: first all as they are, then all with something hidden; always the same."""
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
    """For the figures, which look at rotations and shape alone."""
    nothing = judged.betas[:, :0]
    return BodyParameters(judged.rotations, judged.betas, transl=nothing, pose_latent=nothing)


def _term(judged: Judged, batch: Tensors) -> Tensor:
    return uncertainty_term(judged.log_scale, judged.joints3d, batch["joints3d"], batch["joints3d_valid"])


def _errors(found: Float[Tensor, "b 30 3"], truth: Float[Tensor, "b 30 3"]) -> Float[Tensor, "b 30"]:
    return ((found - found[:, :1]) - (truth - truth[:, :1])).square().sum(-1).sqrt()


# The calibration of the uncertainty: two numbers a joint, fitted on people that nothing was trained on.


SLOPE = 3.0
"""No slope beyond this, or below its inverse: with few people the fit could even turn the order round."""


def calibrate(
    head: UncertaintyHead,
    log_scale: Float[Tensor, "n 30"],
    joints3d: Float[Tensor, "n 30 3"],
    truth: Float[Tensor, "n 30 3"],
    known: Float[Tensor, "n 30"],
) -> None:
    """Set the head's offset and slope to those under which the errors are the most likely (losses.uncertainty_term),
    for each joint alone. log_scale: as the head tells it, not calibrated."""
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
        found = slope()
        head.get_buffer("slope").copy_(found)
        head.get_buffer("offset").copy_(middle + offset - found * middle)
