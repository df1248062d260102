"""Staging folders: a result is written in one completely before it is renamed.

A staging folder is recognised by its claim, a file that is written first and names the folder. A run that is killed
leaves its folder behind; the next run of the same name takes it over.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.io import LOCK, flush, folder_lock, read_bytes, reason, refuse_foreign_lock

STAGING = ".dpmesh-part"
"""Suffix of a staging folder's name; inside an existing result folder it is the whole name."""
CLAIM = ".dpmesh.part"
"""File that marks a staging folder."""

IsOwnFile = Callable[[str], bool]
"""Whether a file of this name may be written, and removed, in a claimed folder."""


def staging_path(target: Path) -> Path:
    """The staging folder of a result, one per name; two processes cannot hold it at once."""
    name = f".{target.name}{STAGING}"
    if len(os.fsencode(name)) > 200:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:20]}{STAGING}"
    return target.with_name(name)


def claim_of(part: Path) -> bytes:
    """Content of a staging folder's claim."""
    return (
        b"dpmesh: an unfinished result, "
        + hashlib.sha256(os.fsencode(part.name)).hexdigest().encode()
        + b"\n"
    )


def folders_below(out: Path) -> Iterator[Path]:
    """Every folder below `out` at any depth, sorted, without staging folders. Links are listed but not entered.

    Raises InputError for a folder that cannot be read: a result in it would be missing without notice.
    """

    def fail(error: OSError) -> None:
        where = os.fsdecode(error.filename or out)
        raise InputError(f"the folder cannot be read ({reason(error)})", where=where) from None

    below: list[Path] = []
    for place, folders, _ in os.walk(out, onerror=fail):
        folders[:] = [name for name in folders if not _is_staging(Path(place, name))]
        below += [Path(place, name) for name in folders]
    yield from sorted(below)


def _is_staging(folder: Path) -> bool:
    """By its claim, not by its name alone: the result of `a.dpmesh-part.jpg` has such a name too."""
    return folder.name.endswith(STAGING) and _claim(folder) == claim_of(folder)


def _foreign(part: Path, is_own: IsOwnFile) -> Path | None:
    """A file that shows that a staging folder is not of this package; None where it is, or is empty or missing.

    Raises OSError where it cannot be read.
    """
    if not os.path.lexists(part):
        return None
    if part.is_symlink() or not part.is_dir():
        return part
    names = set(os.listdir(part))
    if LOCK in names:
        try:
            refuse_foreign_lock(part)
        except OutputError:
            return part / LOCK
    names -= {LOCK}
    if not names:
        return None  # killed before the claim
    claim = _claim(part)
    if claim == claim_of(part):
        return next((part / name for name in sorted(names - {CLAIM}) if not is_own(name)), None)
    if names == {CLAIM} and claim == b"":  # killed while it was written
        return None
    return part / sorted(names)[0]


def _claim(part: Path) -> bytes | None:
    if (part / CLAIM).is_symlink():
        return None
    try:
        return read_bytes(part / CLAIM, 1000)
    except DPMeshError:
        return None


@contextmanager
def staging_folder(part: Path, is_own: IsOwnFile) -> Generator[Path]:
    """An empty folder that this process alone writes to; deleted afterwards.

    If the caller renames it, its CLAIM and LOCK are the caller's to remove. Files of a killed run are removed by name.
    Raises OutputError for a folder that is not of this package, and leaves it unchanged.
    """
    refuse_staging(part, is_own)  # before a lock is put into it
    with folder_lock(part, "run"):
        refuse_staging(part, is_own)
        write_files(part, {CLAIM: claim_of(part)})
        _clear(part, is_own)
        inode = part.stat().st_ino
        try:
            yield part
        finally:
            with suppress(OSError):
                if part.stat().st_ino == inode:  # neither renamed nor taken over
                    _clear(part, is_own)
                    for name in (CLAIM, LOCK):
                        (part / name).unlink(missing_ok=True)
                    part.rmdir()


def refuse_staging(part: Path, is_own: IsOwnFile) -> None:
    """Raise OutputError for a staging folder that is not of this package."""
    try:
        foreign = _foreign(part, is_own)
    except OSError as error:
        raise OutputError(f"cannot be read ({reason(error)})", where=str(part), fix="Move it.") from None
    if foreign is not None:
        what = "is a link and" if foreign.is_symlink() else "was not written by dpmesh and is"
        raise OutputError(f"{what} in the way", where=str(foreign), fix="Move it.")


def _clear(part: Path, is_own: IsOwnFile) -> None:
    for name in os.listdir(part):
        if name not in (CLAIM, LOCK) and is_own(name):
            (part / name).unlink()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and flush them to the disk."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
        flush(folder / name)
