"""Streamed rows: `people.rows/part-*.jsonl` in a folder of results, in place of a folder for each image.

A part belongs to one process, which appends the rows of one image at a time. An image is complete with as many rows as
its column `people` tells (one where that is 0): what a killed writer left of an image is ignored, and the image is done
again. Parts are valid JSON lines of people_rows.ROW_COLUMNS; parts of runs that have ended are only changed by `drop`.
"""

import json
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.inference.people_rows import ROW_COLUMNS, Row
from dpmesh.io import atomic_path, atomic_write, folder_lock, read_json, reason

ROWS = "people.rows"
MARKER = "columns.json"
"""Names the columns; a folder without it is not ours."""
SCHEMA = "dpmesh.rows/1"
_PART = re.compile(r"part-[0-9a-f]{8}\.jsonl")
_RUN = re.compile(r"run-[0-9a-f]{12}\.json")
_AFTER_HEAD = b', "score": '
"""Ends the first columns of a line: a text in JSON never holds quotes that are not escaped."""


class Entry(NamedTuple):
    """The complete rows of one image: bytes `start` to `end` of a part. error: why it failed, else empty."""

    part: str
    start: int
    end: int
    sha256: str
    run: str
    error: str


def rows_folder(out: Path) -> Path:
    """The folder of the parts; raises OutputError where something else has its name."""
    folder = out / ROWS
    if os.path.lexists(folder):
        plain: object = None
        with suppress(DPMeshError):
            plain = read_json(folder / MARKER)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            raise OutputError(
                "was not written by dpmesh and is in the way", where=str(folder), fix="Move it first."
            )
    return folder


@contextmanager
def rows_lock(out: Path) -> Iterator[None]:
    """Hold the parts of `out` for a change of finished parts or a table of all, after any other run that does."""
    if not os.path.lexists(out / ROWS):
        yield
        return
    with folder_lock(rows_folder(out), "run", wait=True):
        yield


class RowIndex:
    """Which images have rows in a folder of results, also those that other runs are adding."""

    def __init__(self, out: Path) -> None:
        """Raises OutputError where something else has the folder's name."""
        self.folder = rows_folder(out)
        self.entries: dict[str, Entry] = {}
        self._read: dict[str, tuple[int, int]] = {}  # part -> (inode, bytes that have been read)

    def update(self) -> None:
        """Read what was added since the last call. Raises InputError for a part that cannot be read."""
        try:
            names = sorted(filter(_PART.fullmatch, os.listdir(self.folder)))
        except FileNotFoundError:
            names = []
        for name in names:
            path = self.folder / name
            try:
                status = path.stat()
                inode, done = self._read.get(name, (status.st_ino, 0))
                if inode != status.st_ino:  # rewritten
                    self.entries = {k: entry for k, entry in self.entries.items() if entry.part != name}
                    done = 0
                if status.st_size > done:
                    done = self._add(path, done)
                self._read[name] = status.st_ino, done
            except FileNotFoundError:
                continue  # dropped meanwhile
            except (OSError, ValueError, KeyError, TypeError) as error:
                why = reason(error) if isinstance(error, OSError) else f"is damaged ({error!r})"[:120]
                raise InputError(why, where=str(path), fix="Move it away.") from None
        if gone := self._read.keys() - {*names}:
            self.entries = {k: entry for k, entry in self.entries.items() if entry.part not in gone}
            for name in gone:
                del self._read[name]

    def _add(self, path: Path, start: int) -> int:
        """Enter the images from byte `start` on; returns where the next one may begin."""
        with path.open("rb") as file:
            file.seek(start)
            for head, begin, end in _complete(file, start):
                entry = Entry(
                    path.name, begin, end, head["image_sha256"] or "", head["run"] or "", head["error"] or ""
                )
                known = self.entries.get(head["image"])
                if known is None or (known.error and not entry.error):
                    self.entries[head["image"]] = entry
                start = end
        return start

    def rows(self, images: Iterator[str]) -> Iterator[Row]:
        """All rows of these images."""
        with ExitStack() as files:
            opened: dict[str, BinaryIO] = {}
            for image in images:
                entry = self.entries[image]
                if entry.part not in opened:
                    opened[entry.part] = files.enter_context((self.folder / entry.part).open("rb"))
                opened[entry.part].seek(entry.start)
                for line in opened[entry.part].read(entry.end - entry.start).splitlines():
                    yield json.loads(line)

    def runs(self) -> dict[str, dict[str, Any]]:
        """Key -> weights and options, of all runs."""
        if not self.folder.is_dir():
            return {}
        names = sorted(filter(_RUN.fullmatch, os.listdir(self.folder)))
        return {name.removesuffix(".json"): read_json(self.folder / name) for name in names}


def _complete(file: BinaryIO, start: int) -> Iterator[tuple[dict[str, Any], int, int]]:
    """(columns before the score, first byte, last byte + 1) of each image whose rows are all there."""
    here, begin, count, image = start, start, 0, None
    for line in file:
        if not line.endswith(b"\n"):
            return
        head: dict[str, Any] = json.loads(line.partition(_AFTER_HEAD)[0] + b"}")
        if count == 0 or head["image"] != image or head["person"] in (0, None):
            begin, count, image = here, 0, head["image"]
        here += len(line)
        count += 1
        if count == max(head["people"], 1):
            yield head, begin, here
            begin, count, image = here, 0, None


class RowWriter:
    """Appends to a part of its own, which it creates with the first row."""

    def __init__(self, out: Path) -> None:
        self.folder = rows_folder(out)
        self._file: BinaryIO | None = None
        self._held = ExitStack()
        self._runs: set[str] = set()

    def put(self, rows: Sequence[Row], run: tuple[str, Mapping[str, object]] | None = None) -> None:
        """Append all rows of one image. run: key, and weights and options, unless it failed. Raises OutputError."""
        if run is not None and run[0] not in self._runs:
            _make_folder(self.folder)
            atomic_write(self.folder / f"{run[0]}.json", json.dumps(run[1], indent=1) + "\n")
            self._runs.add(run[0])
        data = b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows)
        file = self._file or self._open()
        start = file.tell()
        try:
            if file.write(data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError as failure:
            with suppress(OSError):
                file.truncate(start)
            fix = "Make room and run it again: it goes on where it was."
            raise OutputError(
                f"cannot be written ({reason(failure)})", where=str(self.folder), fix=fix
            ) from None

    def _open(self) -> BinaryIO:
        _make_folder(self.folder)
        path = self.folder / f"part-{secrets.token_hex(4)}.jsonl"
        try:
            self._held.enter_context(FileLock(_lock_of(path), blocking=False))
            self._file = path.open("ab", buffering=0)
        except (OSError, Timeout) as failure:
            raise OutputError(f"cannot be written ({failure})"[:200], where=str(path)) from None
        return self._file

    def close(self) -> None:
        """Flush to the disk; the part then has no writer."""
        if self._file is not None:
            with suppress(OSError):
                os.fsync(self._file.fileno())
            self._file.close()
            with suppress(OSError):
                _lock_of(Path(self._file.name)).unlink()
            self._file = None
        self._held.close()


def _lock_of(part: Path) -> Path:
    return part.with_name(f".{part.name}.lock")


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    columns = {name: column.meaning for name, column in ROW_COLUMNS.items()}
    # A folder without the marker would not be known as ours: it is made under another name first.
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        part.mkdir(parents=True)
        atomic_write(part / MARKER, json.dumps({"schema": SCHEMA, "columns": columns}, indent=1) + "\n")
        with suppress(OSError):  # another run was first
            part.rename(folder)
            return
        (part / MARKER).unlink()
        part.rmdir()
    except OSError as failure:
        raise OutputError(f"cannot be written ({reason(failure)})", where=str(folder)) from None


def drop(out: Path, images: Collection[str]) -> list[str]:
    """Remove the rows of these images, which are to be made again, from the parts of runs that have ended.

    Returns those that a run that is going on has made.
    """
    with rows_lock(out):
        index = RowIndex(out)
        index.update()
        by_part: dict[str, list[str]] = {}
        for image in images:
            if (entry := index.entries.get(image)) is not None:
                by_part.setdefault(entry.part, []).append(image)
        kept: list[str] = []
        for part, own in by_part.items():
            path = index.folder / part
            try:
                with FileLock(_lock_of(path), blocking=False):
                    _rewrite(path, {*own})
                    _lock_of(path).unlink(missing_ok=True)
            except Timeout:
                kept += own
        return kept


def _rewrite(path: Path, without: set[str]) -> None:
    with atomic_path(path) as part, path.open("rb") as old, part.open("wb") as new, path.open("rb") as file:
        for head, begin, end in _complete(file, 0):
            if head["image"] not in without:
                old.seek(begin)
                new.write(old.read(end - begin))
