"""A result folder: everything of one image appears at once, or not at all, and nothing of the user's is ever touched.

A new result is written in a folder aside, which is renamed when it is complete; the system refuses to rename it over
anything but an empty folder. An existing folder is changed in place, only where its record (pipeline/record.py) says
that it is ours, and only in the files that the record names.
"""

import hashlib
import io
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dpmesh.errors import OutputError
from dpmesh.io import LOCK, atomic_write, flush, folder_lock, reason
from dpmesh.pipeline.record import FIXED, MARKER, Record, complete_formats, format_of, read_record, unlike

PART = ".dpmesh-part"
"""Ends the name of the folder aside; inside an existing result folder it is the whole name."""

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Plan:
    """What is to be done for one result. formats: those to make; for "keep" none.

    before: what stands there, None where nothing does or an empty folder.
    """

    kind: Literal["new", "fill", "keep", "add", "replace"]
    formats: tuple[str, ...]
    before: Record | None = None


def folder_name(source: str) -> str:
    """The folder's name for an image by how it is named: the stem, the whole name where that is none ("..jpg")."""
    path = Path(source)
    return next((name for name in (path.stem, path.name) if name.strip(".")), "")


def plan_result(target: Path, wanted: Record, overwrite: bool) -> Plan:
    """What is to be done at `target` for a result like `wanted`, of its formats; costs no computation.

    Raises OutputError where something stands there that is not ours, or is another result and `overwrite` is off.
    """
    _check_name(target)
    if not os.path.lexists(target):
        return Plan("new", wanted.formats)
    if not target.is_dir():
        kind = "is a link that leads nowhere" if target.is_symlink() and not target.exists() else "is a file"
        raise OutputError(f"{kind}, not a result of dpmesh", where=str(target), fix=_ELSEWHERE)
    try:
        if not [name for name in os.listdir(target) if name not in (LOCK, PART)]:
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
    return plan


def _plan(target: Path, before: Record, wanted: Record, overwrite: bool) -> Plan:
    unfinished = [name for name in map(format_of, before.pending) if name is not None]
    if overwrite:
        return Plan("replace", _ordered([*wanted.formats, *before.formats, *unfinished]), before)
    if different := unlike(before, wanted):
        raise OutputError(different, where=str(target), fix="Use --overwrite or another folder.")
    there = complete_formats(before, target)
    missing = _ordered([*(name for name in wanted.formats if name not in there), *unfinished])
    if missing and before.version != wanted.version:
        raise OutputError(
            f"holds a result of version {before.version or 'unknown'}, this is {wanted.version}",
            where=str(target),
            fix="Use --overwrite or another folder.",
        )
    return Plan("add" if missing else "keep", missing, before)


_ELSEWHERE = "It stays as it is: choose another folder for the results, or move it."


def _ordered(formats: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in FIXED if name in formats)


def _check_name(target: Path) -> None:
    name = target.name
    if not name.strip(".") or "\0" in name or name == PART:
        raise OutputError("is no name for a result's folder", where=str(target), fix="Give another name.")


def refuse_foreign(target: Path, before: Record | None, files: Sequence[str]) -> None:
    """Raise OutputError for a file of these names that the record does not name, or that is a folder by now."""
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
    overwrite: bool = True,
) -> Path:
    """Write `out/name/` as planned by plan_result; returns it. make: the files of some formats; called only if needed.

    An equal result with all formats is kept, missing formats are added to it; with `overwrite` its formats and the
    wanted ones are all made anew. Raises OutputError as plan_result, and where the system refuses.
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
    """Write aside and rename; False where somebody made `target` meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _aside(_part_of(target)) as aside:
        _put(aside, {**files, MARKER: record.as_bytes()})
        try:
            os.rename(aside, target)
        except OSError:
            if os.path.lexists(target):
                return False
            raise
        with suppress(OSError):  # still held: nobody else is here
            (target / LOCK).unlink()
    return True


def _change(target: Path, files: Files, record: Record, plan: Plan) -> bool:
    """Bring files into an existing folder; False where it changed since it was planned.

    While files are exchanged the record names them as pending, so that a run which is killed here is finished by the
    next one.
    """
    with folder_lock(target, "run"):
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
        # A format that is being made again (its file was deleted) is not complete until it is.
        kept = (
            tuple(name for name in before.formats if name not in record.formats) if before and adding else ()
        )
        final = replace(record, formats=formats, files=tuple(sorted({*files, *old})), colour=colour)
        with _aside(target / PART) as aside:
            _put(aside, files)
            pending = tuple(sorted({*files, *stale}))
            unfinished = replace(final, formats=kept, files=tuple(sorted(old)), pending=pending)
            atomic_write(target / MARKER, unfinished.as_bytes())
            for name in files:
                os.replace(aside / name, target / name)
            for name in stale:
                (target / name).unlink(missing_ok=True)
            atomic_write(target / MARKER, final.as_bytes())
        with suppress(OSError):
            (target / LOCK).unlink()  # still held: nobody else is here
    return True


def _part_of(target: Path) -> Path:
    """The folder aside, one for each name; two processes cannot hold it at once."""
    name = f".{target.name}{PART}"
    if len(os.fsencode(name)) > 200:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:20]}{PART}"
    return target.with_name(name)


@contextmanager
def _aside(part: Path) -> Generator[Path]:
    """An empty folder that this process alone writes to; gone afterwards, unless it was renamed.

    What a killed run left in it is removed by name. Raises OutputError where anything else is in it.
    """
    if part.is_symlink():
        raise OutputError("is a link and in the way", where=str(part), fix="Move it.")
    with folder_lock(part, "run"):
        if strange := sorted(set(os.listdir(part)) - _leftovers(part) - {LOCK}):
            path = part / strange[0]
            raise OutputError("was not written by dpmesh and is in the way", where=str(path), fix="Move it.")
        _clear(part)
        ours = part.stat().st_ino
        try:
            yield part
        finally:
            with suppress(OSError):
                if part.stat().st_ino == ours:  # not renamed, and no other process's by now
                    _clear(part)
                    (part / LOCK).unlink(missing_ok=True)
                    part.rmdir()


def _leftovers(part: Path) -> set[str]:
    return {name for name in os.listdir(part) if name == MARKER or format_of(name) is not None}


def _clear(part: Path) -> None:
    for name in _leftovers(part):
        (part / name).unlink()


def _put(folder: Path, files: Files) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)
        flush(folder / name)


def png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Level 3 takes two fifths of the time of zlib's usual 6, for a few per cent more bytes of a photograph."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=3)
    return file.getvalue()
