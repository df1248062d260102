"""Packed people: tar files in webdataset's format, each with an index file, read at random.

A shard NAME.tar holds for each person KEY.jpg and KEY.json (annotation.to_plain in the stored image's pixels). Its
index NAME.json says where they lie, how long the shard is, its SHA-256, and a checksum of every person, so that
people can be read in any order: training order is a function of the step (sources.py), which webdataset's own
streaming reader, made for sequential reading, cannot give. It reads these shards too.

Nothing is ever unpacked: of the tar only the bytes that the index names are read, whatever its members are called.
"""

import logging
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from dpmesh.assets import sha256
from dpmesh.data.annotation import Annotation, from_plain
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.crops import make_sample
from dpmesh.data.images import decode_rgb
from dpmesh.data.sample import Sample
from dpmesh.errors import ConfigError, InputError
from dpmesh.io import HEAD, parse_json, placeholder, read_json, reason

MANIFEST = "pack.json"
"""In the folder of the shards: what was packed, from where, how."""

MOST_SHARDS = 100_000
LARGEST_INDEX = 2**28
LARGEST_PART = 2**26
"""Bytes of an index, and of a person's image or annotation."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
FORMAT = 2
"""Of the annotations in a shard. 2 has the set's own box and where the set's image lies (Annotation.annotated,
full_size, full_place), and neighbours by those boxes."""

_log = logging.getLogger(__name__)


def is_packed(folder: Path) -> bool:
    return os.path.isfile(folder / MANIFEST)  # False also for what no path may be


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; raises InputError."""
    content = read_json(path, LARGEST_INDEX)
    if not isinstance(content, dict):
        raise InputError("this holds no JSON object", where=str(path))
    return cast("dict[str, Any]", content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, with names that can be parts of file names and plausible numbers of shards; raises InputError."""
    path = folder / MANIFEST
    manifest = read_object(path)
    sets = manifest.get("sets")
    if not isinstance(sets, dict) or type(manifest.get("format")) is not int:
        raise InputError("this is no manifest of packed people", where=str(path))
    if manifest["format"] != FORMAT:
        raise InputError(
            f"these shards have format {manifest['format']}, this version reads and writes {FORMAT}: in the"
            " older ones the size of the keypoint noise is missing",
            where=str(path),
            fix="Pack the sets again into another folder: dpmesh data pack ROOT OUT.",
        )
    for name, about in cast("dict[str, Any]", sets).items():
        if not _NAME.fullmatch(name):
            raise InputError(f"{name[:60]!r} is no name of a set", where=str(path))
        shards = cast("dict[str, Any]", about).get("shards") if isinstance(about, dict) else None
        if type(shards) is not int or not 0 <= shards <= MOST_SHARDS:
            raise InputError(f"the number of shards of {name} is damaged", where=str(path))
    return manifest


def packed_sets(folder: Path) -> dict[str, int]:
    """Number of shards of each set of a folder, by its name SET-SPLIT; raises InputError."""
    return {name: about["shards"] for name, about in read_manifest(folder)["sets"].items()}


def torn(shard: Path, index: Mapping[str, Any] | None, whole: bool) -> str:
    """What is wrong with a shard, "" for nothing. whole: read all of it for its SHA-256."""
    if index is None:
        return "its index is missing or damaged"
    if not os.path.isfile(shard):
        return "it is missing"
    try:
        size = shard.stat().st_size
        if size != index["bytes"]:
            with shard.open("rb") as file:
                other = placeholder(file.read(HEAD))
            return f"it {other.what}" if other else f"it has {size:,} of {index['bytes']:,} bytes"
        if whole and sha256(shard) != index["sha256"]:
            return "its checksum is another"
    except OSError as error:
        return f"it cannot be read ({reason(error)})"
    return ""


def index_of(shard: Path) -> dict[str, Any] | None:
    """A shard's index; None where it cannot be read or cannot be the index of any shard."""
    try:
        index = read_object(shard.with_suffix(".json"))
    except InputError:
        return None
    size, places = index.get("bytes"), index.get("people")
    right = (
        type(size) is int
        and isinstance(index.get("sha256"), str)
        and isinstance(index.get("skipped"), dict)
        and isinstance(places, list)
        and _lie_apart(cast("list[Any]", places), size)
    )
    return index if right else None


def _lie_apart(places: list[Any], size: int) -> bool:
    """Whether images and annotations are parts of a file of `size` bytes of which none covers another."""
    rows: list[list[int]] = []
    for place in places:
        if not isinstance(place, list) or [type(v) for v in cast("list[Any]", place)] != [int] * 5:
            return False
        rows.append(cast("list[int]", place))
    parts = sorted((row[at], row[at + 1]) for row in rows for at in (0, 2))
    end = 0
    for start, length in parts:
        if start < end or not 0 < length <= LARGEST_PART:
            return False
        end = start + length
    return end <= size


class ShardSource:
    """People of the whole shards of one set and split; `skipped` names the torn ones and what is wrong. sums: the
    SHA-256 of each whole shard, by its name. unpacked: how many people packing left
    out, for a damaged image or record."""

    def __init__(self, root: Path, kind: str, split: str) -> None:
        """Raises ConfigError where the set was not packed or no shard is whole, InputError for a bad manifest."""
        self.name, self._root = kind, root
        sets = packed_sets(root)
        if f"{kind}-{split}" not in sets:
            raise ConfigError(
                f"{kind} {split} has not been packed in {root}",
                fix=f"There are: {', '.join(sorted(sets)) or 'none'}. dpmesh data pack makes more.",
            )
        self._shards: list[Path] = []
        self._at: list[tuple[int, list[int]]] = []  # shard; jpg and json: offset and length each, checksum
        self.skipped: dict[str, str] = {}
        self.sums: dict[str, str] = {}
        self.unpacked = 0
        for number in range(sets[f"{kind}-{split}"]):
            shard = root / f"{kind}-{split}-{number:05d}.tar"
            index = index_of(shard)
            if wrong := torn(shard, index, whole=False):
                self.skipped[shard.name] = wrong
                _log.warning("%s is left out: %s", shard, wrong)
            elif index is not None:
                self._at += [(len(self._shards), place) for place in index["people"]]
                self._shards.append(shard)
                self.unpacked += len(index["skipped"])
                self.sums[shard.name] = str(index["sha256"])
        if self.skipped:
            _log.warning("%d shards of %s %s are left out", len(self.skipped), kind, split)
        if not self._at:
            raise ConfigError(
                f"no whole shard of {kind} {split} in {root}", fix="Run dpmesh data pack again."
            )
        self._files: dict[int, int] = {}
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._at)

    def sample(self, index: int, rng: np.random.Generator, augment: AugmentConfig | None = None) -> Sample:
        """Raises InputError, naming shard and number, for a person whose bytes have changed or are no person."""
        person, image, name = self._person(index)
        return make_sample(rng, person, decode_rgb(image, name), augment)

    def person(self, index: int, *, finite: bool = True) -> Annotation:
        """The annotation, in pixels of the stored image. Errors as `sample`; finite as `annotation.from_plain`."""
        return self._person(index, finite=finite)[0]

    def _person(self, index: int, *, finite: bool = True) -> tuple[Annotation, bytes, str]:
        """The annotation, the image's bytes, and a name for error messages."""
        shard, (start, length, json_start, json_length, checksum) = self._at[index]
        name = f"{self._shards[shard].name}, person {index}"
        try:
            image = self._read(shard, start, length)
            text = self._read(shard, json_start, json_length)
        except OSError as error:
            raise InputError(f"this person cannot be read ({reason(error)})", where=name) from None
        if zlib.crc32(text, zlib.crc32(image)) != checksum:
            raise InputError(
                "the bytes of this person have changed",
                where=name,
                fix="Run dpmesh data check on the folder.",
            )
        return from_plain(parse_json(text, name), self._shards[shard], name, finite=finite), image, name

    def _read(self, shard: int, start: int, length: int) -> bytes:
        if self._process != os.getpid():  # a forked worker opens its own
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            self._files[shard] = os.open(self._shards[shard], os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        return os.pread(self._files[shard], length, start)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        if self.__dict__.get("_process") == os.getpid():
            for file in self.__dict__.get("_files", {}).values():
                os.close(file)
