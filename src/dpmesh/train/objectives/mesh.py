"""The objective of the stages that regress bodies: keypoints, images, teacher, student (Eq. 9)."""

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
from dpmesh.train.config import Settings
from dpmesh.train.dataloader import BLIND, Part, Tensors, to_model_camera
from dpmesh.train.distributed import attention_kernels, in_bf16
from dpmesh.train.objectives.base import Group, Objective
from dpmesh.train.objectives.distillation import Teaching
from dpmesh.train.objectives.simulated_readings import simulated_readings
from dpmesh.train.preview import draw_preview
from dpmesh.train.stages import ImageStage, KeypointStage, StudentStage, TeacherStage
from dpmesh.train.validate import Row, benchmarks, figures, predict, synthetic_people

MeshStage = KeypointStage | ImageStage | TeacherStage | StudentStage


class MeshObjective(Objective):
    """The model with the losses of Eq. 9.

    Fabric's own "bf16-mixed" also rounds the inputs, which puts a target at four metres off by up to 16 mm. So Fabric
    runs in fp32 and the autocast is here.
    """

    def __init__(
        self, model: DPMesh, stage: MeshStage, settings: Settings, teacher: DPMesh | None = None
    ) -> None:
        """teacher: of a student; frozen, and no part of this module."""
        super().__init__()
        self.model, self.stage, self.settings = model, stage, settings
        if isinstance(stage, KeypointStage):  # without images it gets no gradient
            model.backbone.requires_grad_(False)
        if isinstance(stage, ImageStage):
            for part in replace(
                model.config, frozen=stage.frozen
            ).frozen:  # which refuses parts that do not exist
                model.backbone.get_submodule(part).requires_grad_(False)
        self.balance = nn.Parameter(torch.ones(len(TERMS))) if settings.losses.automatic else None
        self.teaching = None if teacher is None else Teaching(teacher, model)

    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        device, batch = batch["joints"].device.type, to_model_camera(batch, self.model.config)
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
        joints, visible = self.input_joints(batch, part)
        image_features, readings, latent, extra = None, None, None, dict[str, Tensor]()
        if "crop" in batch:
            crop, own, kept = self._crop(batch, part)
            latent = self._latent(crop)
            image_features = model.encode_image(crop, joints, visible, latent)
            if (read := image_features.readings) is not None:  # a shuffled crop still has the hint
                extra |= reading_terms(read.scores, read.positions, truth, known)
                shown = own & (batch["surface_valid"] > 0)
                extra |= surface_terms(read.surface, batch["parts"].long(), batch["surface"], shown)
            image_features = image_features.masked(kept)
        elif model.config.reads:
            readings = simulated_readings(batch, part.own_seed)
        if self.teaching is None:
            prediction = model.regress(image_features, joints, visible, readings)
        else:
            with self.teaching.watch(model) as features:
                prediction = model.regress(image_features, joints, visible, readings)
            extra |= self.teaching.terms(features, crop_of(batch), *true_joints(batch), latent)
        parameters = model.decode_parameters(prediction, batch["focal"])
        with torch.autocast(batch["joints"].device.type, enabled=False):
            joints3d = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
            joints2d = project(joints3d, batch["focal"])
            predicted = SupervisedBody(parameters.rotations, parameters.betas, joints3d, joints2d)
            terms = loss_terms(predicted, prediction.joints_img.float(), truth, known, self.settings.losses)
            terms |= extra
            if (log_scale := model.regressor.predict_log_scale(prediction, joints3d, joints2d)) is not None:
                terms["uncertainty"] = uncertainty_term(log_scale, joints3d, truth.joints3d, known.joints3d)
            prior = model.pose_prior
            if isinstance(prior, PoseVQVAE) and prior.mode in POINT_MODES:
                terms |= {"pose_latent": latent_term(prior, parameters.pose_latent, truth, known)}
            return terms

    def input_joints(self, batch: Tensors, part: Part | None = None) -> tuple[Tensor, Tensor]:
        """The model's input: joints (b, 30, 2) crop pixels, and which are visible (b, 30)."""
        if isinstance(self.stage, TeacherStage):
            return true_joints(batch)
        joints, visible = batch["joints"], batch["visible"]
        if isinstance(self.stage, StudentStage) and part is not None:
            people, count = visible.shape
            kept = part.chance(count, people, salt=DROPPED).T.to(visible.device) >= self.stage.p_drop_joint
            visible = visible * kept
        return joints, visible

    def _latent(self, crop: Tensor) -> Tensor | None:
        """The latent of both student and teacher, where they share a frozen encoder; None: each encodes for itself."""
        backbone = self.model.backbone
        if (
            self.teaching is None
            or not self.teaching.one_encoder
            or not isinstance(backbone, DiffusionBackbone)
        ):
            return None
        return backbone.encode(crop)

    def _crop(self, batch: Tensors, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """Crops (b, 3, 256, 256), some of another person; which are not; and 1 where the features are kept."""
        crop, stage = crop_of(batch), self.stage
        p_shuffle, p_drop = (
            (stage.p_shuffle_image, stage.p_drop_image) if isinstance(stage, ImageStage) else (0.0, 0.0)
        )
        chance = part.chance(2, len(crop)).to(crop.device)
        own = chance[0] >= p_shuffle
        kept = (chance[1] >= p_drop).to(crop.dtype)
        if p_shuffle:
            crop = torch.where(own[:, None, None, None], crop, others(crop))
        return crop, own, kept

    def groups(self) -> list[Group]:
        backbone = [p for p in self.model.backbone.parameters() if p.requires_grad]
        inside = {id(p) for p in backbone}
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in inside]
        groups = [
            Group("regressor", rest),
            Group("backbone", backbone, self.stage.backbone_lr_factor, backbone=True),
        ]
        if self.balance is not None:
            groups.append(Group("loss weights", [self.balance], loss_weights=True))
        return [group for group in groups if group.parameters]

    def figures(self) -> dict[str, Any]:
        """The figures of the first validation set."""
        return self.validations()[0]

    def validations(self) -> list[Row]:
        """Data sets under their protocols first, then synthetic people, with the stage's own inputs: a teacher's
        keypoints are the ground truth, the keypoints stage has no image."""
        settings = self.settings
        blind = isinstance(self.stage, KeypointStage)
        model = KeypointLifter(self.model) if blind else self.model
        device = next(self.model.parameters()).device
        sets = benchmarks(
            settings.data, settings.validation_people, annotated=isinstance(self.stage, TeacherStage)
        )
        lines = [one.figures(model, device) for one in sets]
        people = synthetic_people(settings.data, settings.validation_people, settings.seed)
        if people is not None:
            batch = to_model_camera(people, self.model.config)
            joints, visible = self.input_joints(batch)
            inputs = {**batch, "joints": joints, "visible": visible}
            errors = figures(self.model.body, predict(self.model, inputs, images=not blind), batch)
            lines.append({name: round(float(values.mean()), 2) for name, values in errors.items()})
        return lines

    def preview(self, batch: Tensors) -> UInt8[ndarray, "h w 3"] | None:
        return draw_preview(self.model, batch, *self.input_joints(batch))

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        self.model.save_pretrained(folder, provenance)


DROPPED = 1
"""Salt of the random numbers that drop a student's joints."""


def crop_of(batch: Tensors) -> Tensor:
    """(b, 3, 256, 256), RGB in [0, 1]."""
    return batch["crop"].permute(0, 3, 1, 2).float() / 255


def others(crop: Tensor) -> Tensor:
    """Each person's crop replaced by that of the one before, over all processes; the first one's by the last one's."""
    rolled = crop.roll(1, 0)
    if dist.is_available() and dist.is_initialized() and (world := dist.get_world_size()) > 1:
        last = [torch.empty_like(crop[-1:]) for _ in range(world)]
        dist.all_gather(last, crop[-1:].contiguous())
        rolled[:1] = last[dist.get_rank() - 1]
    return rolled


def true_joints(batch: Tensors) -> tuple[Tensor, Tensor]:
    """The annotated joints (b, 30, 2) crop pixels, and 1 for those inside the crop: a teacher's input."""
    joints = batch["joints2d"]
    inside = ((joints >= 0) & (joints < CROP)).all(-1)
    visible = batch["joints2d_valid"] * inside
    return joints * visible[..., None], visible


def latent_term(prior: PoseVQVAE, points: Tensor, truth: SupervisedBody, known: KnownTargets) -> Tensor:
    """Mean square distance to the latents of the true pose, of people whose whole pose is known."""
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
