"""A run's folder: nothing is written into one that holds something else than a training."""

import os
from pathlib import Path

from dpmesh.errors import ConfigError, DPMeshError, OutputError
from dpmesh.io import LOCK, is_part, read_json, reason
from dpmesh.train.checkpoints import BEFORE, LAST
from dpmesh.train.recipe import FILE

_CHECKPOINTS = (LAST, BEFORE)  # what they hold is looked at when they are read
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
        found = read_json(path)
    except DPMeshError:
        return False
    return isinstance(found, dict) and set(found) >= _KEYS
