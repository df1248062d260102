"""Training configs from TOML files and from the command line's changes."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import tomllib
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from dpmesh.ablations import configuration
from dpmesh.config import DPMeshConfig
from dpmesh.config_io import from_dict
from dpmesh.data.augment import AugmentConfig
from dpmesh.errors import ConfigError
from dpmesh.io import read_bytes
from dpmesh.losses import LossWeights
from dpmesh.profiling import check_buildable
from dpmesh.train.config import TABLES, Data, Settings, TrainingSource
from dpmesh.train.stages import AnyStage, Stage

LARGEST_CONFIG = 2**20
"""Bytes of a training config."""


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
    _refuse_renamed(data, str(path))
    for stage in _stages_of(data, str(path)):
        if "kind" not in stage:
            raise ConfigError(f"the stage {stage.get('name')!r} has no kind", where=str(path))
    return from_dict(Settings, data, where=str(path))


RENAMED = {
    "clip": "max_grad_norm",
    "ema": "ema_decay",
    "checkpointing": "activation_checkpointing",
    "sheet_every": "preview_every",
    "data.people": "overfit_people",
    "data.augment.drop": "p_drop_joint",
    "data.augment.drop_hidden": "p_drop_covered",
    "data.augment.flip": "p_flip",
    "data.augment.rectangle": "p_rectangle",
    "data.augment.rotation_chance": "p_rotate",
    "data.augment.shapes": "p_shapes",
    "stages.backbone_rate": "backbone_lr_factor",
    "stages.drop": "p_drop_joint",
    "stages.hiding": "hiding_weight",
    "stages.latent": "latent_weight",
    "stages.low": "decay_steps",
    "stages.no_features": "p_drop_image",
    "stages.reconstruction": "reconstruction_weight",
    "stages.rehearsal": "keypoint_batch",
    "stages.scrambled": "p_shuffle_image",
    "stages.smooth": "p_unquantised",
    "stages.source": "kind",
    "stages.warmup": "warmup_steps",
}
"""Former names of settings, dotted, and what each is called now."""


def _refuse_renamed(data: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for the first setting under a former name."""
    for old, new in RENAMED.items():
        *path, last = old.split(".")
        tables: list[Any] = [data]
        for name in path:
            inner: list[Any] = [table.get(name) for table in tables if isinstance(table, Mapping)]
            tables = [
                item for one in inner for item in (cast("list[Any]", one) if isinstance(one, list) else [one])
            ]
        if any(isinstance(table, Mapping) and last in table for table in tables):
            raise ConfigError(
                f"{old} is now called {new}", where=where, fix=f"Write {new} instead of {last}."
            )


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
    """Set one value by its dotted name; from_dict checks name and value."""
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
    """A value as in TOML (3, 1e-3, true, ["a"]); anything else is a string."""
    try:
        return tomllib.loads(f"value = {word}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return word


def list_settings() -> Iterator[str]:
    """Every setting with its type, default and docstring, as lines of text, a heading for each table."""
    common = {field.name for field in dataclasses.fields(Stage)}
    yield from _listed("the file", Settings)
    yield from _listed("[data]", Data)
    yield from _listed("each of data.group3d, data.group2d, data.validation", TrainingSource)
    yield from _listed("[data.augment]", AugmentConfig)
    yield from _listed("[losses]", LossWeights)
    yield from _listed("every [[stages]]", Stage)
    for kind in typing.get_args(AnyStage):
        yield from _listed(f'[[stages]] of kind = "{kind.kind}"', kind, common | {"kind"})


def field_docs(kind: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass, those of its bases not among them."""
    body = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    return {
        field.target.id: " ".join(doc.value.value.split())
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


def _listed(heading: str, kind: type, without: Collection[str] = ()) -> Iterator[str]:
    docs = field_docs(kind)
    yield f"{heading}: {' '.join((inspect.getdoc(kind) or '').split())}"
    for field in dataclasses.fields(kind):
        if field.name in without:
            continue
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        yield f"  {field.name}{default}{' (required)' if needed else ''}"
        if field.name in docs:
            yield from textwrap.wrap(
                docs[field.name], 100, initial_indent="      ", subsequent_indent="      "
            )
    yield ""
