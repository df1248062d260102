"""Files read and written, once for everybody: bounded reads of regular files, JSON, atomic writes, folder locks.

Nothing here trusts a file or a name: a FIFO does not hang, a device does not fill the memory, a name longer than the
system allows is an error of one line, and a file appears whole or not at all.
"""

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from dpmesh.errors import DPMeshError, InputError, OutputError

LARGEST_JSON = 2 * 2**30
"""Bytes. The largest JSON of the published data sets has a quarter of that."""
LARGEST_FILE = 8 * 2**30
"""Bytes. Default limit of `read_bytes`."""

LONGEST_NAME = 255
"""Bytes of a file's name that every common file system admits."""

_KEPT_OF_NAME = 100
"""Bytes of a file's name in that of the part beside it."""

_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part", re.DOTALL)

LOCK = ".dpmesh.lock"


def reason(error: OSError | ValueError) -> str:
    """Why the system refused, in a few words and without the path."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "the name is longer than a path may be"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "the name holds a character that no path may have"  # a null byte, or one the file system cannot encode


@contextmanager
def open_regular(path: Path, error: type[DPMeshError] = InputError) -> Generator[BinaryIO]:
    """The open file, if it is a regular one; raises `error` where it is missing, unreadable, a folder, FIFO or device.

    What is opened is what is checked, and opening never waits for a writer.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise error("no such file", where=str(path)) from None
    except (OSError, ValueError) as failure:
        raise error(f"cannot be read ({reason(failure)})", where=str(path)) from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "is a folder, not a file" if stat.S_ISDIR(mode) else "is not a regular file"
        raise error(kind, where=str(path))
    with os.fdopen(handle, "rb") as file:
        yield file


def read_bytes(path: Path, limit: int = LARGEST_FILE, error: type[DPMeshError] = InputError) -> bytes:
    """All of a regular file of at most `limit` bytes; raises `error`."""
    with open_regular(path, error) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            # Of a file that is too large nothing is read; and not limit + 1 at once: as much memory would be asked for.
            data = file.read(min(limit, size) + 1) if size <= limit else b""
            if len(data) > size:  # it grows, or the system does not say its size
                data += file.read(limit + 1 - len(data))
        except OSError as failure:
            raise error(f"cannot be read ({reason(failure)})", where=str(path)) from None
        except MemoryError:
            raise error("does not fit into memory", where=str(path)) from None
    if size > limit or len(data) > limit:
        raise error(f"is larger than {limit:,} bytes", where=str(path))
    return data


def read_json(path: Path, limit: int = LARGEST_JSON, error: type[DPMeshError] = InputError) -> Any:
    """The content of a JSON file; raises `error`."""
    return parse_json(read_bytes(path, limit, error), str(path), error)


def parse_json(text: str | bytes, where: str, error: type[DPMeshError] = InputError) -> Any:
    """The value of a JSON text (UTF-8, with or without a byte order mark); raises `error`."""
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError, MemoryError) as failure:
        line = " ".join(str(failure).split())[:80] or type(failure).__name__
        raise error(f"is not JSON ({line})", where=where) from None


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """A name beside `path` to write to; renamed to `path` when the block ends well, removed when it does not.

    The file has the rights that the umask gives. Of two writers the later one's file stays, whole. Raises
    OutputError where the system refuses (no space, no rights); the old file then stays as it was.
    """
    part = path.with_name(f".{_cut(path.name)}.{secrets.token_hex(4)}.part")
    try:
        _make_parent(path)
        yield part
        flush(part)
        os.replace(part, path)
    except OSError as failure:
        raise _unwritable(path, failure) from failure
    finally:
        with suppress(OSError, ValueError):
            part.unlink(missing_ok=True)


def _cut(name: str) -> str:
    """So much of a name that there is room for more beside it: counted in bytes, cut between characters."""
    while len(name.encode(errors="replace")) > _KEPT_OF_NAME:
        name = name[:-1]
    return name


def is_part(part: str, name: str) -> bool:
    """Whether a file called `part` is what a killed `atomic_path` left of a file called `name`."""
    found = _PART.fullmatch(part)
    return found is not None and found[1] == _cut(name)


def _make_parent(path: Path) -> None:
    try:
        os.fsencode(path)
        if "\0" in str(path):
            raise ValueError("a null byte")
        path.parent.mkdir(parents=True, exist_ok=True)
    except ValueError as failure:
        raise _unwritable(path, failure) from failure


def _unwritable(path: Path, failure: OSError | ValueError) -> OutputError:
    return OutputError(
        f"cannot be written ({reason(failure)})", where=str(path), fix="Choose another place, or make room."
    )


def atomic_write(path: Path, data: bytes | str) -> None:
    """The file with this content, whole or not at all; text as UTF-8. Raises OutputError."""
    with atomic_path(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def flush(path: Path) -> None:
    """What was written is on the disk before it gets its name: after a power cut the name never holds less."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_foreign_lock(folder: Path) -> None:
    """Raise OutputError where something else than a lock's empty file has its name."""
    path = folder / LOCK
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return  # none, or making it will say why
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        raise OutputError(
            "was not written by dpmesh and is in the way", where=str(path), fix="Move it first."
        )


@contextmanager
def folder_lock(folder: Path, what: str) -> Generator[None]:
    """Only one process at a time does `what` ("training", "evaluation") here; raises OutputError for the second.

    The lock is the operating system's: it ends with the process, however that ends. Its file is empty: one with
    content is somebody's own and refused, as opening it would empty it.
    """
    refuse_foreign_lock(folder)
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / LOCK, blocking=False))
        except Timeout:
            raise OutputError(
                f"another {what} is writing here",
                where=str(folder),
                fix="Wait for it, or choose another folder.",
            ) from None
        except (OSError, ValueError) as failure:
            raise _unwritable(folder, failure) from failure
        yield


def path_inside(folder: Path, name: str, where: str, error: type[DPMeshError] = InputError) -> Path:
    """`folder`/`name` for a name that stands in somebody's file (`where`), separators of both systems.

    Raises `error` for a name that leads out of the folder (absolute, or with ..) or that no path may have.
    """
    parts = name.replace("\\", "/").split("/")
    bad = not parts[0] or not parts[-1] or ".." in parts or parts[0].endswith(":") or not name.isprintable()
    if bad or max(len(part.encode(errors="replace")) for part in parts) > LONGEST_NAME or len(name) > 4000:
        shown = "".join(c if c.isprintable() else "?" for c in name[:60])
        raise error(f"{shown!r} is no name of a file inside {folder.name or folder}", where=where)
    return folder.joinpath(*parts)
