"""A video's staging folder: the recording of a run that is not finished, and its result until it is complete.

It lies next to the result (inference/staging.py) and holds the recording's files, `result` while that is written, and
`replaced` while an earlier result is exchanged. A killed run leaves it behind.
"""

import hashlib
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dpmesh.errors import OutputError
from dpmesh.inference.options import differences, file_sha256
from dpmesh.inference.staging import CLAIM, claim_of, refuse_staging, staging_path, write_files
from dpmesh.io import LOCK, folder_lock, is_part, reason
from dpmesh.video.files import is_result
from dpmesh.video.recording import ROWS, STATE, Recording, stored
from dpmesh.video.tables import TEXT, read_text
from dpmesh.video.tracks import INTERRUPTED

RESULT, REPLACED = "result", "replaced"
_FILES = (ROWS, STATE, RESULT, REPLACED)


def input_record(source: str) -> dict[str, Any]:
    """What a result was made of: a file's name and checksum, or of a folder that of its files' names and sizes. Of a
    camera or stream the name only. Raises InputError."""
    path = Path(source)
    if path.is_dir():
        listing = sorted(f"{p.name!r} {p.stat().st_size}" for p in path.iterdir() if p.is_file())
        return {"file": path.name, "sha256": hashlib.sha256("\n".join(listing).encode()).hexdigest()}
    return {"file": path.name, "sha256": file_sha256(path)} if path.is_file() else {"file": source}


def can_resume(target: Path, options: Mapping[str, Any]) -> bool:
    """Whether a run of the same options can go on. False where nothing is there to go on with, or the result is
    finished; raises OutputError where an unfinished one is of other options."""
    part = staging_path(target)
    if not (part / STATE).is_file():
        return False
    refuse_staging(part, _is_own)
    header = stored(part).get("header")
    _compare(
        header.get("options") if isinstance(header, dict) else None, options, target, "Leave --resume out"
    )
    return True


def is_finished(target: Path, options: Mapping[str, Any]) -> bool:
    """Whether a result is there and complete. Raises OutputError where it is of other options."""
    if not (target / TEXT).is_file() or (staging_path(target) / STATE).is_file():
        return False
    content = read_text(target)
    _compare(content.get("options"), options, target, "Add --overwrite")
    return not any(str(note).startswith(INTERRUPTED) for note in content.get("notes", ()))


def _compare(recorded: Any, options: Mapping[str, Any], target: Path, fix: str) -> None:
    changes = differences(recorded, options) if isinstance(recorded, dict) else ["which it does not record"]
    if changes:
        raise OutputError(
            f"was begun with other options ({'; '.join(changes)})",
            where=str(target),
            fix=f"{fix} to begin anew.",
        )


def _is_own(name: str) -> bool:
    return name in _FILES or any(is_part(name, own) for own in (ROWS, STATE))


@contextmanager
def unfinished(target: Path, options: Mapping[str, Any], resume: bool) -> Generator[tuple[Path, Recording]]:
    """The staging folder of a result, for this process alone, and its recording. It stays until `finish`.

    resume: go on with the recording there. Raises OutputError, InputError.
    """
    part = staging_path(target)
    refuse_staging(part, _is_own)
    with folder_lock(part, "video run"):
        refuse_staging(part, _is_own)
        if not resume:
            _clear(part)
        write_files(part, {CLAIM: claim_of(part)})
        recording = Recording(part, resume, {"options": dict(options)})
        try:
            yield part, recording
        finally:
            recording.close()


def publish(part: Path, target: Path) -> None:
    """Put the staged result in its place, in which an earlier result may be. Raises OutputError."""
    try:
        if target.exists():
            if any(target.iterdir()) and not is_result(target):
                raise OutputError(
                    "holds files that dpmesh did not write",
                    where=str(target),
                    fix="Move them, then add --resume.",
                )
            _remove(part / REPLACED)
            os.rename(target, part / REPLACED)
        os.rename(part / RESULT, target)
        _remove(part / REPLACED)
    except OSError as error:
        raise OutputError(f"cannot be written ({reason(error)})", where=str(target)) from None


def finish(part: Path) -> None:
    """Remove the staging folder of a complete result."""
    _clear(part)
    with suppress(OSError):
        for name in (CLAIM, LOCK):
            (part / name).unlink(missing_ok=True)
        part.rmdir()


def _clear(part: Path) -> None:
    for path in list(part.iterdir()):
        if _is_own(path.name):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
