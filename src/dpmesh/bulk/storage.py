"""Files here and in object stores: a path, or a URI of pyarrow (s3://, gs://, abfs://, hdfs://) or fsspec."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dpmesh.errors import ConfigError, InputError, OutputError
from dpmesh.inference.people_rows import pyarrow_module
from dpmesh.io import read_bytes, reason

_TEMPORARY = ".tmp-"
_OBJECT_STORE = re.compile(r"\b(s3a?|gcs|gs|abfss?|azureblob|az|adl|oss|oci)\b")
"""In names of file systems: of pyarrow, or of fsspec behind it."""


class Place(NamedTuple):
    """A file or folder. fs: pyarrow's file system. name: as it was named, with which names inside it begin."""

    fs: Any
    path: str
    name: str

    def __truediv__(self, inside: str) -> "Place":
        return Place(self.fs, f"{self.path.rstrip('/')}/{inside}", f"{self.name.rstrip('/')}/{inside}")


def is_uri(name: str) -> bool:
    """Whether it is a URI, not a path."""
    scheme, colon, _ = name.partition("://")
    return bool(colon) and scheme.replace("+", "").isalnum()


def place_of(name: str) -> Place:
    """Raises ConfigError for a scheme that is not known, InputError where it cannot be reached."""
    pyarrow_module()
    from pyarrow import fs

    if not is_uri(name):
        return Place(fs.LocalFileSystem(), os.path.abspath(name), name)
    try:
        system, path = fs.FileSystem.from_uri(name)
        return Place(system, path, name)
    except (ValueError, NotImplementedError):  # no scheme of pyarrow's
        pass
    except OSError as error:
        raise InputError(f"cannot be reached ({error})"[:300], where=name) from None
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(name)
    except (ImportError, ValueError) as error:
        fix = "Install fsspec and its package for this scheme."
        raise ConfigError(f"is of a scheme that is not known ({error})"[:300], where=name, fix=fix) from None
    return Place(fs.PyFileSystem(fs.FSSpecHandler(system)), path, name)


def is_folder(place: Place) -> bool:
    """Raises InputError where it cannot be reached."""
    from pyarrow.fs import FileType

    try:
        return place.fs.get_file_info(place.path).type == FileType.Directory
    except OSError as error:
        raise InputError(f"cannot be reached ({error})"[:300], where=place.name) from None


def files_in(folder: Place, *, recursive: bool = False) -> Iterator[str]:
    """Names of the files in a folder, sorted, below it with slashes; none where it is missing or hidden.

    Raises InputError where it cannot be read.
    """
    if folder.fs.type_name == "local":
        yield from _local_files(Path(folder.path), folder.name, recursive)
        return
    from pyarrow.fs import FileSelector, FileType

    try:
        selector = FileSelector(folder.path, recursive=recursive, allow_not_found=True)
        found = [info.path for info in folder.fs.get_file_info(selector) if info.type == FileType.File]
    except OSError as error:
        raise InputError(f"cannot be read ({error})"[:300], where=folder.name) from None
    root = folder.path.strip("/")
    names = (path.strip("/").removeprefix(root).strip("/") for path in found)
    yield from sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _local_files(folder: Path, where: str, recursive: bool) -> Iterator[str]:
    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise InputError(f"the folder cannot be read ({reason(error)})", where=where) from None

    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        below = Path(place).relative_to(folder)
        for name in sorted(files):
            if not name.startswith("."):
                yield (below / name).as_posix()


def read(place: Place, limit: int) -> bytes:
    """The content. Raises InputError where it is larger than `limit` bytes or no file, OSError where reading fails."""
    if place.fs.type_name == "local":  # also names that are no UTF-8
        return read_bytes(Path(place.path), limit)
    with place.fs.open_input_stream(place.path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"is larger than {limit:,} bytes", where=place.name)
    return data


def write(place: Place, data: bytes) -> None:
    """Write a file whole or not at all. Raises OutputError.

    In an object store a file appears when it is complete. Elsewhere it is written under a hidden name first.
    """
    renames = _OBJECT_STORE.search(str(place.fs.type_name)) is None
    folder, _, name = place.path.rpartition("/")
    path = f"{folder}/{_TEMPORARY}{name}.{secrets.token_hex(4)}" if renames else place.path
    try:
        if renames:
            place.fs.create_dir(folder, recursive=True)
        with place.fs.open_output_stream(path) as file:
            file.write(data)
        if renames:
            place.fs.move(path, place.path)
    except OSError as error:
        with suppress(OSError):
            place.fs.delete_file(path)
        raise OutputError(
            f"cannot be written ({error})"[:300], where=place.name, fix="Make room, and run it again."
        ) from None


def remove_temporary(folder: Place) -> None:
    """Remove what killed writers have left."""
    from pyarrow.fs import FileSelector

    with suppress(OSError):
        for info in folder.fs.get_file_info(FileSelector(folder.path, allow_not_found=True)):
            if info.base_name.startswith(_TEMPORARY):
                folder.fs.delete_file(info.path)
