"""The stages that regress bodies: keypoints, images, teacher, student. The only place where model and targets meet."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor, nn

from dpmesh.backbone.diffusion import DiffusionBackbone
from dpmesh.evaluate.baselines import KeypointLifter
from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import project
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.losses import (
    TERMS,
    KnownTargets,
    SupervisedBody,
    loss_terms,
    reading_terms,
    surface_terms,
    uncertainty_term,
)
from dpmesh.model import DPMesh
from dpmesh.pose_prior.vqvae import POINT_MODES, PoseVQVAE
from dpmesh.train.benchmarks import Row, benchmarks
from dpmesh.train.camera import in_own_camera
from dpmesh.train.config import Settings
from dpmesh.train.dataloader import BLIND, Part, Tensors
from dpmesh.train.distributed import attention_kernels, in_bf16
from dpmesh.train.objectives.base import Group, Objective
from dpmesh.train.objectives.distillation import Teaching
from dpmesh.train.preview import draw_sheet
from dpmesh.train.simulated_readings import imagined_reading
from dpmesh.train.stages import Images, Keypoints, Student, Teacher
from dpmesh.train.validate import figures, predict, synthetic_people

MeshStage = Keypoints | Images | Teacher | Student


class MeshObjective(Objective):
    """The model with the losses of Eq. 9.

    Fabric's own "bf16-mixed" also rounds what goes in, and a target of four metres is then off by up to 16 mm; so
    Fabric runs in fp32 and the autocast is here.
    """

    def __init__(
        self, model: DPMesh, stage: MeshStage, settings: Settings, teacher: DPMesh | None = None
    ) -> None:
        """teacher: of a student; it is locked, and no part of this module."""
        super().__init__()
        self.model, self.stage, self.settings = model, stage, settings
        if isinstance(stage, Keypoints):  # without pictures it gets no gradient
            model.backbone.requires_grad_(False)
        if isinstance(stage, Images):
            for part in replace(model.config, frozen=stage.frozen).frozen:  # which refuses what there is not
                model.backbone.get_submodule(part).requires_grad_(False)
        self.balance = nn.Parameter(torch.ones(len(TERMS))) if settings.losses.automatic else None
        self.teaching = None if teacher is None else Teaching(teacher, model)

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        device, batch = batch["joints"].device.type, in_own_camera(batch, self.model.config)
        bf16 = in_bf16(self.settings.precision, device)
        with attention_kernels(device), torch.autocast(device, torch.bfloat16, enabled=bf16):
            terms = self._terms(batch, part)
            total = self.settings.losses.total(terms, self.balance)
            blind = {name.removeprefix(BLIND): v for name, v in batch.items() if name.startswith(BLIND)}
            if blind:
                total = total + self.settings.losses.total(self._terms(blind, part), self.balance)
            return total, terms

    def _terms(self, batch: Tensors, part: Part) -> dict[str, Tensor]:
        model, (truth, known) = self.model, targets_of(batch)
        joints, visible = self.given(batch, part)
        image_features, readings, latent, extra = None, None, None, dict[str, Tensor]()
        if "crop" in batch:
            crop, own, felt = self._crop(batch, part)
            latent = self._latent(crop)
            image_features = model.encode_image(crop, joints, visible, latent)
            if (told := image_features.readings) is not None:
                extra |= reading_terms(told.scores, told.positions, truth, known)
                shown = own & (batch["surface_valid"] > 0)
                extra |= surface_terms(told.surface, batch["parts"].long(), batch["surface"], shown)
            image_features = image_features.masked(felt)
        elif model.config.reads:
            readings = imagined_reading(batch, part.own_seed)
        if self.teaching is None:
            answer = model.regress(image_features, joints, visible, readings)
        else:
            with self.teaching.watch(model) as features:
                answer = model.regress(image_features, joints, visible, readings)
            extra |= self.teaching.terms(features, crop_of(batch), *true_joints(batch), latent)
        parameters = model.decode_parameters(answer, batch["focal"])
        with torch.autocast(batch["joints"].device.type, enabled=False):
            joints3d = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
            joints2d = project(joints3d, batch["focal"])
            found = SupervisedBody(parameters.rotations, parameters.betas, joints3d, joints2d)
            terms = loss_terms(found, answer.joints_img.float(), truth, known, self.settings.losses)
            terms |= extra
            if (log_scale := model.regressor.predict_log_scale(answer, joints3d, joints2d)) is not None:
                terms["uncertainty"] = uncertainty_term(log_scale, joints3d, truth.joints3d, known.joints3d)
            prior = model.pose_prior
            if isinstance(prior, PoseVQVAE) and prior.mode in POINT_MODES:
                terms |= {"pose_latent": latent_term(prior, parameters.pose_latent, truth, known)}
            return terms

    def given(self, batch: Tensors, part: Part | None = None) -> tuple[Tensor, Tensor]:
        """The joints that the model is told, (b, 30, 2) crop pixels, and which it is (b, 30)."""
        if isinstance(self.stage, Teacher):
            return true_joints(batch)
        joints, visible = batch["joints"], batch["visible"]
        if isinstance(self.stage, Student) and part is not None:
            people, count = visible.shape
            kept = part.chance(count, people, salt=DROPPED).T.to(visible.device) >= self.stage.drop
            visible = visible * kept
        return joints, visible

    def _latent(self, crop: Tensor) -> Tensor | None:
        """The student's and the teacher's at once, where one frozen encoder makes both; None: each makes its own."""
        backbone = self.model.backbone
        if (
            self.teaching is None
            or not self.teaching.one_encoder
            or not isinstance(backbone, DiffusionBackbone)
        ):
            return None
        return backbone.encode(crop)

    def _crop(self, batch: Tensors, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """Crops (b, 3, 256, 256), some the next person's; which are their own; and 1 where the features count."""
        crop, stage = crop_of(batch), self.stage
        scrambled, no_features = (
            (stage.scrambled, stage.no_features) if isinstance(stage, Images) else (0.0, 0.0)
        )
        chance = part.chance(2, len(crop)).to(crop.device)
        own = chance[0] >= scrambled
        felt = (chance[1] >= no_features).to(crop.dtype)
        if scrambled:
            crop = torch.where(own[:, None, None, None], crop, others(crop))
        return crop, own, felt

    def groups(self) -> list[Group]:
        backbone = [p for p in self.model.backbone.parameters() if p.requires_grad]
        inside = {id(p) for p in backbone}
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in inside]
        found = [
            Group("regressor", rest),
            Group("backbone", backbone, self.stage.backbone_rate, backbone=True),
        ]
        if self.balance is not None:
            found.append(Group("loss weights", [self.balance], loss_weights=True))
        return [group for group in found if group.parameters]

    def figures(self) -> dict[str, Any]:
        """Of the first set that it is validated on."""
        return self.validations()[0]

    def validations(self) -> list[Row]:
        """Data sets under their protocols first, with the inputs that the stage has: a teacher's keypoints are the
        ground truth, the keypoints stage has no picture. Then synthetic people."""
        settings = self.settings
        blind = isinstance(self.stage, Keypoints)
        model = KeypointLifter(self.model) if blind else self.model
        device = next(self.model.parameters()).device
        sets = benchmarks(
            settings.data, settings.validation_people, annotated=isinstance(self.stage, Teacher)
        )
        found = [one.figures(model, device) for one in sets]
        people = synthetic_people(settings.data, settings.validation_people, settings.seed)
        if people is not None:
            batch = in_own_camera(people, self.model.config)
            joints, visible = self.given(batch)
            told = {**batch, "joints": joints, "visible": visible}
            errors = figures(self.model.body, predict(self.model, told, images=not blind), batch)
            found.append({name: round(float(values.mean()), 2) for name, values in errors.items()})
        return found

    def sheet(self, batch: Tensors) -> UInt8[ndarray, "h w 3"] | None:
        return draw_sheet(self.model, batch, *self.given(batch))

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        self.model.save_pretrained(folder, provenance)


DROPPED = 1
"""Salt of the draw that leaves out a student's joints."""


def crop_of(batch: Tensors) -> Tensor:
    """(b, 3, 256, 256), RGB in [0, 1]."""
    return batch["crop"].permute(0, 3, 1, 2).float() / 255


def others(crop: Tensor) -> Tensor:
    """To each person the crop of the one before, the last one's to the first: over all processes' people."""
    rolled = crop.roll(1, 0)
    if dist.is_available() and dist.is_initialized() and (world := dist.get_world_size()) > 1:
        last = [torch.empty_like(crop[-1:]) for _ in range(world)]
        dist.all_gather(last, crop[-1:].contiguous())
        rolled[:1] = last[dist.get_rank() - 1]
    return rolled


def true_joints(batch: Tensors) -> tuple[Tensor, Tensor]:
    """Where the annotated joints are, and 1 for those inside the crop: a teacher's heat maps."""
    joints = batch["joints2d"]
    inside = ((joints >= 0) & (joints < CROP)).all(-1)
    visible = batch["joints2d_valid"] * inside
    return joints * visible[..., None], visible


def latent_term(prior: PoseVQVAE, points: Tensor, truth: SupervisedBody, known: KnownTargets) -> Tensor:
    """Mean square of the distance to the true pose's own place in code space, of people whose whole pose is known.

    The place of a pose of which rows are unknown is unknown.
    """
    with torch.no_grad():
        target = prior.encode(truth.rotations[:, 1 : prior.config.joints + 1])
    whole = (known.pose[:, 1 : prior.config.joints + 1] > 0).all(-1)
    return ((points - target).square() * whole[:, None, None]).mean()


def targets_of(batch: Tensors) -> tuple[SupervisedBody, KnownTargets]:
    """The targets of a batch (data/sample.py), in fp32 also under autocast, and which of them are known."""
    with torch.autocast(batch["pose"].device.type, enabled=False):
        rotations = rotation_matrix(batch["pose"])
    truth = SupervisedBody(rotations, batch["betas"], batch["joints3d"], batch["joints2d"])
    names = ("joints2d_valid", "joints3d_valid", "pose_valid", "betas_valid", "fit_joints2d", "fit_joints3d")
    return truth, KnownTargets(*(batch[name] for name in (*names, "fit_valid")))
