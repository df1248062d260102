"""Bounded reads of regular files, JSON, atomic writes, folder locks.

No file and no name is trusted: a FIFO does not block, a device does not fill the memory, a name longer than the system
allows is an error of one line, a Git LFS pointer or a web page is named as one, and a file appears whole or not at all.
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
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from dpmesh.errors import DPMeshError, InputError, OutputError

LARGEST_JSON = 2 * 2**30
"""Bytes; four times the largest JSON of the published data sets."""
LARGEST_FILE = 8 * 2**30
"""Bytes. Default limit of `read_bytes`."""

LONGEST_NAME = 255
"""Bytes of a file name that every common file system admits."""

HEAD = 512
"""Bytes of a file by which `mistaken` recognises it."""

_KEPT_OF_NAME = 100
"""Bytes of a file's name that its temporary file keeps."""

_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part", re.DOTALL)

LOCK = ".dpmesh.lock"


def reason(error: OSError | ValueError) -> str:
    """The system's reason for refusing a file operation, in a few words and without the path."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "the name is longer than a path may be"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "the name holds a character that no path may have"  # a null byte, or one the file system cannot encode


class Mistaken(NamedTuple):
    """A file of another kind than expected. what: its kind, as a predicate; fix: what to do about it."""

    what: str
    fix: str


_LFS = Mistaken(
    "is a Git LFS pointer, not the file itself",
    "Fetch the file: git lfs pull (in the repository's clone), or download it from the repository's page.",
)
_ANNEX = Mistaken("is a git-annex pointer, not the file itself", "Fetch the file: git annex get.")
_PAGE = Mistaken(
    "is a saved web page, not the file itself",
    "Download it again; some sites ask for a login or a click on 'download' first.",
)
_EMPTY = Mistaken("is empty", "Download it again, or copy it again.")
_ARCHIVES = (
    (b"PK\x03\x04", 0, "zip"),
    (b"PK\x05\x06", 0, "zip"),
    (b"Rar!\x1a\x07", 0, "RAR"),
    (b"7z\xbc\xaf\x27\x1c", 0, "7z"),
    (b"\x1f\x8b", 0, "gzip"),
    (b"\xfd7zXZ\x00", 0, "xz"),
    (b"BZh", 0, "bzip2"),
    (b"\x28\xb5\x2f\xfd", 0, "zstd"),
    (b"ustar", 257, "tar"),
)
_LFS_HEAD = re.compile(rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/spec/v\d")
_ANNEX_HEAD = re.compile(rb"(/annex/objects/|(\.\./)*\.git/annex/objects/)[\w.=+-]")
_PAGE_HEAD = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.{0,300}?-->\s*)?<(!doctype\s+html|html|head|body)\b",
    re.I | re.S,
)
_REFUSAL_HEAD = re.compile(
    rb"\s*(404: not found|not found|entry not found|repository not found|access denied|unauthorized|invalid username or"
    rb" password|access to (model|dataset) .{1,200} is restricted|<\?xml[^>]*>\s*<error>).{0,300}",
    re.I | re.S,
)


def placeholder(head: bytes) -> Mistaken | None:
    """What stands in the place of a file that was never downloaded, by its first `HEAD` bytes: a pointer of Git LFS or
    git-annex, a web page, a server's refusal. None for anything else. No file that is read here begins like one."""
    if _LFS_HEAD.match(head):
        return _LFS
    if _ANNEX_HEAD.match(head):
        return _ANNEX
    if _PAGE_HEAD.match(head):
        return _PAGE
    if len(head) < HEAD and _REFUSAL_HEAD.fullmatch(head):
        text = " ".join(head.decode(errors="replace").split())[:60]
        return Mistaken(f"is a server's refusal ({text}), not the file itself", _PAGE.fix)
    return None


def mistaken(head: bytes) -> Mistaken | None:
    """`placeholder`, and what only some readers refuse: an empty file, an archive. For a reader that has failed."""
    if not head:
        return _EMPTY
    for magic, at, kind in _ARCHIVES:
        if head[at : at + len(magic)] == magic:
            article = "an" if kind in ("RAR", "xz") else "a"
            return Mistaken(f"is {article} {kind} archive, not the file itself", "Unpack it first.")
    return placeholder(head)


@contextmanager
def open_regular(
    path: Path, error: type[DPMeshError] = InputError, *, any_content: bool = False
) -> Generator[BinaryIO]:
    """The open file; raises `error` where it is missing, unreadable, a folder, FIFO, device or a `placeholder`.

    The file checked is the file opened, and opening never waits for a writer. any_content: admit placeholders.
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
        raise error(kind, where=str(path), fix="Save it to a file first." if stat.S_ISFIFO(mode) else "")
    with os.fdopen(handle, "rb") as file:
        if not any_content:
            try:
                head = file.peek(HEAD)[:HEAD]
            except OSError as failure:
                raise error(f"cannot be read ({reason(failure)})", where=str(path)) from None
            if mistake := placeholder(head):
                raise error(mistake.what, where=str(path), fix=mistake.fix)
        yield file


def read_bytes(
    path: Path, limit: int = LARGEST_FILE, error: type[DPMeshError] = InputError, *, any_content: bool = False
) -> bytes:
    """All of a regular file of at most `limit` bytes; raises `error`. any_content: as of `open_regular`."""
    with open_regular(path, error, any_content=any_content) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            # A file that is too large is not read; and reading limit + 1 at once would allocate as much.
            data = file.read(min(limit, size) + 1) if size <= limit else b""
            if len(data) > size:  # it grows, or the system does not report its size
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
        if isinstance(text, bytes) and (kind := mistaken(text[:HEAD])):
            raise error(f"{kind.what}: no JSON", where=where, fix=kind.fix) from None
        line = " ".join(str(failure).split())[:80] or type(failure).__name__
        raise error(f"is not JSON ({line})", where=where) from None


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """A temporary name next to `path` to write to; renamed to `path` at the end of the block, removed on an error.

    The file has the rights that the umask gives. Of two writers the later one's file stays, whole. Raises
    OutputError where the system refuses (no space, no rights); the old file is then unchanged.
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
    """The start of a name, at most _KEPT_OF_NAME bytes, cut between characters."""
    while len(name.encode(errors="replace")) > _KEPT_OF_NAME:
        name = name[:-1]
    return name


def is_part(part: str, name: str) -> bool:
    """Whether a file called `part` is what a killed `atomic_path` left of a file called `name`."""
    match = _PART.fullmatch(part)
    return match is not None and match[1] == _cut(name)


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
    """Write a file whole or not at all; text as UTF-8. Raises OutputError."""
    with atomic_path(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def flush(path: Path) -> None:
    """Force a file's content to the disk, so that after a power cut no renamed file holds less than was written."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_foreign_lock(folder: Path) -> None:
    """Raise OutputError where anything but an empty regular file has the lock's name."""
    path = folder / LOCK
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return  # missing, or creating it will report the reason
    if not stat.S_ISREG(status.st_mode) or status.st_size:
        raise OutputError(
            "was not written by dpmesh and is in the way", where=str(path), fix="Move it first."
        )


@contextmanager
def folder_lock(folder: Path, what: str, *, wait: bool = False) -> Generator[None]:
    """Hold a folder for one process doing `what` ("training", "evaluation"); raises OutputError for a second one, which
    waits for its turn with `wait`.

    The lock is the operating system's: it ends with the process, however that ends. Its file is empty: one with
    content belongs to the user and is refused, as opening it would empty it.
    """
    refuse_foreign_lock(folder)
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / LOCK, blocking=wait))
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
    """`folder`/`name` for a name read from a file (`where`), with the separators of either system.

    Raises `error` for a name that leads out of the folder (absolute, or with ..) or that no path may have.
    """
    parts = name.replace("\\", "/").split("/")
    bad = not parts[0] or not parts[-1] or ".." in parts or parts[0].endswith(":") or not name.isprintable()
    if bad or max(len(part.encode(errors="replace")) for part in parts) > LONGEST_NAME or len(name) > 4000:
        shown = "".join(c if c.isprintable() else "?" for c in name[:60])
        raise error(f"{shown!r} is no name of a file inside {folder.name or folder}", where=where)
    return folder.joinpath(*parts)
