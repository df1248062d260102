"""What a training config (TOML) may say. Unknown names are refused."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from dpmesh.ablations import configuration
from dpmesh.config import DPMeshConfig
from dpmesh.config_io import from_dict
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.datasets.registry import SETS
from dpmesh.errors import ConfigError
from dpmesh.io import read_bytes
from dpmesh.losses import TERMS, LossWeights
from dpmesh.profiling import check_buildable
from dpmesh.train.stages import AnyStage, Images, Keypoints, Pretrain, Prior, Student, Teacher, in_range

LARGEST_CONFIG = 2**20
"""Bytes of a training config."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set on disk: which, where, and which of its splits (docs/data.md). Test splits are not for training.

    fits: "smpl" targets are bodies fitted with SMPL, for which the model must have that body; "none" joints alone.
    """

    dataset: str
    root: str = ""
    split: str = "train"
    fits: Literal["smpl", "none"] = "smpl"

    def __post_init__(self) -> None:
        if self.split not in ("train", "validation"):
            raise ConfigError(
                f"the split {self.split!r} of {self.dataset} cannot be named in a training config",
                where="data",
                fix="Train on 'train', look at 'validation'; test splits are for evaluation alone.",
            )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where samples come from. Without a data set: synthetic people.

    group3d, group2d: data sets with and without measured 3D joints, mixed 1:1 (datasets.md §4.6).
    augment: of the data sets' people (data/augment.py); synthetic people bring their own.
    validation: what the model is validated on, sets with a true pose (3dpw, synthetic); held-out synthetic people
    without. `fits` does not matter there.
    people: only so many synthetic people, again and again: can a model learn them by heart? 0: ever new ones.
    motions: "train" keeps the validation clips of the pose bank out of the training; "all" trains on them too, as the
    shipped weights were.
    """

    group3d: tuple[Source, ...] = ()
    group2d: tuple[Source, ...] = ()
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    validation: tuple[Source, ...] = ()
    people: int = 0
    motions: Literal["train", "all"] = "train"

    def __post_init__(self) -> None:
        for sources, split in (((*self.group3d, *self.group2d), "train"), (self.validation, "validation")):
            for source in sources:
                if source.split != split:
                    raise ConfigError(f"{source.dataset}'s split must be {split!r} here", where="data")
        in_range("data", people=(self.people, 0, 10**9))

    @property
    def real(self) -> bool:
        """Whether people come from data sets."""
        return bool(self.group3d or self.group2d)


Precision = Literal["auto", "32-true", "bf16-mixed"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """model: a named configuration; or a table of its `name` and of values laid over it, nested as the fields of
    DPMeshConfig are: [model] name = "paper-resnet50", backbone.pretrained = true (configurations.configuration).
    start: weights to begin from (a folder or a shipped name) instead of random ones.
    prior: folder of a pose prior (of a "prior" stage) instead of the shipped one.
    body: "smpl" is the one that you imported (docs/weights.md), which fits of data sets need.
    seed: of weights and data.

    processes: on this machine (under torchrun, what it was told); threads: of each; workers: that make batches.
    strategy: how several processes share a model. "ddp": each has all of it. "fsdp": each has a part of every layer.
    precision: bf16-mixed does matrix products in bf16; weights and targets stay in fp32. auto is this where the device
    has instructions for bf16, and 32-true where it has none.
    checkpointing: the backbone's activations are computed again in the backward pass instead of kept.
    optimizer: "adamw", or "muon": Muon (timm's; pip install 'dpmesh[timm]') for the image backbone's matrices and
    kernels, NAdamW for everything else, at the same rates. Some 12 % more time a step; not under fsdp.
    betas: decays of the two moving averages of AdamW (under muon of NAdamW; Muon has a momentum of its own).
    clip: norm of the gradient at most. ema: decay of a moving average of the weights, which is then what is validated
    and kept; 0 for none.

    keep_best: keep, beside the last weights, those with the lowest MPJPE on the first set of `data.validation` (without
    one on the held-out synthetic people): weights_best/, with the figures in its provenance.

    validate_every, log_every, sheet_every: steps; 0 for never. checkpoint_every: seconds.
    validation_people: how many are looked at.
    allow_random_backbone: without start weights, train a model that keeps a part of its backbone as it is: the part is
    then random numbers for good. For tests.
    """

    model: str | Mapping[str, Any]
    stages: tuple[AnyStage, ...]
    data: Data = field(default_factory=Data)
    losses: LossWeights = field(default_factory=LossWeights)
    start: str = ""
    prior: str = ""
    body: Literal["free", "smpl"] = "free"
    out: str = "runs/embedded"
    seed: int = 1
    processes: int = 1
    threads: int = 1
    workers: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    precision: Precision = "auto"
    checkpointing: bool = False
    optimizer: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, ...] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0
    keep_best: bool = False
    validate_every: int = 1000
    validation_people: int = 256
    log_every: int = 50
    sheet_every: int = 500
    checkpoint_every: float = 120.0
    tensorboard: bool = False
    allow_random_backbone: bool = False

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
        if any(isinstance(stage, Prior) for stage in self.stages[1:]):
            raise ConfigError("the prior stage must be the first", where="stages")
        if self.keep_best and not self.validate_every:
            raise ConfigError(
                "keep_best needs validation figures", where="keep_best", fix="Set validate_every above 0."
            )
        if self.keep_best and not any(
            isinstance(s, Images | Keypoints | Student | Teacher) for s in self.stages
        ):
            raise ConfigError(
                "no stage here regresses bodies, of which the best could be kept", where="keep_best"
            )
        if any(not isinstance(stage, Prior | Pretrain) for stage in self.stages):
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
            ema=(self.ema, 0, BELOW_ONE),
            validate_every=(self.validate_every, 0, 10**9),
            validation_people=(self.validation_people, 1, 10**7),
            log_every=(self.log_every, 0, 10**9),
            sheet_every=(self.sheet_every, 0, 10**9),
            checkpoint_every=(self.checkpoint_every, 0, 1e9),
        )
        if not 0 < self.clip < float("inf"):
            raise ConfigError(f"clip={self.clip} is not a number above 0", where="Settings")
        if len(self.betas) != 2:
            raise ConfigError(f"betas={list(self.betas)} must be two numbers", where="Settings")
        for value in self.betas:
            in_range("Settings", betas=(value, 0, BELOW_ONE))
        in_range("losses", **{name: (getattr(self.losses, name), 0, 1e9) for name in TERMS})


BELOW_ONE = 1 - 1e-9


def _refuse_poseless(sources: tuple[Source, ...]) -> None:
    """Raise ConfigError for a validation set without measured poses: fits to its keypoints are no truth."""
    for source in sources:
        if source.dataset in SETS and not SETS[source.dataset].measured:
            raise ConfigError(
                f"{SETS[source.dataset].title} has no true pose to validate against",
                where="data.validation",
                fix="Name 3dpw or synthetic, or nothing: held-out synthetic people then.",
            )


TABLES = ("data", "losses", "model", "stages")
"""Settings that hold others: no stage may have such a name."""


def read_settings(path: Path, changes: Mapping[str, Any] | None = None) -> Settings:
    """Settings of a TOML file with changes laid over: {"out": "x", "student.steps": 10, "stages.0.batch": 2,
    "model.backbone.pretrained": True}.

    A stage is named by its number or its name. Raises ConfigError for anything unknown.
    """
    text = read_bytes(path, LARGEST_CONFIG, ConfigError)
    try:
        data = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # both of tomllib's and of the encoding
        line = " ".join(str(error).split())[:120]
        raise ConfigError(f"not a readable TOML file ({line})", where=str(path)) from None
    _stages_of(data, str(path))
    for name, value in (changes or {}).items():
        _lay_over(data, name, value)
    for stage in _stages_of(data, str(path)):
        if "source" in stage:
            raise ConfigError("a stage's `source` is now called `kind`", where=str(path))
        if "kind" not in stage:
            raise ConfigError(f"the stage {stage.get('name')!r} has no kind", where=str(path))
    return from_dict(Settings, data, where=str(path))


def model_name(model: str | Mapping[str, Any]) -> str:
    """Of a Settings.model in a message: its name, and which of its values are laid over."""
    if isinstance(model, str):
        return repr(model)
    changed = [name for name in _leaves(model) if name != "name"]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"{model['name']!r}" + (f" with another {', '.join(changed[:3])}{more}" if changed else "")


def _leaves(table: Mapping[str, Any], before: str = "") -> list[str]:
    """Dotted names."""
    found: list[str] = []
    for name, value in table.items():
        inner = isinstance(value, Mapping) and value
        found += _leaves(cast("Mapping[str, Any]", value), f"{before}{name}.") if inner else [before + name]
    return found


def model_of(source: str, changes: Mapping[str, Any]) -> DPMeshConfig:
    """The model of a training config (FILE.toml) or of a configuration's name, with changes as read_settings takes
    them."""
    if source.endswith(".toml"):
        return configuration(read_settings(Path(source), changes).model)
    data: dict[str, Any] = {"model": source}
    for name, value in changes.items():
        if not name.startswith("model."):
            raise ConfigError(
                f"{name!r} is no setting of a model", fix="Names begin with model., such as model.lora_rank."
            )
        _lay_over(data, name, value)
    config = configuration(data["model"])
    if changes:
        check_buildable(config)
    return config


def _stages_of(data: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The [[stages]] tables; raises ConfigError where they are something else."""
    stages = data.get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(s, dict) for s in cast("list[Any]", stages)):
        raise ConfigError("stages are tables of their own", where=where, fix="Write [[stages]] above each.")
    return cast("list[dict[str, Any]]", stages)


def _lay_over(data: dict[str, Any], name: str, value: Any) -> None:
    """Set one value by its dotted name; what is wrong with name or value from_dict tells."""
    *path, last = name.split(".")
    by_name = {str(stage.get("name")): stage for stage in data.get("stages", ())}
    here: Any = data
    if path[:1] == ["model"] and isinstance(data.get("model"), str):
        data["model"] = {"name": data["model"]}
    try:
        if path and path[0] not in TABLES:
            here = by_name[path.pop(0)]
        for step in path:
            here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
        here.setdefault(last)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError):
        raise ConfigError(
            f"unknown setting {name!r}", fix=f"Tables: {', '.join(TABLES)}; stages: {', '.join(by_name)}."
        ) from None
    here[last] = value


def read_value(word: str) -> Any:
    """A value as TOML writes it (3, 1e-3, true, ["a"]); what is none is a string."""
    try:
        return tomllib.loads(f"value = {word}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return word
