"""Result folders: all files of one image appear at once or not at all, and no file of the user is ever changed.

A new result is written in a staging folder, which is renamed when it is complete; the system refuses to rename it over
anything but an empty folder. An existing folder is changed in place only if it has a record (inference/record.py), and
only in the files that the record names.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from dpmesh.errors import OutputError
from dpmesh.inference.record import FIXED, MARKER, Record, complete_formats, format_of, read_record, unlike
from dpmesh.inference.staging import CLAIM, STAGING, refuse_staging, staging_folder, staging_path, write_files
from dpmesh.io import LOCK, atomic_write, folder_lock, reason, refuse_foreign_lock

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Plan:
    """How one result is written. formats: to compute; none for "keep".

    before: the record of the existing result; None without one, or for an empty folder.
    """

    kind: Literal["new", "fill", "keep", "add", "replace"]
    formats: tuple[str, ...]
    before: Record | None = None


def folder_name(source: str) -> str:
    """The result folder's name for an image file: its stem, or its whole name where the stem is empty ("..jpg")."""
    path = Path(source)
    return next((name for name in (path.stem, path.name) if name.strip(".")), "")


def plan_result(target: Path, wanted: Record, overwrite: bool) -> Plan:
    """How a result with the record `wanted` is written at `target`; nothing is computed or written.

    Raises OutputError where `target` is not a result of this package, or another result and `overwrite` is off.
    """
    _check_name(target)
    if not os.path.lexists(target):
        refuse_staging(staging_path(target), _is_own)
        return Plan("new", wanted.formats)
    if not target.is_dir():
        kind = "is a link that leads nowhere" if target.is_symlink() and not target.exists() else "is a file"
        raise OutputError(f"{kind}, not a result of dpmesh", where=str(target), fix=_ELSEWHERE)
    try:
        inside = os.listdir(target)
        if not [name for name in inside if name not in (LOCK, STAGING)]:
            _refuse_reserved(target)
            return Plan("fill", wanted.formats)
        before = read_record(target)
    except OSError as error:
        raise OutputError(f"cannot be read ({reason(error)})", where=str(target), fix=_ELSEWHERE) from None
    if before is None:
        raise OutputError("is not known to be a result of dpmesh", where=str(target), fix=_ELSEWHERE)
    if before.verb != wanted.verb:
        raise OutputError(
            f"holds a result of `dpmesh {before.verb}`", where=str(target), fix="Choose another folder."
        )
    plan = _plan(target, before, wanted, overwrite)
    refuse_foreign(target, before, [file for name in plan.formats for file in FIXED[name]])
    if plan.kind != "keep":
        _refuse_reserved(target)
    return plan


def _plan(target: Path, before: Record, wanted: Record, overwrite: bool) -> Plan:
    unfinished = [name for name in map(format_of, before.pending) if name is not None]
    if overwrite:
        return Plan("replace", _ordered([*wanted.formats, *before.formats, *unfinished]), before)
    if different := unlike(before, wanted):
        raise OutputError(different, where=str(target), fix=_OVERWRITE)
    there = complete_formats(before, target)
    missing = _ordered([*(name for name in wanted.formats if name not in there), *unfinished])
    if missing and before.version != wanted.version:
        raise OutputError(
            f"holds a result of version {before.version or 'unknown'}, this is {wanted.version}",
            where=str(target),
            fix=_OVERWRITE,
        )
    return Plan("add" if missing else "keep", missing, before)


_OVERWRITE = "Use --overwrite (in Python overwrite=True) or another folder."
_ELSEWHERE = "It stays as it is: choose another folder for the results, or move it."


def _ordered(formats: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in FIXED if name in formats)


def _check_name(target: Path) -> None:
    name = target.name
    if not name.strip(".") or "\0" in name or name == STAGING:
        raise OutputError("is no name for a result's folder", where=str(target), fix="Give another name.")


def refuse_foreign(target: Path, before: Record | None, files: Sequence[str]) -> None:
    """Raise OutputError for a file of these names that the record does not name, or that has become a folder."""
    owned = before.owned if before else frozenset[str]()
    for name in files:
        path = target / name
        if os.path.lexists(path) and (name not in owned or (path.is_dir() and not path.is_symlink())):
            raise OutputError(
                "was not written by dpmesh and is in the way", where=str(path), fix="Move it first."
            )


def write_result(
    out: Path,
    name: str,
    wanted: Record,
    make: Callable[[tuple[str, ...]], Files],
    overwrite: bool = False,
) -> Path:
    """Write `out/name/` as planned by plan_result; returns it. make: computes the files of some formats.

    An equal result is kept, and formats that it lacks are added; with `overwrite` its formats and the wanted ones are
    all computed anew. Raises OutputError as plan_result, and where the system refuses to write.
    """
    if name != os.path.basename(name) or not name.strip("."):  # pathlib would take "." for the parent
        raise OutputError("is no name for a result's folder", where=name, fix="Give a name without a path.")
    target = out / name
    for _ in range(3):
        plan = plan_result(target, wanted, overwrite)
        if plan.kind == "keep":
            return target
        files = make(plan.formats)
        record = replace(wanted, formats=plan.formats, files=tuple(sorted(files)))
        try:
            done = (
                _create(target, files, record) if plan.kind == "new" else _change(target, files, record, plan)
            )
        except (OSError, ValueError) as error:
            fix = "Choose another folder, or make room."
            raise OutputError(f"cannot be written ({reason(error)})", where=str(target), fix=fix) from error
        if done:
            return target
    raise OutputError("other runs are writing here", where=str(target), fix="Wait for them.")


def _create(target: Path, files: Files, record: Record) -> bool:
    """Write in a staging folder and rename it; False where `target` was created meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(staging_path(target), _is_own) as part:
        write_files(part, {**files, MARKER: record.as_bytes()})
        try:
            os.rename(part, target)
        except OSError:
            if os.path.lexists(target):
                return False
            raise
        for name in (CLAIM, LOCK):
            with suppress(OSError):  # the lock is still held, so no other process writes here
                (target / name).unlink()
    return True


def _change(target: Path, files: Files, record: Record, plan: Plan) -> bool:
    """Write files into an existing folder; False where it changed since it was planned.

    While files are replaced the record names them as pending, so the next run finishes what a killed run left.
    """
    locked = os.path.lexists(target / LOCK)
    with folder_lock(target, "run"), _without_lock(target, locked):
        before = read_record(target)
        if before != plan.before:
            return False
        refuse_foreign(target, before, list(files))
        owned = before.owned if before else frozenset[str]()
        adding = before is not None and plan.kind == "add"
        old = [name for name in before.files if name not in files] if before and adding else []
        stale = owned - set(files) - set(old)
        formats = _ordered([*record.formats, *before.formats]) if before and adding else record.formats
        colour = (before.colour if before and adding else "") or record.colour
        plane = (before.plane if before and adding else "") or record.plane
        # A format that is computed again (its file was deleted) is not complete until then.
        kept = (
            tuple(name for name in before.formats if name not in record.formats) if before and adding else ()
        )
        final = replace(
            record, formats=formats, files=tuple(sorted({*files, *old})), colour=colour, plane=plane
        )
        with staging_folder(target / STAGING, _is_own) as part:
            write_files(part, files)
            pending = tuple(sorted({*files, *stale}))
            unfinished = replace(final, formats=kept, files=tuple(sorted(old)), pending=pending)
            atomic_write(target / MARKER, unfinished.as_bytes())
            for name in files:
                os.replace(part / name, target / name)
            for name in stale:
                (target / name).unlink(missing_ok=True)
            atomic_write(target / MARKER, final.as_bytes())
        with suppress(OSError):
            (target / LOCK).unlink()  # the lock is still held, so no other process writes here
    return True


@contextmanager
def _without_lock(target: Path, was_there: bool) -> Generator[None]:
    """If writing is refused, remove the lock, unless it was there before."""
    try:
        yield
    except OutputError:
        if not was_there:
            with suppress(OSError):
                (target / LOCK).unlink()
        raise


def _refuse_reserved(target: Path) -> None:
    refuse_foreign_lock(target)
    refuse_staging(target / STAGING, _is_own)


def _is_own(name: str) -> bool:
    return name == MARKER or format_of(name) is not None


def png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Of an RGB image. Quick: two thirds of the time of OpenCV's level 1 alone, for the same bytes."""
    import cv2  # here: slow to import

    quick = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
    made, file = cv2.imencode(".png", image[..., ::-1], quick)
    assert made
    return file.tobytes()
