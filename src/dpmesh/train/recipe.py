"""What determines the weights of a run: its settings, commit, data and start weights, kept beside its checkpoints.

A run goes on only where nothing of it has changed. What does not change the numbers (FREE) may: where things lie, how
often something is written or looked at, how many processes share the same batch.
"""

import hashlib
import json
import subprocess
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dpmesh
from dpmesh.assets import sha256, weights_folder
from dpmesh.body.resolve import user_body
from dpmesh.checkpoint import WEIGHTS
from dpmesh.config_io import to_dict
from dpmesh.data.shards import ShardSource
from dpmesh.data.sources import FolderSource
from dpmesh.errors import AssetError, ConfigError, WeightsError
from dpmesh.io import atomic_write
from dpmesh.train import config
from dpmesh.train.config import Settings
from dpmesh.train.dataloader import opened, steps_of
from dpmesh.train.distributed import in_bf16
from dpmesh.train.stages import Prior, Uncertainty

Record = dict[str, Any]
"""settings: dotted name -> plain value. inputs: what is read -> its SHA-256. steps, low: as steps_of has them. bf16:
whether products are in bf16. left: SHA-256 of the weights that the stage left, None before its end."""

FREE = (
    "out", "processes", "threads", "workers", "precision", "checkpointing", "validate_every", "validation_people",
    "log_every", "sheet_every", "checkpoint_every", "tensorboard", "data.validation", "allow_random_backbone",
)  # fmt: skip
"""Settings that may differ. precision: what it comes to is compared. Paths may too: what lies there is compared."""
READ = ("start", "prior", "stage.teacher", "stage.poses")
CALIBRATING = ("data.validation", "validation_people")
"""The stage `uncertainty` is fitted on them at its end."""
LENGTH = ("stage.steps", "stage.epochs", "stage.low")

FILE = "config.json"


def record_of(settings: Settings, number: int, reads: dict[str, str], device: str) -> Record:
    """Of stage `number`, before it begins. reads: begin.reads; device: a torch device's type. Hashes what it reads, so
    seconds for gigabytes."""
    steps, low = steps_of(settings.stages[number], settings.data)
    return {
        "settings": settings_of(settings, number),
        "inputs": inputs_of(settings, number, reads),
        "steps": steps,
        "low": low,
        "bf16": in_bf16(settings.precision, device),
        "left": None,
    }


def settings_of(settings: Settings, number: int) -> dict[str, Any]:
    """Those that determine what stage `number` makes, its own as stage.NAME."""
    stage = settings.stages[number]
    plain = to_dict(settings)
    plain["stage"] = plain.pop("stages")[number]
    dropped = {*FREE, *READ} - (set(CALIBRATING) if isinstance(stage, Uncertainty) else set())
    kept = {
        name: value
        for name, value in _flat(plain).items()
        if not name.endswith(".root") and not any(f"{name}.".startswith(f"{free}.") for free in dropped)
    }
    return json.loads(json.dumps(kept))  # tuples are lists, as where it was stored


def inputs_of(settings: Settings, number: int, reads: dict[str, str]) -> dict[str, str]:
    """The SHA-256 of everything that stage `number` reads; of a data set, of its people's names or shards' sums."""
    stage = settings.stages[number]
    found = {name: weights_sum(folder) for name, folder in reads.items()}
    if isinstance(stage, Prior):
        return found | ({"poses": _sum(Path(stage.poses))} if stage.poses else {})
    if settings.body == "smpl" and (body := user_body(None, None)) is not None:
        found["body"] = hashlib.sha256(json.dumps(body[1], sort_keys=True).encode()).hexdigest()
    groups = ("group3d", "group2d", *(("validation",) if isinstance(stage, Uncertainty) else ()))
    for group in groups:
        for given in getattr(settings.data, group):
            found[f"data.{group}.{given.dataset}"] = people_sum(given)
    return found


def weights_sum(source: str) -> str:
    """Of a folder's model.safetensors, or of shipped weights'. Raises WeightsError."""
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
def people_sum(given: config.Source) -> str:
    """Which people a source has, in which order."""
    source = opened(given)
    names: list[str] = [type(source).__name__, str(len(source))]
    if isinstance(source, FolderSource):
        names += [person.record_id for person in source.people]
    elif isinstance(source, ShardSource):
        names += [f"{shard} {total}" for shard, total in source.sums.items()]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def frozen_sum(module: nn.Module) -> str:
    """Of all numbers that the module does not train: they are in no checkpoint."""
    total = hashlib.sha256()
    for name, value in module.named_parameters():
        if not value.requires_grad:
            total.update(name.encode())
            total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def refuse_another(stored: Any, settings: Settings, state: tuple[int, int], now: Record | None) -> list[str]:
    """Raise ConfigError with the first differences between a checkpoint's records and this config; returns what
    differs and is allowed. state: the checkpoint's stage and step. now: the record of that stage, None after the last.
    """
    fix = "Take the old values, or choose another `out`."
    if not isinstance(stored, dict) or not isinstance(stored.get("stages"), list):  # pyright: ignore
        raise ConfigError(
            "the checkpoint does not tell with which settings it was trained", where=settings.out, fix=fix
        )
    found, allowed = list[str](), list[str]()
    stages: list[Record] = stored["stages"]
    if len(stages) > len(settings.stages):
        found.append(f"it had {len(stages)} stages or more, there are {len(settings.stages)}")
    for number, old in enumerate(stages[: len(settings.stages)]):
        stage = settings.stages[number]
        finished = number < state[0]
        new = settings_of(settings, number)
        for name in sorted(set(old["settings"]) | set(new)):
            one = old["settings"][name] if name in old["settings"] else _default(stage, name)
            other = new.get(name)
            if one == other:
                continue
            told = f"{name.replace('stage.', f'{stage.name}.')} was {one!r}, is {other!r}"
            if name in LENGTH and not finished and now is not None:
                longer = _may_be_longer(old, now, new, state[1])
                (allowed if longer else found).append(
                    told + ("" if longer else " in the midst of its schedule")
                )
            else:
                found.append(
                    told + (f" after the stage was finished ({old['steps']} steps)" if finished else "")
                )
        if not finished and now is not None:
            names = sorted(set(old["inputs"]) | set(now["inputs"]))
            found += [_other_input(n, old["inputs"], now["inputs"]) for n in names if _differ(n, old, now)]
            if old["bf16"] != now["bf16"]:
                names = {True: "bf16-mixed", False: "32-true"}
                found.append(f"precision was {names[old['bf16']]}, is {names[now['bf16']]}")
    if found:
        more = f"; {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(
            f"this run was begun otherwise: {'; '.join(found[:3])}{more}", where=settings.out, fix=fix
        )
    if stored.get("commit") != commit():
        allowed.append(f"the code was {stored.get('commit')}, is {commit()}")
    return allowed


def _differ(name: str, old: Record, now: Record) -> bool:
    return old["inputs"].get(name) != now["inputs"].get(name)


def _other_input(name: str, old: dict[str, str], now: dict[str, str]) -> str:
    if name not in old:
        return f"{name} was not given"
    return f"{name} is no longer given" if name not in now else f"what {name} names has another content"


def _may_be_longer(old: Record, now: Record, new: dict[str, Any], step: int) -> bool:
    """While the rate stands still, the length of what is to come is nowhere in the numbers."""
    return new.get("stage.schedule") == "step" and step <= min(r["steps"] - r["low"] for r in (old, now))


def _default(stage: Any, name: str) -> Any:
    """Of a setting that an older version did not know."""
    table: Any = stage if name.startswith("stage.") else Settings
    for part in name.removeprefix("stage.").split("."):
        field = {f.name: f for f in fields(table)}.get(part) if is_dataclass(table) else None
        if field is None:
            return None
        table = field.default if field.default_factory is MISSING else field.default_factory()
        if table is MISSING:
            return None
    return json.loads(json.dumps(table, default=str))


def write_config(out: Path, settings: Settings, records: list[Record]) -> None:
    """out/config.json: the resolved settings, commit, versions, and each stage's record."""
    told = {**made_by(), "settings": to_dict(settings), "stages": records}
    atomic_write(out / FILE, json.dumps(told, indent=1) + "\n")


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
    """Dotted names; a list of tables is one by one, by number."""
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):  # pyright: ignore
            found |= _flat({str(i): item for i, item in enumerate(value)}, f"{before}{name}.")  # pyright: ignore
        else:
            found[before + name] = value
    return found
