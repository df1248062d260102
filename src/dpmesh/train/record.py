"""The record of a run: the settings, commit, data and start weights that determine its weights.

A run resumes only where nothing of it has changed. Settings that do not change the weights (FREE) may: folders, how
often something is written or validated, how many processes share a batch.
"""

import hashlib
import json
import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dpmesh
from dpmesh.assets import sha256, weights_folder
from dpmesh.checkpoint import WEIGHTS
from dpmesh.config_io import to_dict
from dpmesh.data.shards import ShardSource
from dpmesh.data.sources import FolderSource
from dpmesh.errors import AssetError, ConfigError, DPMeshError, OutputError, WeightsError
from dpmesh.io import LOCK, atomic_write, is_part, read_json, reason
from dpmesh.train.checkpoints import BEFORE, LAST
from dpmesh.train.config import Settings, TrainingSource
from dpmesh.train.context import TrainingContext
from dpmesh.train.dataloader import opened, steps_of
from dpmesh.train.distributed import in_bf16
from dpmesh.train.stages import PriorStage, UncertaintyStage

Record = dict[str, Any]
"""settings: dotted name -> plain value. inputs: name -> SHA-256 of what is read. steps, decay_steps: as of steps_of.
bf16: whether products are in bf16. left: SHA-256 of the weights that the stage left, None before its end."""

FREE = (
    "out", "processes", "threads", "workers", "precision", "activation_checkpointing", "validate_every",
    "validation_people", "log_every", "preview_every", "checkpoint_every", "tensorboard", "data.validation",
    "allow_random_backbone",
)  # fmt: skip
"""Settings that may differ. Of precision the result (bf16 or not) is compared, of paths the content."""
READ = ("start", "prior", "stage.teacher", "stage.poses")
CALIBRATING = ("data.validation", "validation_people")
"""The stage `uncertainty` is calibrated on them at its end."""
LENGTH = ("stage.steps", "stage.epochs", "stage.decay_steps")

FILE = "config.json"


def record_of(context: TrainingContext, number: int, device: str) -> Record:
    """The record of stage `number` before it begins. device: a torch device's type. Hashes what the stage reads, which
    takes seconds for gigabytes."""
    settings = context.settings
    steps, decay_steps = steps_of(settings.stages[number], settings.data)
    return {
        "settings": settings_of(settings, number),
        "inputs": inputs_of(context, number),
        "steps": steps,
        "decay_steps": decay_steps,
        "bf16": in_bf16(settings.precision, device),
        "left": None,
    }


def settings_of(settings: Settings, number: int) -> dict[str, Any]:
    """Dotted settings that determine the weights of stage `number`; its own as stage.NAME."""
    stage = settings.stages[number]
    plain = to_dict(settings)
    plain["stage"] = plain.pop("stages")[number]
    dropped = {*FREE, *READ} - (set(CALIBRATING) if isinstance(stage, UncertaintyStage) else set())
    kept = {
        name: value
        for name, value in _flat(plain).items()
        if not name.endswith(".root") and not any(f"{name}.".startswith(f"{free}.") for free in dropped)
    }
    return json.loads(json.dumps(kept))  # tuples are lists, as where it was stored


def inputs_of(context: TrainingContext, number: int) -> dict[str, str]:
    """SHA-256 of everything that stage `number` reads; of a data set, of its record ids or shards' checksums."""
    settings, stage = context.settings, context.settings.stages[number]
    inputs = {name: weights_sum(folder) for name, folder in context.weights_read(number).items()}
    if isinstance(stage, PriorStage):
        return inputs | ({"poses": _sum(Path(stage.poses))} if stage.poses else {})
    if record := context.body_record:
        inputs["body"] = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    groups = ("group3d", "group2d", *(("validation",) if isinstance(stage, UncertaintyStage) else ()))
    for group in groups:
        for source in getattr(settings.data, group):
            inputs[f"data.{group}.{source.dataset}"] = people_sum(source)
    return inputs


def weights_sum(source: str) -> str:
    """SHA-256 of the model.safetensors of a folder or of shipped weights. Raises WeightsError."""
    path = weights_folder(source) / WEIGHTS
    try:
        return sha256(path)
    except OSError as error:
        raise WeightsError(f"{WEIGHTS} cannot be read ({error.strerror})", where=source) from None


def _sum(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise AssetError(f"cannot be read ({error.strerror})", where=str(path)) from None


@cache
def people_sum(source: TrainingSource) -> str:
    """Hash of which people a source has, in which order."""
    people = opened(source)
    names: list[str] = [type(people).__name__, str(len(people))]
    if isinstance(people, FolderSource):
        names += [person.record_id for person in people.people]
    elif isinstance(people, ShardSource):
        names += [f"{shard} {total}" for shard, total in people.sums.items()]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def frozen_sum(module: nn.Module) -> str:
    """SHA-256 of all parameters that the module does not train: they are in no checkpoint."""
    total = hashlib.sha256()
    for name, value in module.named_parameters():
        if not value.requires_grad:
            total.update(name.encode())
            total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write_config(out: Path, settings: Settings, records: list[Record]) -> None:
    """Write out/config.json: the resolved settings, commit, versions, and each stage's record."""
    content = {**made_by(), "settings": to_dict(settings), "stages": records}
    atomic_write(out / FILE, json.dumps(content, indent=1) + "\n")


def provenance(context: TrainingContext, number: int) -> dict[str, Any]:
    """Where the weights of stage `number` come from, for their config.json."""
    settings = context.settings
    plain = to_dict(settings)
    return {
        "config": settings.model,
        "stages": [stage.name for stage in settings.stages[: number + 1]],
        "seed": settings.seed,
        "stage": plain["stages"][number],
        "losses": plain["losses"],
        "data": plain["data"],
        **{
            name: plain[name]
            for name in ("start", "prior", "optimizer", "betas", "weight_decay", "max_grad_norm")
        },
        **made_by(),
        **({"body": context.body_record} if context.body_record else {}),
    }


def made_by() -> dict[str, str]:
    """Commit, or the version of an installed package, and torch's."""
    return {"commit": commit(), "dpmesh": version("dpmesh"), "torch": str(torch.__version__)}


@cache
def commit() -> str:
    """Of this package's checkout, with a plus where its files differ from it; "" where it is installed."""
    home = Path(dpmesh.__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(home), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        if not git("ls-files", "--", "__init__.py"):
            return ""  # some other repository that it was installed into
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return ""


def _flat(plain: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables by dotted names; the items of a list of tables by number."""
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):  # pyright: ignore
            flat |= _flat({str(i): item for i, item in enumerate(value)}, f"{before}{name}.")  # pyright: ignore
        else:
            flat[before + name] = value
    return flat


_CHECKPOINTS = (LAST, BEFORE)  # their content is checked when they are read
_KEYS = {"commit", "dpmesh", "settings", "stages"}
"""Of write_config, by which our config.json is known. It is the first file that a run writes."""


def refuse_foreign(out: Path) -> None:
    """Raise ConfigError for an `out` that is not empty and has neither a checkpoint nor the config.json of a training;
    OutputError where it cannot be read."""
    if not os.path.isdir(out):
        return
    try:
        inside = sorted(path.name for path in out.iterdir())
    except OSError as error:
        raise OutputError(
            f"cannot be read ({reason(error)})", where=str(out), fix="Choose another `out`."
        ) from None
    if any(name in inside for name in _CHECKPOINTS):
        return
    parts = (FILE, *_CHECKPOINTS)
    others = [name for name in inside if name != LOCK and not any(is_part(name, file) for file in parts)]
    if others and not _is_ours(out / FILE):
        raise ConfigError(
            f"holds {others[0]!r} and no training of dpmesh", where=str(out), fix="Choose another `out`."
        )


def _is_ours(path: Path) -> bool:
    try:
        content = read_json(path)
    except DPMeshError:
        return False
    return isinstance(content, dict) and set(content) >= _KEYS
