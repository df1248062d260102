"""What a training config (TOML) may say. Unknown names are refused."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dpmesh.errors import ConfigError
from dpmesh.losses import LossWeights
from dpmesh.plain import from_plain

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training.

    source: "keypoints" trains prompt and regressor on keypoints alone, without a picture;
    "images" trains everything on rendered people.
    batch: people in one step, over all processes together.
    learning_rate falls along a cosine to a hundredth; backbone_rate is the factor for the image backbone.
    no_features, scrambled: shares of samples whose fused map is zeroed, or whose crop is somebody else's, so that
    the keypoints alone keep carrying an answer.
    rehearsal: people without a picture in each step besides, so that the lifter forgets nothing.
    """

    name: str
    source: Literal["keypoints", "images"]
    steps: int
    batch: int
    learning_rate: float
    backbone_rate: float = 1.0
    warmup: int = 200
    no_features: float = 0.0
    scrambled: float = 0.0
    rehearsal: int = 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """processes: on this machine (under torchrun, what it was told); threads: of each.
    model: a named configuration. start: weights to begin from (a folder or a shipped name) instead of random ones.
    seed: of weights and data. precision: bf16-mixed does matrix products in bf16;
    weights and targets stay in fp32.

    validate_every, log_every: steps. checkpoint_every: seconds. validation_people: held-out synthetic people.
    """

    model: str
    stages: tuple[Stage, ...]
    start: str = ""
    out: str = "runs/embedded"
    seed: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    processes: int = 1
    threads: int = 1
    workers: int = 1
    weight_decay: float = 0.01
    clip: float = 1.0
    validate_every: int = 1000
    validation_people: int = 256
    log_every: int = 50
    checkpoint_every: float = 120.0
    losses: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a training config needs at least one [[stages]] table", where="Settings")


def read_settings(path: Path, changes: dict[str, Any] | None = None) -> Settings:
    """Settings of a TOML file, with top-level changes laid over; raises ConfigError for anything unknown."""
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"not a readable TOML file ({error})", where=str(path)) from error
    return from_plain(Settings, {**data, **(changes or {})}, where=str(path))
