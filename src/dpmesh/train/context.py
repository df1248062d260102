"""What the stages of a run share (model, body, prior, folders), and the objective of each with its initial weights."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpmesh.ablations import configuration
from dpmesh.body.files import BodyArrays
from dpmesh.body.resolve import user_body
from dpmesh.config import DPMeshConfig
from dpmesh.config_io import to_dict
from dpmesh.errors import AssetError, ConfigError, WeightsError
from dpmesh.model import DPMesh
from dpmesh.pose_prior.files import load_any_prior, load_prior
from dpmesh.pose_prior.prior import DirectConfig
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder, imported_vposer
from dpmesh.pose_prior.vqvae import PoseVQVAE
from dpmesh.profiling import build_on_meta
from dpmesh.train.config import Settings, model_name
from dpmesh.train.objectives.base import Objective
from dpmesh.train.objectives.denoising import DenoisingObjective
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.objectives.uncertainty import UncertaintyObjective
from dpmesh.train.objectives.vposer import VAEObjective
from dpmesh.train.objectives.vqvae import PriorObjective
from dpmesh.train.stages import PretrainStage, PriorStage, StudentStage, UncertaintyStage

AnyPrior = PoseVQVAE | VPoserDecoder
log = logging.getLogger("dpmesh.train")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingContext:
    """A run's settings with what they refer to. Made once for a run (`resolve`) and handed to everything in it."""

    settings: Settings
    model: DPMeshConfig
    """The configuration that settings.model names, its changes applied."""
    prior: str | None
    """Folder of the pose prior that the settings name or train; None for the shipped one, or your VPoser."""

    @classmethod
    def resolve(cls, settings: Settings) -> "TrainingContext":
        """Raises ConfigError for a model that does not exist."""
        own = isinstance(settings.stages[0], PriorStage)
        prior = str(Path(settings.out) / "prior") if own else settings.prior or None
        return cls(settings=settings, model=configuration(settings.model), prior=prior)

    @property
    def model_name(self) -> str:
        """For messages."""
        return model_name(self.settings.model)

    @property
    def body(self) -> BodyArrays | None:
        """SMPL's arrays, None for the free body. Raises AssetError where SMPL is not imported."""
        return self._body[0]

    @property
    def body_record(self) -> dict[str, Any]:
        """Files and checksums of `body`, {} for the free body. Raises AssetError as `body`."""
        return self._body[1]

    @cached_property
    def _body(
        self,
    ) -> tuple[BodyArrays | None, dict[str, Any]]:  # read at its first use: preflight lists a missing one
        if self.settings.body == "free":
            return None, {}
        if (imported := user_body(None, None)) is None:
            raise AssetError(
                "no SMPL body was imported",
                where="body",
                fix="Import one: dpmesh assets import SMPL_NEUTRAL.pkl.",
            )
        return imported[0], dict(imported[1])

    def output_folder(self, number: int) -> Path:
        """Where stage `number` leaves its weights: prior/, weights_NAME/, or weights/ of the last stage."""
        out, stage = Path(self.settings.out), self.settings.stages[number]
        if isinstance(stage, PriorStage):
            return out / "prior"
        last = number == len(self.settings.stages) - 1
        return out / ("weights" if last else f"weights_{stage.name}")

    def start_of(self, number: int) -> str | None:
        """The start weights of stage `number`: those of the stage before, else `start`; None for random ones."""
        before = [k for k in range(number) if not isinstance(self.settings.stages[k], PriorStage)]
        if before:
            return str(self.output_folder(before[-1]))
        return self.settings.start or None

    def teacher_of(self, number: int) -> str | None:
        """The teacher's weights of a student with distillation losses, else None. Raises ConfigError without any."""
        stage, losses = self.settings.stages[number], self.settings.losses
        if not isinstance(stage, StudentStage) or not (losses.nkr_contrast or losses.nkr_mse):
            return None
        if (folder := stage.teacher or self.start_of(number)) is None:
            raise ConfigError(
                "a student needs a teacher",
                where=f"stage {stage.name}",
                fix="Put a teacher stage before it, or name `teacher` or `start`.",
            )
        return folder

    def weights_read(self, number: int) -> dict[str, str]:
        """The folders that stage `number` reads weights from, by "start", "teacher" and "prior"."""
        if isinstance(self.settings.stages[number], PriorStage):
            return {}
        folders = {"start": self.start_of(number), "teacher": self.teacher_of(number)}
        if not isinstance(self.model.pose_prior, DirectConfig):
            folders["prior"] = self.prior
        return {name: folder for name, folder in folders.items() if folder is not None}


def make_objective(context: TrainingContext, number: int) -> Objective:
    """The objective of stage `number` with its initial weights.

    Raises ConfigError, WeightsError or AssetError for weights that are missing or of another model.
    """
    stage, start = context.settings.stages[number], context.start_of(number)
    if isinstance(stage, PriorStage):
        return _prior_objective(context, stage)
    if isinstance(stage, UncertaintyStage):
        start = refuse_no_start(start, stage)
        model = _load_model(context, start, may_lack_uncertainty=True)
        return UncertaintyObjective(model, stage, context.settings)
    model = _random_model(context) if start is None else _load_model(context, start)
    if isinstance(stage, PretrainStage):
        return DenoisingObjective(model, stage, context.settings)
    folder = context.teacher_of(number)
    teacher = None if folder is None else _load_model(context, folder)
    return MeshObjective(model, stage, context.settings, teacher)


def objective_on_meta(context: TrainingContext, number: int) -> Objective:
    """The objective of stage `number` on the meta device, without a teacher, to count its parameters."""
    stage = context.settings.stages[number]
    if isinstance(stage, PriorStage):
        return _prior_objective(context, stage)
    model = build_on_meta(context.model)
    if isinstance(stage, PretrainStage):
        return DenoisingObjective(model, stage, context.settings)
    if isinstance(stage, UncertaintyStage):
        return UncertaintyObjective(model, stage, context.settings)
    return MeshObjective(model, stage, context.settings)


def _prior_objective(context: TrainingContext, stage: PriorStage) -> Objective:
    config = context.model.pose_prior
    if isinstance(config, VPoserConfig):
        return VAEObjective(config, stage)
    if isinstance(config, DirectConfig):
        raise ConfigError(
            f"{context.model_name} regresses the pose itself and has no prior to train",
            where=f"stage {stage.name}",
        )
    return PriorObjective(config, stage)


def refuse_no_start(start: str | None, stage: UncertaintyStage) -> str:
    """The start weights of an uncertainty stage; raises ConfigError where there are none."""
    if start is None:
        raise ConfigError(
            "there are no weights whose predictions could be judged",
            where=f"stage {stage.name}",
            fix="Name `start`, or put a stage before it.",
        )
    return start


def _load_prior(context: TrainingContext) -> AnyPrior | None:
    if context.prior is None:
        return None
    prior = load_any_prior(Path(context.prior))
    refuse_nonfinite_weights(prior, context.prior)
    return prior


def refuse_nonfinite_weights(module: nn.Module, where: str) -> None:
    """Raise WeightsError where a stored number is NaN or infinite."""
    for name, value in module.state_dict().items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"{name} holds NaN or infinity",
                where=where,
                fix="Take other weights; these come from a training that diverged, or are damaged.",
            )


def _load_model(context: TrainingContext, source: str, *, may_lack_uncertainty: bool = False) -> DPMesh:
    """The weights of a folder or a shipped name. may_lack_uncertainty: an uncertainty head that they lack is new."""
    settings, wanted = context.settings, context.model
    model = DPMesh.from_pretrained(source, context.body)
    refuse_nonfinite_weights(model, source)
    lacking = replace(wanted, regressor=replace(wanted.regressor, uncertainty=0))
    if may_lack_uncertainty and wanted != model.config == lacking:
        log.warning("%s have no uncertainty head: a new one is trained", source)
        model = _with_uncertainty(model, DPMesh(wanted.as_stored(), context.body))
    if model.config != wanted:
        fix = ""
        if model.config == lacking:
            fix = "They lack regressor.uncertainty: train it first (configs/embedded_sigma.toml)."
        elif model.config == replace(wanted, lora_rank=0):
            fix = "Their LoRA is merged: convert the checkpoint again, without --merge-lora."
        raise ConfigError(f"these are not weights of {context.model_name}", where=source, fix=fix)
    if source == settings.start:
        prior = _load_prior(context)
        if prior is None and _is_untrained(model.pose_prior):
            prior = _imported_prior(wanted)
        if prior is not None:
            _put(prior, model, context)
    if _is_untrained(model.pose_prior):
        own = " or `dpmesh assets import` your VPoser 1.0" if _may_import(wanted) else ""
        raise ConfigError(
            "the pose prior in these weights was never trained",
            where=source,
            fix=f"Train one (configs/paper_prior.toml) and name its folder as `prior`{',' if own else ''}{own}.",
        )
    return model


def _may_import(config: DPMeshConfig) -> bool:
    return isinstance(config.pose_prior, VPoserConfig)


def _imported_prior(config: DPMeshConfig) -> VPoserDecoder | None:
    """Your VPoser for a model whose prior is one; None where none was imported."""
    wanted = config.pose_prior
    return imported_vposer(wanted) if isinstance(wanted, VPoserConfig) else None


def _is_untrained(prior: nn.Module) -> bool:
    """Whether the prior is all zeros, as `dpmesh convert sd15` leaves it."""
    if isinstance(prior, PoseVQVAE):
        return not prior.codebook.codes.any()
    return isinstance(prior, VPoserDecoder) and not prior.bodyprior_dec_out.weight.any()


def _with_uncertainty(model: DPMesh, fresh: DPMesh) -> DPMesh:
    """`fresh` with the weights of `model`; only regressor.uncertainty keeps its own."""
    own = {n: v for n, v in fresh.state_dict().items() if n.startswith("regressor.uncertainty.")}
    fresh.load_state_dict({**own, **model.state_dict()})  # strict
    fresh.provenance = model.provenance
    return fresh


def _random_model(context: TrainingContext) -> DPMesh:
    """Random weights with a trained pose prior, where the model has one."""
    refuse_random_backbone(context)
    config = context.model
    wanted = config.pose_prior
    if isinstance(wanted, DirectConfig):
        return DPMesh.from_config(context.settings.model, context.body)
    chosen = _load_prior(context) or _imported_prior(config)
    prior = chosen or load_prior()
    if chosen is None and wanted != prior.config:
        own = " `dpmesh assets import` your VPoser 1.0;" if _may_import(config) else ""
        raise ConfigError(
            f"no pose prior for {context.model_name} is shipped",
            where="start",
            fix=f"Do one of these:{own} name a folder with weights as `start` (`dpmesh convert`), or one of a prior"
            " as `prior`.",
        )
    model = DPMesh.from_config(context.settings.model, context.body)
    _put(prior, model, context)
    return model


def refuse_random_backbone(context: TrainingContext) -> None:
    """Raise ConfigError where a part of the backbone that never trains would be random numbers."""
    config = context.model
    if (config.lora_rank or config.frozen) and not context.settings.allow_random_backbone:
        kept = "the U-Net under its low-rank updates" if config.lora_rank else " and ".join(config.frozen)
        raise ConfigError(
            f"{context.model_name} keeps {kept} as it is, and without start weights that is random numbers",
            where="start",
            fix="Name weights (dpmesh convert sd15 makes them), or --set.allow_random_backbone true for a test.",
        )


def refuse_other_prior(prior: AnyPrior, context: TrainingContext, where: str) -> None:
    """Raise ConfigError for a pose prior of another kind or size than the model's, with what differs."""
    wanted = context.model.pose_prior
    if prior.config == wanted:
        return
    have, want = to_dict(prior.config), to_dict(wanted)
    sizes = [f"{n} is {have[n]!r}, not {want[n]!r}" for n in want if n in have and have[n] != want[n]]
    differs = "; ".join(sizes[:3]) if type(prior.config) is type(wanted) else "it is of another kind"
    raise ConfigError(
        f"this is no pose prior of {context.model_name}: {differs}",
        where=where,
        fix="Train one with this model (a config with a prior stage), or name another.",
    )


def _put(prior: AnyPrior, model: DPMesh, context: TrainingContext) -> None:
    refuse_other_prior(prior, context, "prior")
    fixed = prior.as_decoder() if isinstance(prior, PoseVQVAE) else prior
    model.pose_prior.load_state_dict(fixed.state_dict())
