"""One evaluation: its configuration, and the model and people that it opens."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dpmesh.assets import sha256, weights_folder
from dpmesh.body.resolve import choose_body
from dpmesh.checkpoint import CONFIG, WEIGHTS
from dpmesh.device import pick_device
from dpmesh.errors import ConfigError
from dpmesh.evaluate.baselines import METHODS, OF_CLIPS, WITHOUT_NETWORK, Method, method_of
from dpmesh.evaluate.interfaces import EvaluationSource
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.registry import open_set
from dpmesh.evaluate.results import require_joints
from dpmesh.evaluate.synthocc_video import ClipSource
from dpmesh.evaluate.whole_images import WholeImageSource
from dpmesh.inference.detector import Detector
from dpmesh.inference.options import ModelOptions, user_model_record
from dpmesh.inference.predictor import MeshModel, Predictor
from dpmesh.model import DPMesh

Say = Callable[[str], None]
"""Prints a line of progress."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """One protocol, one model.

    protocol: a name, or a folder of packed people (registry.entry). out: the result goes to `folder` below it. data:
    root of the data sets. method: see baselines.METHODS. limit: evaluate the first `limit` people only. part: people
    between two saves, about. pose_model, person_model: the user's detection models (ModelOptions), for a protocol whose
    people are detected in whole images. Raises ConfigError for numbers below 1.
    """

    protocol: str
    out: Path
    data: Path | None = None
    weights: str = "embedded"
    body: str | None = None
    regressors: str | None = None
    method: Method = "network"
    device: str = "auto"
    threads: int = 1
    batch: int = 16
    limit: int | None = None
    part: int = 256
    pose_model: str | Path | None = None
    person_model: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "batch", "part", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1", where="EvaluationConfig")

    @property
    def folder(self) -> Path:
        """`out/PROTOCOL`, or `out/PROTOCOL+METHOD` for a baseline."""
        name = Path(self.protocol).resolve().name  # the last part, where it is a folder
        return self.out / (name if self.method == "network" else f"{name}+{self.method}")

    def record(self) -> dict[str, Any]:
        """The configuration as a result stores it."""
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model and a source of people, ready to run. weights_record: what the result stores about the weights."""

    config: EvaluationConfig
    protocol: Protocol
    source: EvaluationSource
    model: MeshModel
    weights_record: Mapping[str, Any]
    device: torch.device
    predictor: Predictor | None = None
    """Of a source of clips."""

    @property
    def count(self) -> int:
        """People to evaluate."""
        limit = self.config.limit
        return len(self.source) if limit is None else min(limit, len(self.source))

    @property
    def parts(self) -> list[range]:
        """Indices of people, split into parts of whole batches."""
        size = max(self.config.part // self.config.batch, 1) * self.config.batch
        return [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]

    @property
    def header(self) -> dict[str, Any]:
        """What the parts of one evaluation must have in common. The names appear in error messages."""
        from importlib.metadata import version

        return {
            "protocol": self.protocol.full_name,
            "hash": self.protocol.hash,
            "package": version("dpmesh"),
            "persons": self.count,
            "device": self.device.type,
            "weights": self.weights_record["sha256"],
            "weights' config": self.weights_record.get("config_sha256", ""),
            "method": self.config.method,
            "body": _digest(self.weights_record["body"]),
            "data": _digest(dict(self.source.census.files)),
            "detection models": _digest(_models_record(self.config)),
            "batch": self.config.batch,
            "save-every": self.config.part,
        }


def _digest(value: object) -> str:
    """A short checksum of plain data."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _models_record(config: EvaluationConfig) -> list[object]:
    return [user_model_record(model) for model in (config.pose_model, config.person_model)]


def use_models(source: EvaluationSource, config: EvaluationConfig) -> None:
    """Give the source the user's detection models. Raises ConfigError if it does not detect people, InputError."""
    if config.pose_model is config.person_model is None or isinstance(source, ClipSource):
        return
    if not isinstance(source, WholeImageSource):
        raise ConfigError(
            "its people are not detected in whole images",
            where=config.protocol,
            fix="Leave out --pose-model and --person-model.",
        )
    options = ModelOptions(
        threads=config.threads, pose_model=config.pose_model, person_model=config.person_model
    )
    source.detector = Detector.from_options(options)


def _refuse_method(source: EvaluationSource, config: EvaluationConfig) -> None:
    """Raise ConfigError for a method of clips where there are none, and the other way round."""
    clips = isinstance(source, ClipSource)
    if config.method != "network" and clips != (config.method in OF_CLIPS):
        fitting = [name for name in METHODS if name == "network" or clips == (name in OF_CLIPS)]
        raise ConfigError(
            f"--method {config.method} is not for {'clips' if clips else 'single pictures'}",
            where=config.protocol,
            fix=f"There are: {', '.join(fitting)}.",
        )


def _predictor(source: EvaluationSource, config: EvaluationConfig) -> Predictor | None:
    """What predicts whole frames, for a source of clips."""
    if not isinstance(source, ClipSource):
        return None
    return Predictor.from_pretrained(
        config.weights,
        config.device,
        config.threads,
        body=config.body,
        regressors=config.regressors,
        pose_model=config.pose_model,
        person_model=config.person_model,
    )


def open_evaluation(config: EvaluationConfig, rank: int = 0) -> Evaluation:
    """Open the people, the weights and the body of an evaluation.

    rank: of this process on its machine; with several CUDA devices each process uses its own.
    Raises ConfigError, InputError, AssetError, WeightsError.
    """
    protocol, source = open_set(config.protocol, config.data)
    _refuse_method(source, config)
    use_models(source, config)
    device = pick_device(config.device)
    torch.set_num_threads(config.threads)
    if device.type == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    chosen = choose_body(config.weights, config.body, config.regressors)
    model = DPMesh.from_pretrained(config.weights, chosen.arrays).to(device).eval()
    require_joints(model)
    record = {
        **weights_checksums(config),
        "provenance": {} if config.method in WITHOUT_NETWORK else dict(model.provenance),
        "body": dict(chosen.record) or "the free body",
        "notes": list(chosen.notes),
    }
    return Evaluation(
        config, protocol, source, method_of(config.method, model), record, device, _predictor(source, config)
    )


def weights_checksums(config: EvaluationConfig) -> dict[str, str]:
    """name and method for readers; sha256 and config_sha256 to compare with (empty where no file is used: T-pose)."""
    folder = weights_folder(config.weights)
    config_file = None if config.method in WITHOUT_NETWORK else folder / CONFIG
    record = {
        "name": config.weights,
        "sha256": _checksum(WITHOUT_NETWORK.get(config.method, folder / WEIGHTS)),
        "config_sha256": _checksum(config_file),
    }
    if config.method == "network":
        return record
    # The name makes it a row of its own in tables.
    name = config.method if config.method in WITHOUT_NETWORK else f"{config.weights}: {config.method}"
    return record | {"name": name, "method": METHODS[config.method]}


def _checksum(path: Path | None) -> str:
    return sha256(path) if path is not None and path.is_file() else ""
