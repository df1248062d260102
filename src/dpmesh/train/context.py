"""With what a stage begins and where it leaves what it made. Stages hand each other nothing but folders."""

import logging
from dataclasses import replace
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
from dpmesh.pose_prior.direct import DirectConfig
from dpmesh.pose_prior.files import load_any_prior, load_prior
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder, imported_vposer
from dpmesh.pose_prior.vqvae import PoseVQVAE
from dpmesh.train.config import Settings, model_name
from dpmesh.train.objectives.base import Objective
from dpmesh.train.objectives.denoising import DenoisingObjective
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.objectives.uncertainty import UncertaintyObjective
from dpmesh.train.objectives.vposer import VAEObjective
from dpmesh.train.objectives.vqvae import PriorObjective
from dpmesh.train.recipe import made_by
from dpmesh.train.stages import Pretrain, Prior, Student, Uncertainty

AnyPrior = PoseVQVAE | VPoserDecoder
log = logging.getLogger("dpmesh.train")


def left_by(settings: Settings, number: int) -> Path:
    """The folder of what stage `number` leaves: prior/, weights_NAME/, and weights/ of the last."""
    out, stage = Path(settings.out), settings.stages[number]
    if isinstance(stage, Prior):
        return out / "prior"
    last = number == len(settings.stages) - 1
    return out / ("weights" if last else f"weights_{stage.name}")


def begin(settings: Settings, number: int) -> Objective:
    """The objective of stage `number`, with the weights that it begins with."""
    stage = settings.stages[number]
    if isinstance(stage, Prior):
        config = configuration(settings.model).pose_prior
        if isinstance(config, VPoserConfig):
            return VAEObjective(config, stage)
        if isinstance(config, DirectConfig):
            raise ConfigError(
                f"{model_name(settings.model)} regresses the pose itself and has no prior to train",
                where=f"stage {stage.name}",
            )
        return PriorObjective(config, stage)
    source = source_of(settings, number)
    if isinstance(stage, Uncertainty):
        if source is None:
            raise ConfigError(
                "there are no weights whose answers could be judged",
                where=f"stage {stage.name}",
                fix="Name `start`, or put a stage before it.",
            )
        return UncertaintyObjective(_stored(settings, source, may_lack_uncertainty=True), stage, settings)
    model = _fresh(settings) if source is None else _stored(settings, source)
    if isinstance(stage, Pretrain):
        return DenoisingObjective(model, stage, settings)
    teacher: DPMesh | None = None
    if isinstance(stage, Student) and (folder := teacher_of(settings, number)) is not None:
        teacher = _stored(settings, folder)
    return MeshObjective(model, stage, settings, teacher)


def source_of(settings: Settings, number: int) -> str | None:
    """The weights before stage `number`: of the stage before, or those of `start`."""
    before = [k for k in range(number) if not isinstance(settings.stages[k], Prior)]
    if before:
        return str(left_by(settings, before[-1]))
    return settings.start or None


def teacher_of(settings: Settings, number: int) -> str | None:
    """The weights of a student's teacher; None where nothing is learned from one. Raises ConfigError without any."""
    stage, losses = settings.stages[number], settings.losses
    if not isinstance(stage, Student) or not (losses.nkr_contrast or losses.nkr_mse):
        return None
    if (folder := stage.teacher or source_of(settings, number)) is None:
        raise ConfigError(
            "a student needs a teacher",
            where=f"stage {stage.name}",
            fix="Put a teacher stage before it, or name `teacher` or `start`.",
        )
    return folder


def prior_of(settings: Settings) -> str | None:
    """The folder of the pose prior that the config names, if it does."""
    if isinstance(settings.stages[0], Prior):
        return str(left_by(settings, 0))
    return settings.prior or None


def reads(settings: Settings, number: int) -> dict[str, str]:
    """Which folders with weights stage `number` reads, by what they are to it."""
    if isinstance(settings.stages[number], Prior):
        return {}
    found = {"start": source_of(settings, number), "teacher": teacher_of(settings, number)}
    if not isinstance(configuration(settings.model).pose_prior, DirectConfig):
        found["prior"] = prior_of(settings)
    return {name: folder for name, folder in found.items() if folder is not None}


def _prior(settings: Settings) -> AnyPrior | None:
    if (folder := prior_of(settings)) is None:
        return None
    prior = load_any_prior(Path(folder))
    refuse_no_numbers(prior, folder)
    return prior


def refuse_no_numbers(module: nn.Module, where: str) -> None:
    """Raise WeightsError where a stored number is NaN or infinite."""
    for name, value in module.state_dict().items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"{name} holds NaN or infinity",
                where=where,
                fix="Take other weights; these come from a training that diverged, or are damaged.",
            )


def _stored(settings: Settings, source: str, *, may_lack_uncertainty: bool = False) -> DPMesh:
    """may_lack_uncertainty: weights that have all but this part get a new one, untrained."""
    model, wanted = DPMesh.from_pretrained(source, body_of(settings)[0]), configuration(settings.model)
    refuse_no_numbers(model, source)
    lacking = replace(wanted, regressor=replace(wanted.regressor, uncertainty=0))
    if may_lack_uncertainty and wanted != model.config == lacking:
        log.warning("%s tell no uncertainty: what tells it begins untrained", source)
        model = _with_uncertainty(model, DPMesh(wanted.as_stored(), body_of(settings)[0]))
    if model.config != wanted:
        fix = ""
        if model.config == lacking:
            fix = "They lack regressor.uncertainty: train it first (configs/embedded_sigma.toml)."
        elif model.config == replace(wanted, lora_rank=0):
            fix = "Their LoRA is merged: convert the checkpoint again, without --merge-lora."
        raise ConfigError(f"these are not weights of {model_name(settings.model)}", where=source, fix=fix)
    if source == settings.start:
        prior = _prior(settings)
        if prior is None and _never_trained(model.pose_prior):
            prior = _imported(wanted)
        if prior is not None:
            _put(prior, model, settings)
    if _never_trained(model.pose_prior):
        own = " or `dpmesh assets import` your VPoser 1.0" if _may_import(wanted) else ""
        raise ConfigError(
            "the pose prior in these weights was never trained",
            where=source,
            fix=f"Train one (configs/paper_prior.toml) and name its folder as `prior`{',' if own else ''}{own}.",
        )
    return model


def _may_import(config: DPMeshConfig) -> bool:
    return isinstance(config.pose_prior, VPoserConfig)


def _imported(config: DPMeshConfig) -> VPoserDecoder | None:
    """The user's VPoser, for a model whose prior is one; None where none was imported."""
    wanted = config.pose_prior
    return imported_vposer(wanted) if isinstance(wanted, VPoserConfig) else None


def _never_trained(prior: nn.Module) -> bool:
    """As `dpmesh convert sd15` leaves it."""
    if isinstance(prior, PoseVQVAE):
        return not prior.codebook.codes.any()
    return isinstance(prior, VPoserDecoder) and not prior.bodyprior_dec_out.weight.any()


def _with_uncertainty(model: DPMesh, fresh: DPMesh) -> DPMesh:
    """`fresh` with all of the model's numbers; its own stay in regressor.uncertainty, and nowhere else."""
    own = {n: v for n, v in fresh.state_dict().items() if n.startswith("regressor.uncertainty.")}
    fresh.load_state_dict({**own, **model.state_dict()})  # strict
    fresh.provenance = model.provenance
    return fresh


def _fresh(settings: Settings) -> DPMesh:
    """Random weights with a trained pose prior, where the model has one."""
    refuse_random_backbone(settings)
    config = configuration(settings.model)
    wanted = config.pose_prior
    if isinstance(wanted, DirectConfig):
        return DPMesh.from_config(settings.model, body_of(settings)[0])
    given = _prior(settings) or _imported(config)
    prior = given or load_prior()
    if given is None and wanted != prior.config:
        own = " `dpmesh assets import` your VPoser 1.0;" if _may_import(config) else ""
        raise ConfigError(
            f"no pose prior for {model_name(settings.model)} is shipped",
            where="start",
            fix=f"Do one of these:{own} name a folder with weights as `start` (`dpmesh convert`), or one of a prior"
            " as `prior`.",
        )
    model = DPMesh.from_config(settings.model, body_of(settings)[0])
    _put(prior, model, settings)
    return model


def refuse_random_backbone(settings: Settings) -> None:
    """Raise ConfigError where a part of the backbone that never trains would be random numbers."""
    config = configuration(settings.model)
    if (config.lora_rank or config.frozen) and not settings.allow_random_backbone:
        kept = "the U-Net under its low-rank updates" if config.lora_rank else " and ".join(config.frozen)
        raise ConfigError(
            f"{model_name(settings.model)} keeps {kept} as it is, and without start weights that is random numbers",
            where="start",
            fix="Name weights (dpmesh convert sd15 makes them), or --set.allow_random_backbone true for a test.",
        )


def body_of(settings: Settings) -> tuple[BodyArrays | None, dict[str, Any]]:
    """None for the free body, or SMPL's arrays; and the record of its file."""
    if settings.body == "free":
        return None, {}
    if (found := user_body(None, None)) is None:
        raise AssetError(
            "no SMPL body was imported",
            where="body",
            fix="Import one: dpmesh assets import SMPL_NEUTRAL.pkl.",
        )
    return found[0], dict(found[1])


def provenance(settings: Settings, number: int) -> dict[str, Any]:
    """Where the weights of stage `number` come from. data has the noise of real keypoints (augment)."""
    stages, plain = [stage.name for stage in settings.stages[: number + 1]], to_dict(settings)
    told: dict[str, Any] = {"config": settings.model, "stages": stages, "seed": settings.seed}
    told |= {"stage": plain["stages"][number], "losses": plain["losses"], "data": plain["data"]}
    told |= {name: plain[name] for name in ("start", "prior", "optimizer", "betas", "weight_decay", "clip")}
    told |= made_by()
    body = body_of(settings)[1]
    return told | ({"body": body} if body else {})


def refuse_other_prior(prior: AnyPrior, settings: Settings, where: str) -> None:
    """Raise ConfigError for a pose prior of another kind or size than the model's, with what differs."""
    wanted = configuration(settings.model).pose_prior
    if prior.config == wanted:
        return
    have, want = to_dict(prior.config), to_dict(wanted)
    sizes = [f"{n} is {have[n]!r}, not {want[n]!r}" for n in want if n in have and have[n] != want[n]]
    differs = "; ".join(sizes[:3]) if type(prior.config) is type(wanted) else "it is of another kind"
    raise ConfigError(
        f"this is no pose prior of {model_name(settings.model)}: {differs}",
        where=where,
        fix="Train one with this model (a config with a prior stage), or name another.",
    )


def _put(prior: AnyPrior, model: DPMesh, settings: Settings) -> None:
    refuse_other_prior(prior, settings, "prior")
    fixed = prior.as_decoder() if isinstance(prior, PoseVQVAE) else prior
    model.pose_prior.load_state_dict(fixed.state_dict())
