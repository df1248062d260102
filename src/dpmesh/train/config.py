"""The settings of a training run as frozen dataclasses, each with its unit, range and source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from dpmesh.ablations import configuration
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.sources import SETS
from dpmesh.errors import ConfigError
from dpmesh.losses import TERMS, LossWeights
from dpmesh.profiling import check_buildable
from dpmesh.train.stages import (
    AnyStage,
    ImageStage,
    KeypointStage,
    PretrainStage,
    PriorStage,
    StudentStage,
    TeacherStage,
    in_range,
)


@dataclass(frozen=True, kw_only=True)
class TrainingSource:
    """A data set on disk (docs/guide/data.md). Test splits are not for training."""

    dataset: str
    """h36m, muco, coco, crowdpose, 3dpw or synthetic."""
    root: str = ""
    """The folder that holds the sets' own folders, or their packed shards (dpmesh data pack)."""
    split: str = "train"
    """"train", or "validation" in data.validation."""
    fits: Literal["smpl", "none"] = "smpl"
    """"smpl": pose and shape targets from SMPL fits, for which the model needs body = "smpl"; "none": joints alone."""

    def __post_init__(self) -> None:
        if self.split not in ("train", "validation"):
            raise ConfigError(
                f"the split {self.split!r} of {self.dataset} cannot be named in a training config",
                where="data",
                fix="Train on 'train', validate on 'validation'; test splits are for evaluation alone.",
            )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where samples come from. Without a data set: synthetic people."""

    group3d: tuple[TrainingSource, ...] = ()
    """Data sets with measured 3D joints, mixed 1:1 with group2d."""
    group2d: tuple[TrainingSource, ...] = ()
    """Data sets without measured 3D joints."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of the data sets' people (data/augment.py). Synthetic people have their own."""
    validation: tuple[TrainingSource, ...] = ()
    """Sets with a true pose (3dpw, synthetic); () for held-out synthetic people. `fits` has no effect here."""
    overfit_people: int = 0
    """Train and validate on this many fixed synthetic people, to test whether it can fit them. 0: always new ones."""
    looks: str = ""
    """File of photographic skins, clothes, hair and shoes for the synthetic people of a training without a data set
    (docs/guide/data.md); "" for the drawn ones alone."""
    looks_share: float = 0.5
    """Share of the synthetic people who have them, 0 to 1."""
    backgrounds: str = ""
    """Folder of photographs without people (.jpg, .png), behind half of the synthetic people; "" for drawn places."""
    detector_noise: float = 0.0
    """Share of the synthetic people whose input keypoints err as the shipped detector's (data/detector_noise.py), 0 to
    1; those of the others have PoseFix errors."""
    motions: Literal["train", "all"] = "train"
    """"train" leaves the pose bank's validation clips out of the training; "all" trains on them too, as the shipped
    weights were."""

    def __post_init__(self) -> None:
        for sources, split in (((*self.group3d, *self.group2d), "train"), (self.validation, "validation")):
            for source in sources:
                if source.split != split:
                    raise ConfigError(f"{source.dataset}'s split must be {split!r} here", where="data")
        if self.real and (self.looks or self.backgrounds or self.detector_noise):
            raise ConfigError(
                "looks, backgrounds and detector_noise are for synthetic people, and people come from data sets here",
                where="data",
            )
        in_range(
            "data",
            overfit_people=(self.overfit_people, 0, 10**9),
            looks_share=(self.looks_share, 0, 1),
            detector_noise=(self.detector_noise, 0, 1),
        )

    @property
    def real(self) -> bool:
        """Whether people come from data sets."""
        return bool(self.group3d or self.group2d)


Precision = Literal["auto", "32-true", "bf16-mixed"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a training run; one TOML file (configs/)."""

    model: str | Mapping[str, Any]
    """A named configuration, or a table of its `name` and of values laid over it, nested as the fields of DPMeshConfig:
    [model] name = "paper-resnet50", backbone.pretrained = true (dpmesh.ablations.configuration)."""
    stages: tuple[AnyStage, ...]
    """The stages in their order; each begins with the weights of the one before. At least one."""
    data: Data = field(default_factory=Data)
    """Training and validation data."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weight of each loss term (Eq. 9; dpmesh.losses)."""
    start: str = ""
    """Weights to start from: a folder or a shipped name. "": random weights."""
    prior: str = ""
    """Folder of a pose prior that a "prior" stage left; "" for the shipped one."""
    body: Literal["free", "smpl"] = "free"
    """"free": the shipped body; "smpl": your imported SMPL (docs/guide/weights.md), which SMPL fits need."""
    out: str = "runs/embedded"
    """Folder of the run: checkpoints, logs, previews, weights."""
    seed: int = 1
    """Seed of the weights and of the data, 0 to 2^32 - 1."""
    processes: int = 1
    """Processes on this machine; under torchrun its own number counts."""
    threads: int = 1
    """Threads of each process."""
    workers: int = 1
    """Data loading workers of each process; 0 loads in the process itself."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share a model: "ddp", a copy in each; "fsdp", every layer sharded."""
    precision: Precision = "auto"
    """"bf16-mixed": matrix products in bf16, weights and targets in fp32; "32-true": all in fp32; "auto": bf16-mixed
    where the device has instructions for bf16."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """"adamw" (paper), or "muon": Muon (timm's; pip install 'dpmesh[timm]') for the image backbone's matrices and
    kernels and NAdamW for the rest, at the same rates; some 12 % more time a step, not under fsdp."""
    betas: tuple[float, ...] = (0.9, 0.98)
    """Decays of the two moving averages of AdamW (with muon: of NAdamW), each below 1."""
    weight_decay: float = 0.01
    """Decoupled weight decay. Paper: 1e-6."""
    max_grad_norm: float = 1.0
    """Maximum norm of the gradient, above 0. Released code: 10."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, which is then validated and saved; 0 for none."""
    keep_best: bool = False
    """Also save the weights with the lowest MPJPE on the first set of data.validation (else on the held-out synthetic
    people) to weights_best/, with the figures in its provenance."""
    validate_every: int = 1000
    """Steps between validations; 0 for never."""
    validation_people: int = 256
    """People to validate on."""
    log_every: int = 50
    """Steps between lines of log_STAGE.csv; 0 for never."""
    preview_every: int = 500
    """Steps between preview images of a few predictions; 0 for never."""
    checkpoint_every: float = 120.0
    """Seconds between checkpoints."""
    tensorboard: bool = False
    """Also log to TensorBoard."""
    allow_random_backbone: bool = False
    """For tests: train without start weights a model that never trains a part of its backbone."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str):
            self._refuse_model()
        self._refuse_values()
        if not self.stages:
            raise ConfigError("a training config needs at least one [[stages]] table", where="Settings")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names) or set(names) & set(TABLES):
            raise ConfigError(
                f"stages need names of their own, other than {', '.join(TABLES)}: {', '.join(names)}",
                where="stages",
            )
        if any(isinstance(stage, PriorStage) for stage in self.stages[1:]):
            raise ConfigError("the prior stage must be the first", where="stages")
        if self.keep_best and not self.validate_every:
            raise ConfigError(
                "keep_best needs validation figures", where="keep_best", fix="Set validate_every above 0."
            )
        if self.keep_best and not any(
            isinstance(s, ImageStage | KeypointStage | StudentStage | TeacherStage) for s in self.stages
        ):
            raise ConfigError(
                "no stage here regresses bodies, of which the best could be kept", where="keep_best"
            )
        if any(not isinstance(stage, PriorStage | PretrainStage) for stage in self.stages):
            _refuse_poseless(self.data.validation)
        sources = (*self.data.group3d, *self.data.group2d)  # validation has its truth from the evaluation
        fitted = [s.dataset for s in sources if s.dataset != "synthetic" and s.fits == "smpl"]
        if fitted and self.body != "smpl":
            raise ConfigError(
                f"the fits of {fitted[0]} are SMPL's, the model's body is another",
                where="body",
                fix='Set body = "smpl", or fits = "none" for every data set.',
            )
        if self.strategy == "fsdp" and len(self.stages) > 1:
            raise ConfigError("fsdp takes one stage at a time", fix="Make a config for each.")

    def _refuse_model(self) -> None:
        """ConfigError where the table makes no model. A table of a name alone is the name."""
        config = configuration(self.model)
        if set(self.model) == {"name"}:
            object.__setattr__(self, "model", config.name)
        elif config.as_stored() != configuration(config.name).as_stored():  # a start alone changes no size
            check_buildable(config)

    def _refuse_values(self) -> None:
        """ConfigError for the first number that is out of its range."""
        if not self.out.strip():
            raise ConfigError(
                "`out` is empty", where="Settings", fix="Name the folder that the run writes to."
            )
        in_range(
            "Settings",
            seed=(self.seed, 0, 2**32 - 1),
            processes=(self.processes, 1, 1024),
            threads=(self.threads, 1, 1024),
            workers=(self.workers, 0, 1024),
            weight_decay=(self.weight_decay, 0, 1e6),
            ema_decay=(self.ema_decay, 0, BELOW_ONE),
            validate_every=(self.validate_every, 0, 10**9),
            validation_people=(self.validation_people, 1, 10**7),
            log_every=(self.log_every, 0, 10**9),
            preview_every=(self.preview_every, 0, 10**9),
            checkpoint_every=(self.checkpoint_every, 0, 1e9),
        )
        if not 0 < self.max_grad_norm < float("inf"):
            raise ConfigError(f"max_grad_norm={self.max_grad_norm} is not a number above 0", where="Settings")
        if len(self.betas) != 2:
            raise ConfigError(f"betas={list(self.betas)} must be two numbers", where="Settings")
        for value in self.betas:
            in_range("Settings", betas=(value, 0, BELOW_ONE))
        in_range("losses", **{name: (getattr(self.losses, name), 0, 1e9) for name in TERMS})


BELOW_ONE = 1 - 1e-9


def _refuse_poseless(sources: tuple[TrainingSource, ...]) -> None:
    """Raise ConfigError for a validation set without measured poses: fits to its keypoints are no truth."""
    for source in sources:
        if source.dataset in SETS and not SETS[source.dataset].measured:
            raise ConfigError(
                f"{SETS[source.dataset].title} has no true pose to validate against",
                where="data.validation",
                fix="Name 3dpw or synthetic, or nothing: then held-out synthetic people.",
            )


TABLES = ("data", "losses", "model", "stages")
"""Settings that hold others: no stage may have such a name."""


def model_name(model: str | Mapping[str, Any]) -> str:
    """Settings.model for a message: its name, and which of its values are changed."""
    if isinstance(model, str):
        return repr(model)
    changed = [name for name in _leaves(model) if name != "name"]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"{model['name']!r}" + (f" with another {', '.join(changed[:3])}{more}" if changed else "")


def _leaves(table: Mapping[str, Any], before: str = "") -> list[str]:
    """Dotted names of all values."""
    names: list[str] = []
    for name, value in table.items():
        inner = isinstance(value, Mapping) and value
        names += _leaves(cast("Mapping[str, Any]", value), f"{before}{name}.") if inner else [before + name]
    return names
