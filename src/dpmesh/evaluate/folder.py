"""A result's folder: which files in it are ours, and whether a finished result is the requested one.

Only files that this package names are written or removed, and only where an evaluation wrote them.
"""

import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dpmesh.body.resolve import choose_body
from dpmesh.errors import DPMeshError, InputError
from dpmesh.evaluate.checks import one_line
from dpmesh.evaluate.evaluation import EvaluationConfig, Say, weights_checksums
from dpmesh.evaluate.registry import data_files, entry
from dpmesh.evaluate.report import LARGEST, RESULT, ROWS, TEXT, read
from dpmesh.evaluate.results import load
from dpmesh.io import LOCK, folder_lock, open_regular, read_bytes, reason

PARTS, WORST = "parts", "worst"
_OWN = {
    PARTS: re.compile(r"part-\d{5}\.npz|\.part-\d{5}\.npz\.[0-9a-f]{8}\.part"),
    WORST: re.compile(r"\d\d_.*\.jpg|\.\d\d_.*\.[0-9a-f]{8}\.part"),
}
MARK = b"dpmesh eval: one of the worst persons"
"""Comment of the JPEGs in worst/. A JPEG without it is the user's own, whatever its name."""
_ELSEWHERE = "Choose another --out."


def is_finished(config: EvaluationConfig, overwrite: bool, say: Say) -> bool:
    """Whether a finished result of `config` is kept. Raises InputError for the result of another configuration."""
    if overwrite or not os.path.lexists(config.folder / RESULT):
        return False
    if differs := differences(config, read(config.folder / RESULT)):
        raise InputError(
            f"the existing result was made with other {' and '.join(differs)}",
            where=str(config.folder / RESULT),
            fix="Choose another --out, or --overwrite.",
        )
    say(f"{one_line(config.protocol)}: already done, kept (--overwrite runs it again)")
    return True


def differences(config: EvaluationConfig, stored: dict[str, Any]) -> list[str]:
    """In which respects a stored result differs from what `config` would give: protocol, weights, method, body,
    limit, data.

    The data is compared if config.data is set. Batch size, processes and device change the last digits only.
    """
    wanted_run, run = config.record(), stored["run"]
    registered = entry(config.protocol)
    differs = ["protocol"] if registered.protocol.hash != stored["protocol"]["hash"] else []
    if run.get("method", "network") != config.method:
        differs.append("method")
    wanted, weights = weights_checksums(config), stored["weights"]
    same_config = "config_sha256" not in weights or weights["config_sha256"] == wanted["config_sha256"]
    if weights["sha256"] != wanted["sha256"] or not same_config:
        return [*differs, "weights"]  # the body depends on the weights
    differs += [name for name in ("limit",) if run.get(name) != wanted_run[name]]
    same_words = all(run.get(name) == wanted_run[name] for name in ("body", "regressors"))
    try:
        chosen = choose_body(config.weights, config.body, config.regressors)
        if (json.loads(json.dumps(dict(chosen.record))) or "the free body") != weights.get("body"):
            differs.append("body")
    except DPMeshError:
        if same_words:
            raise
        differs.append("body")
    if config.data is not None and (files := data_files(registered, config.data)) is not None:
        differs += ["data"] if files != stored["data"]["files"] else []
    return differs


@contextmanager
def exclusive(folder: Path) -> Generator[None]:
    """Lock a folder for one evaluation. Folders created for it are removed if nothing was written."""
    new = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    with folder_lock(folder, "evaluation"):
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                with suppress(OSError):
                    (folder / LOCK).unlink()
                    for path in new:
                        path.rmdir()


def prepare(config: EvaluationConfig, overwrite: bool, say: Say) -> None:
    """Make the folder ready for a run that starts or continues. Raises InputError for files that are not ours."""
    folder = config.folder
    if is_finished(config, overwrite, say):  # by a run that ended while this one waited for the lock
        return
    refuse_foreign(folder)
    if overwrite:
        for inner in (PARTS, WORST):
            clear(folder, inner)
        (folder / RESULT).unlink(missing_ok=True)


def refuse_foreign(folder: Path) -> None:
    """Raise InputError for a file with the name of one of ours that no evaluation wrote, and for a folder that holds
    other files and none of ours. Call it before anything is written, replaced or removed."""
    for inner, own in _OWN.items():
        subfolder = folder / inner
        others = [p.name for p in subfolder.iterdir() if not _is_own(p, own)] if subfolder.is_dir() else []
        if others or (subfolder.exists() and not subfolder.is_dir()):
            raise InputError(
                f"holds {sorted(others)[0]!r}, which no evaluation wrote" if others else "is no folder",
                where=str(subfolder),
                fix=_ELSEWHERE,
            )
    if (folder / RESULT).exists():
        if not _is_result(folder / RESULT):
            raise InputError("was not written by dpmesh eval", where=str(folder / RESULT), fix=_ELSEWHERE)
        return
    if (folder / ROWS).exists():
        load(folder / ROWS)
    elif (folder / TEXT).exists():
        raise InputError("was not written by dpmesh eval", where=str(folder / TEXT), fix=_ELSEWHERE)
    else:
        _refuse_strangers(folder)


def _refuse_strangers(folder: Path) -> None:
    """Raise InputError for a folder that is not empty and has neither a part of a run nor its lock. No lock is ever
    left in a refused folder, so the lock of a run killed before its first part is enough."""
    try:
        inside = sorted(path.name for path in folder.iterdir()) if os.path.lexists(folder) else []
    except OSError as error:
        raise InputError(f"cannot be read ({reason(error)})", where=str(folder), fix=_ELSEWHERE) from None
    ours = LOCK in inside or any(
        (folder / inner).is_dir() and any((folder / inner).iterdir()) for inner in _OWN
    )
    if inside and not ours:
        raise InputError(
            f"holds {inside[0]!r} and no result of dpmesh eval", where=str(folder), fix=_ELSEWHERE
        )


def _is_result(path: Path) -> bool:
    """Whether it is a result.json of any version."""
    try:
        content = json.loads(read_bytes(path, LARGEST))
    except (DPMeshError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"format", "protocol", "figures"} <= set(content)


def _is_own(path: Path, names: re.Pattern[str]) -> bool:
    if not names.fullmatch(path.name):
        return False
    if path.suffix == ".part":  # of an atomic write: eight random digits
        return True
    try:
        if path.suffix == ".npz":
            load(path)
            return True
        with open_regular(path) as file:
            return MARK in file.read(1024)
    except (DPMeshError, OSError):
        return False


def clear(folder: Path, inner: str) -> None:
    """Remove our files from a subfolder, and the subfolder if it is then empty."""
    subfolder = folder / inner
    if subfolder.is_dir():
        for path in subfolder.iterdir():
            if _is_own(path, _OWN[inner]):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            subfolder.rmdir()
