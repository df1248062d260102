"""A result's folder: whose it is, what in it may be replaced, whether a finished result is the one that is asked for.

Only files that this package names are ever written or removed, and only where what lies there is ours.
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
from dpmesh.evaluate.names import line
from dpmesh.evaluate.registry import data_files, entry
from dpmesh.evaluate.report import LARGEST, RESULT, ROWS, TEXT, read
from dpmesh.evaluate.results import load
from dpmesh.evaluate.runner import PARTS, Job, Say, plain, weights_record
from dpmesh.io import LOCK, folder_lock, open_regular, read_bytes, reason

WORST = "worst"
_OWN = {
    PARTS: re.compile(r"part-\d{5}\.npz|\.part-\d{5}\.npz\.[0-9a-f]{8}\.part"),
    WORST: re.compile(r"\d\d_.*\.jpg|\.\d\d_.*\.[0-9a-f]{8}\.part"),
}
MARK = b"dpmesh eval: one of the worst persons"
"""Comment of the pictures of the worst: a picture without it is somebody's own, whatever it is called."""
_ELSEWHERE = "Choose another --out."


def kept(job: Job, overwrite: bool, say: Say) -> bool:
    """Whether a finished result is there that is `job`'s. Raises InputError for one that is another's."""
    if overwrite or not os.path.lexists(job.folder / RESULT):
        return False
    if differs := differences(job, read(job.folder / RESULT)):
        raise InputError(
            f"the result that is there was made with other {' and '.join(differs)}",
            where=str(job.folder / RESULT),
            fix="Choose another --out, or --overwrite.",
        )
    say(f"{line(job.protocol)}: done before, kept (--overwrite makes it again)")
    return True


def differences(job: Job, found: dict[str, Any]) -> list[str]:
    """In what a result differs from what `job` would make: protocol, weights, method, body, limit, data.

    The data is compared where it is given; batch, processes and device decide no more than the last digits.
    """
    asked, run = plain(job), found["run"]
    one = entry(job.protocol)
    differs = ["protocol"] if one.protocol.hash != found["protocol"]["hash"] else []
    if run.get("method", "network") != job.method:
        differs.append("method")
    wanted, there = weights_record(job), found["weights"]
    same_config = "config_sha256" not in there or there["config_sha256"] == wanted["config_sha256"]
    if there["sha256"] != wanted["sha256"] or not same_config:
        return [*differs, "weights"]  # what follows would need them
    differs += [name for name in ("limit",) if run.get(name) != asked[name]]
    same_words = all(run.get(name) == asked[name] for name in ("body", "regressors"))
    try:
        chosen = choose_body(job.weights, job.body, job.regressors)
        if (json.loads(json.dumps(dict(chosen.record))) or "the free body") != there.get("body"):
            differs.append("body")
    except DPMeshError:
        if same_words:
            raise
        differs.append("body")
    if job.data is not None and (files := data_files(one, job.data)) is not None:
        differs += ["data"] if files != found["data"]["files"] else []
    return differs


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Only one evaluation at a time works here. Folders that were made for it and in which nothing was left do not
    stay."""
    new = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    with folder_lock(folder, "evaluation"):
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                with suppress(OSError):
                    (folder / LOCK).unlink()
                    for place in new:
                        place.rmdir()


def prepare(job: Job, overwrite: bool, say: Say) -> None:
    """Make the folder ready for a run that begins or goes on; raises InputError where something in it is not ours."""
    folder = job.folder
    if kept(job, overwrite, say):  # by a run that ended while we waited
        return
    refuse_foreign(folder)
    if overwrite:
        for inner in (PARTS, WORST):
            clear(folder, inner)
        (folder / RESULT).unlink(missing_ok=True)


def refuse_foreign(folder: Path) -> None:
    """Raise InputError for a file of a result's name that no evaluation wrote, and for a folder in which other things
    lie and nothing of ours, before anything is written, replaced or removed."""
    for inner, own in _OWN.items():
        place = folder / inner
        others = [p.name for p in place.iterdir() if not _is_own(p, own)] if place.is_dir() else []
        if others or (place.exists() and not place.is_dir()):
            raise InputError(
                f"holds {sorted(others)[0]!r}, which no evaluation wrote" if others else "is no folder",
                where=str(place),
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
    """Raise InputError for a folder that is not empty and has neither a part of a run nor the lock of one. The lock
    is left in no folder that this refuses, so that of a run killed before its first part is enough."""
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
    """Whether it is a result of any version."""
    try:
        found = json.loads(read_bytes(path, LARGEST))
    except (DPMeshError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"format", "protocol", "figures"} <= set(found)


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
    """Remove our files from a folder inside, and it, where nothing else lies there."""
    place = folder / inner
    if place.is_dir():
        for path in place.iterdir():
            if _is_own(path, _OWN[inner]):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            place.rmdir()
