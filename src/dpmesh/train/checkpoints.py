"""A run's two checkpoints, written to a temporary file and renamed; a torn one is detected and skipped."""

import logging
import os
import pickle
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dpmesh.checkpoint import CONFIG, WEIGHTS
from dpmesh.errors import ConfigError, OutputError
from dpmesh.io import atomic_path, is_part, reason

State = dict[str, Any]
"""stage, step, record (train/record.py); and within a stage objective, optimizer, average, random, frozen
(train/resume.py)."""

LAST, BEFORE = "last.ckpt", "before.ckpt"

log = logging.getLogger("dpmesh.train")


def save_checkpoint(out: Path, state: State) -> None:
    """Write last.ckpt, and rename the previous one to before.ckpt. Killed at any instant, one of the two is intact.

    Raises OutputError where the system refuses (no space); both files are then unchanged.
    """
    last = out / LAST
    with atomic_path(last) as part:
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())  # before the older one gives up its name
        except RuntimeError as error:  # torch's writer hides the system's error
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise OutputError(
                f"the checkpoint cannot be written ({_line(error)})", where=str(last), fix="Make room."
            ) from error
        if last.is_file():
            os.replace(last, out / BEFORE)


def latest_checkpoint(out: Path) -> State | None:
    """The newest intact checkpoint, None without any; raises ConfigError where all are torn."""
    path = whole_checkpoint(out)
    return None if path is None else read_checkpoint(path)


def whole_checkpoint(out: Path) -> Path | None:
    """The newest file with right checksums, None without any; raises ConfigError where all are torn."""
    torn: list[Path] = []
    for path in (out / LAST, out / BEFORE):
        if not path.is_file():
            continue
        try:
            _check(path)
        except _TornError as error:
            log.warning("%s is torn (%s)", path, error)
            torn.append(path)
            continue
        if torn:
            log.warning("resuming from %s", path)
        return path
    if torn:
        raise ConfigError(
            "every checkpoint is torn",
            where=str(out),
            fix=f"Delete {LAST} and {BEFORE} to start again, or choose another `out`.",
        )
    return None


def read_checkpoint(path: Path) -> State:
    """Load a checkpoint. Tensors are memory-mapped, so that the processes of a machine share one copy; only tensors and
    plain values are unpickled. Raises ConfigError for a file that is no checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {**state, "stage": int(state["stage"]), "step": int(state["step"])}
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        MemoryError,
        ArithmeticError,
        struct.error,
        pickle.UnpicklingError,
    ) as error:
        raise ConfigError(
            f"this is no checkpoint of a training ({_line(error)})",
            where=str(path),
            fix=f"Delete {LAST} and {BEFORE} to start again, or choose another `out`.",
        ) from None


class _TornError(Exception):
    """The file is not as it was written."""


def _check(path: Path) -> None:
    """torch.save's files are zip archives with a checksum for each member."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:
                raise _TornError(f"the checksum of {member} is wrong")
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError) as error:
        raise _TornError(_line(error)) from error


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def replace_weights(new: Path, folder: Path) -> None:
    """Put a folder of weights in the place of another. Killed at any instant, one of the two is whole.

    Raises OutputError.
    """
    before = folder.with_name(f".{folder.name}.before")
    try:
        _remove(before)
        with suppress(FileNotFoundError):
            folder.rename(before)
        new.rename(folder)
        _remove(before)
    except OSError as failure:
        raise OutputError(f"cannot be written ({reason(failure)})", where=str(folder)) from failure


def _remove(folder: Path) -> None:
    """The two files of weights, what a killed run left of them, and the folder, which must hold nothing else."""
    if folder.is_dir():
        for path in list(folder.iterdir()):
            if any(path.name == name or is_part(path.name, name) for name in (CONFIG, WEIGHTS)):
                path.unlink()
        folder.rmdir()
