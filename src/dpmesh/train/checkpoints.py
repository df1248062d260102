"""Where a training stands, on disk: two checkpoints, written aside and renamed; a torn one is seen and passed over."""

import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from dpmesh.errors import ConfigError, OutputError

State = dict[str, Any]
"""stage, step; and in the midst of a stage objective, optimizer, average, random (train/run.py)."""

LAST, BEFORE = "last.ckpt", "before.ckpt"

log = logging.getLogger("dpmesh.train")


def save_checkpoint(out: Path, state: State) -> None:
    """last.ckpt, and what it was until now as before.ckpt. Killed at any instant, one of the two is whole."""
    part = out / f"{LAST}.part"
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if (out / LAST).is_file():
            os.replace(out / LAST, out / BEFORE)
        os.replace(part, out / LAST)
    except OSError as error:
        raise OutputError(f"the checkpoint cannot be written ({error})", where=str(part)) from error


def latest_checkpoint(out: Path) -> State | None:
    """The newest whole one, None where there is none; raises ConfigError where all are torn."""
    torn: list[Path] = []
    for path in (out / LAST, out / BEFORE):
        if not path.is_file():
            continue
        try:
            state = _read(path)
        except _TornError as error:
            log.warning("%s is torn (%s)", path, error)
            torn.append(path)
            continue
        if torn:
            log.warning("going on from %s", path)
        return state
    if torn:
        raise ConfigError(
            "every checkpoint is torn", where=str(out), fix=f"Delete {LAST} and {BEFORE} to begin anew."
        )
    return None


class _TornError(Exception):
    """Not what was written."""


def _read(path: Path) -> State:
    """torch.save's files are zip archives with a checksum for each member."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:
                raise _TornError(f"the checksum of {member} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError) as error:
        raise _TornError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
