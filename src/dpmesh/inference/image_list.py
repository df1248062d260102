"""The images that a command's INPUT arguments name, and a result folder's name for each."""

import codecs
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dpmesh.decode import SUFFIXES, VIDEO, VIDEO_SUFFIXES
from dpmesh.errors import DPMeshError, InputError
from dpmesh.inference.image_sources import refuse_url
from dpmesh.inference.result_folder import folder_name
from dpmesh.io import read_bytes, reason

STDIN = "-"
LIST_SUFFIX = ".txt"
LARGEST_LIST = 256 * 2**20
"""Bytes of a list of paths."""

_HIDDEN = "hidden"


@dataclass(frozen=True)
class ImageList:
    """images: path -> folder below its INPUT (empty unless the search is recursive). unusable: INPUT -> why it has no
    image. skipped: number of files in folders that are not images, by suffix; hidden images under "hidden"."""

    images: dict[Path, str] = field(default_factory=dict[Path, str])
    unusable: dict[str, str] = field(default_factory=dict[str, str])
    skipped: Counter[str] = field(default_factory=Counter[str])

    @property
    def skipped_text(self) -> str:
        """One line that counts the skipped files; empty if there are none."""
        hidden = self.skipped[_HIDDEN]
        videos = {suffix for suffix in self.skipped if suffix in VIDEO_SUFFIXES}
        others = set(self.skipped) - videos - {_HIDDEN}
        parts = [f"{hidden} hidden image{'s' * (hidden != 1)}"] if hidden else []
        for kind, suffixes in (("video", videos), ("other file", others)):
            if count := sum(self.skipped[suffix] for suffix in suffixes):
                named = sorted(suffix for suffix in suffixes if suffix)
                shown = f" ({', '.join(named[:5])}{', …' if len(named) > 5 else ''})" if named else ""
                parts.append(f"{count} {kind}{'s' * (count != 1)}{shown}")
        return f"skipped in folders: {', '.join(parts)}" if parts else ""


def list_images(
    inputs: Sequence[str],
    *,
    recursive: bool = False,
    skip: Path | None = None,
) -> ImageList:
    """The images of files, folders, list files (`.txt`, one path a line) and `-` (the same from stdin), each once.

    Folders give their images sorted by name; hidden files and folders are skipped. recursive: folders below them too,
    without following links; skip: a folder that is not entered (the results). A list's relative paths are relative to
    the current folder, or to the list's; empty lines and lines that begin with # are ignored. Raises InputError if the
    only input is unusable.
    """
    listing = ImageList()
    taken: set[str] = set()
    for name in inputs:
        try:
            for path, folder in _images_of(name, recursive, skip, listing):
                place = os.path.abspath(path)
                if place not in taken:
                    taken.add(place)
                    listing.images[path] = folder
        except DPMeshError as error:
            if len(inputs) == 1:
                raise
            listing.unusable[name] = str(error)
    return listing


def _images_of(
    name: str, recursive: bool, skip: Path | None, listing: ImageList
) -> Iterator[tuple[Path, str]]:
    if name == STDIN:
        data = sys.stdin.buffer.read(LARGEST_LIST + 1)
        if len(data) > LARGEST_LIST:
            raise InputError(f"is longer than {LARGEST_LIST:,} bytes", where="standard input")
        yield from _listed(data, "standard input", Path(), listing, recursive, skip)
    elif name.lower().endswith(LIST_SUFFIX) and os.path.isfile(name):
        yield from _listed(
            read_bytes(Path(name), LARGEST_LIST), name, Path(name).parent, listing, recursive, skip
        )
    else:
        yield from _named(name, recursive, skip, listing)


def _named(name: str, recursive: bool, skip: Path | None, listing: ImageList) -> Iterator[tuple[Path, str]]:
    """The images of a file or folder."""
    if not name:
        raise InputError("an empty name", where="INPUT", fix="Name images, or folders of images.")
    refuse_url(name)
    path = Path(name)
    if path.suffix.lower() in VIDEO_SUFFIXES and os.path.isfile(path):
        raise InputError(VIDEO.what, where=name, fix=VIDEO.fix)
    if not os.path.isdir(path):  # missing files and impossible names too: reading reports them
        yield path, ""
        return
    count = 0
    for image, folder in _inside(path, recursive, skip, listing):
        count += 1
        yield image, folder
    if not count:
        more = ": " + listing.skipped_text.partition(": ")[2] if listing.skipped_text else ""
        deeper = not recursive and any(entry.is_dir() for entry in os.scandir(path))
        fix = "Add --recursive for the folders in it." if deeper else "Name images, or folders of images."
        raise InputError(f"the folder has no image{more}", where=name, fix=fix)


def _inside(
    folder: Path, recursive: bool, skip: Path | None, listing: ImageList
) -> Iterator[tuple[Path, str]]:
    """(image, its folder below `folder`), folder by folder."""

    def fail(error: OSError) -> None:
        where = os.fsdecode(error.filename or folder)
        if Path(where) == folder:
            raise InputError(f"the folder cannot be read ({reason(error)})", where=where) from None
        listing.unusable[where] = f"{where}: the folder cannot be read ({reason(error)})"

    skipped = None if skip is None else os.path.realpath(skip)
    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(
            name
            for name in folders
            if recursive
            and not name.startswith(".")
            and os.path.realpath(os.path.join(place, name)) != skipped
        )
        below = Path(place).relative_to(folder)
        for name in sorted(files):
            path = Path(place) / name
            suffix = path.suffix.lower()
            if not os.path.isfile(path):
                continue
            if name.startswith("."):
                listing.skipped[_HIDDEN] += suffix in SUFFIXES
            elif suffix in SUFFIXES:
                yield path, "" if below == Path() else below.as_posix()
            else:
                listing.skipped[suffix] += 1


def _listed(
    data: bytes, where: str, folder: Path, listing: ImageList, recursive: bool, skip: Path | None
) -> Iterator[tuple[Path, str]]:
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):  # as PowerShell's > writes
            data = data.removeprefix(mark).decode(encoding, errors="replace").encode(errors="replace")
    lines = [os.fsdecode(line).strip() for line in data.removeprefix(codecs.BOM_UTF8).splitlines()]
    if any("\0" in line for line in lines):
        raise InputError(
            "is no list of paths: it has a NUL", where=where, fix="Save it as UTF-8, one path a line."
        )
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise InputError("the list has no path", where=where, fix="Write one path a line.")
    for name in names:
        inside = folder / name
        try:
            here = name if os.path.exists(name) or not os.path.exists(inside) else str(inside)
            if not os.path.lexists(here):
                refuse_url(name)
                what = f"no such file: {_shown(name)} (taken as a list of paths)"
                raise InputError(what, where=where, fix="Write one path a line.")
            yield from _named(here, recursive, skip, listing)
        except DPMeshError as error:
            listing.unusable[name] = str(error)


def _shown(name: str) -> str:
    return name[:60] + ("…" if len(name) > 60 else "")


def result_names(images: Mapping[Path, str]) -> dict[Path, str]:
    """A result folder's name per image (path -> folder below its INPUT): that folder and the image's stem.

    Where stems are equal, or a stem is the name of a folder of results, the whole name is used, numbered where that is
    taken. Names count as equal that are one file on some file system: upper and lower case, composed and decomposed
    letters.
    """
    stems = {path: _join(folder, folder_name(path.name) or "image") for path, folder in images.items()}
    counts = Counter(map(_folded, stems.values()))
    folders = {_folded(folder[:end]) for folder in images.values() for end in _ends(folder)}
    taken: set[str] = set()
    names: dict[Path, str] = {}
    for path, stem in stems.items():
        plain = counts[_folded(stem)] == 1 and _folded(stem) not in folders
        base = stem if plain or not path.name.strip(".") else _join(images[path], path.name)
        name, number = base, 1
        while _folded(name) in taken or _folded(name) in folders:
            number += 1
            name = f"{base}_{number}"
        taken.add(_folded(name))
        names[path] = name
    return names


def _ends(folder: str) -> Iterator[int]:
    """Where a folder and each folder above it end."""
    yield from (i for i in range(1, len(folder) + 1) if i == len(folder) or folder[i] == "/")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
