"""What `dpmesh bulk` reads: images in folders and lists, webdataset shards (.tar), Parquet with image bytes.

A unit is what one actor works on at a time: some loose images, a shard, or a row group of a Parquet file. Each image
has a key that is unique and stays the same from run to run: its path or URI as named, SHARD.tar/MEMBER, or
FILE.parquet#ROW.
"""

import json
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from dpmesh.bulk.storage import files_in, is_folder, place_of, read
from dpmesh.decode import LARGEST_IMAGE, SUFFIXES
from dpmesh.errors import InputError
from dpmesh.inference.image_list import LARGEST_LIST, LIST_SUFFIX, STDIN
from dpmesh.inference.people_rows import table_text

_SHARDS = (".tar", ".tar.gz", ".tgz")
_IMAGES = tuple(SUFFIXES)
_FILES = (*_IMAGES, *_SHARDS, ".parquet")
_IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes", "data", "content")
"""Columns of Parquet files that are looked for, in this order."""


class Item(NamedTuple):
    """One image. read: its content; only until the next item is taken. Raises OSError, InputError."""

    key: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Unit:
    """What one actor works on. names: of the images; of a shard or Parquet file its name. group: the row group.

    done: keys of images that have their rows already. image, key: columns of Parquet files.
    """

    kind: Literal["images", "shard", "parquet"]
    names: tuple[str, ...]
    group: int = 0
    done: tuple[str, ...] = ()
    image: str = ""
    key: str = ""

    @property
    def name(self) -> str:
        """The key of its row where it cannot be read."""
        return table_text(self.names[0]) + (f"#group {self.group}" if self.kind == "parquet" else "")

    def may_have(self, key: str) -> bool:
        """Whether an image of this key can be of this unit."""
        names = [table_text(name) for name in self.names]
        return bool(self.key) or any(
            key == name or key.startswith((f"{name}/", f"{name}#")) for name in names
        )

    def as_json(self) -> str:
        """As text: it may hold names that are no UTF-8."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Unit":
        plain = json.loads(text)
        return cls(**plain | {"names": tuple(plain["names"]), "done": tuple(plain["done"])})


def list_units(
    sources: Sequence[str],
    done: Collection[str],
    *,
    images: int,
    recursive: bool = False,
    image_column: str = "",
    key_column: str = "",
) -> list[Unit]:
    """The units of all sources, without images that are done. images: of a unit of loose images.

    done: keys of images that have their rows. Raises InputError for a source that cannot be used.
    """
    done_in: dict[str, list[str]] = {}
    for key in done:
        for mark in ("/", "#"):
            for end in (i for i, letter in enumerate(key) if letter == mark):
                if key[:end].endswith((*_SHARDS, ".parquet")):
                    done_in.setdefault(key[:end], []).append(key)
    loose: dict[str, None] = {}
    units: dict[Unit, None] = {}

    def add(unit: Unit) -> None:
        if unit.name not in done:  # else it could not be read
            units.setdefault(unit)

    for source in sources:
        for name in _expanded(source, recursive):
            if name.lower().endswith(_SHARDS):
                own = tuple(sorted(done_in.get(table_text(name), ())))
                add(Unit("shard", (name,), done=own))
            elif name.lower().endswith(".parquet"):
                own = (
                    tuple(sorted(done_in.get(table_text(name), ())))
                    if not key_column
                    else tuple(sorted(done))
                )
                for group in range(_row_groups(name)):
                    add(Unit("parquet", (name,), group, own, image_column, key_column))
            elif table_text(name) not in done:
                loose[name] = None
    names = list(loose)
    chunks = [Unit("images", tuple(names[i : i + images])) for i in range(0, len(names), images)]
    return [*chunks, *units]


def _expanded(source: str, recursive: bool) -> Iterator[str]:
    """The files of a source. Raises InputError."""
    if source == STDIN:
        yield from _listed(sys.stdin.buffer.read(LARGEST_LIST + 1), "standard input", recursive)
        return
    place = place_of(source)
    if source.lower().endswith(LIST_SUFFIX):
        try:
            data = read(place, LARGEST_LIST)
        except OSError as error:
            raise InputError(f"cannot be read ({error})"[:300], where=source) from None
        yield from _listed(data, source, recursive)
    elif is_folder(place):
        names = [n for n in files_in(place, recursive=recursive) if n.lower().endswith(_FILES)]
        if not names:
            raise InputError(
                "the folder has no image, no .tar and no .parquet",
                where=source,
                fix="" if recursive else "Add --recursive for the folders in it.",
            )
        yield from ((place / name).name for name in names)
    else:
        yield source  # a missing image is an error row, like a damaged one


def _listed(data: bytes, where: str, recursive: bool) -> Iterator[str]:
    names = [line.decode(errors="surrogateescape").strip() for line in data.splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    if not names or any("\0" in name for name in names):
        raise InputError("is no list of paths", where=where, fix="Save it as UTF-8, one path or URI a line.")
    for name in names:
        if name.lower().endswith(_FILES):
            yield name
        else:
            yield from _expanded(name, recursive)


def _row_groups(name: str) -> int:
    with _parquet(name) as file:
        return file.num_row_groups


def _parquet(name: str) -> Any:
    """The open file. Raises InputError."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    place = place_of(name)
    try:
        return ParquetFile(place.fs.open_input_file(place.path))
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot be read ({error})"[:300], where=name) from None


def items_of(unit: Unit) -> Iterator[Item]:
    """The images of a unit that are not done, in its order. Raises OSError, InputError.

    Of two with one key the second has KEY#2.
    """
    done, count = frozenset(unit.done), Counter[str]()
    for item in {"images": _images, "shard": _members, "parquet": _rows}[unit.kind](unit):
        count[item.key] += 1
        if (number := count[item.key]) > 1:
            item = item._replace(key=f"{item.key}#{number}")
        if item.key not in done:
            yield item


def _images(unit: Unit) -> Iterator[Item]:
    for name in unit.names:
        yield Item(table_text(name), lambda name=name: read(place_of(name), LARGEST_IMAGE))


def _members(unit: Unit) -> Iterator[Item]:
    """Images of a tar, read once from its beginning to its end."""
    place = place_of(unit.names[0])
    try:
        with (
            place.fs.open_input_stream(place.path, compression=None) as stream,
            tarfile.open(fileobj=stream, mode="r|*") as tar,
        ):
            for member in tar:
                if member.isfile() and member.name.lower().endswith(_IMAGES):
                    key = table_text(f"{place.name}/{member.name}")
                    yield Item(key, lambda member=member, tar=tar, key=key: _content(tar, member, key))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"the shard is damaged ({error})"[:300], where=place.name) from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, key: str) -> bytes:
    if member.size > LARGEST_IMAGE:
        raise InputError(f"is larger than {LARGEST_IMAGE:,} bytes", where=key)
    try:
        file = tar.extractfile(member)
        data = b"" if file is None else file.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"is damaged ({error})"[:300], where=key) from None
    if len(data) != member.size:
        raise InputError("is cut off", where=key)
    return data


def _rows(unit: Unit) -> Iterator[Item]:
    """Images of a row group of a Parquet file: bytes, or structures with `bytes` as Hugging Face writes them."""
    name = unit.names[0]
    with _parquet(name) as file:
        column = unit.image or next((c for c in _IMAGE_COLUMNS if c in file.schema_arrow.names), "")
        for wanted in filter(None, (column, unit.key)):
            if wanted not in file.schema_arrow.names:
                raise InputError(f"has no column {wanted!r}", where=name)
        if not column:
            raise InputError(
                "has no column of images that is known", where=name, fix="Name it: --image-column NAME."
            )
        row = sum(file.metadata.row_group(i).num_rows for i in range(unit.group))
        columns = [column, *([unit.key] if unit.key else [])]
        for batch in file.iter_batches(8, row_groups=[unit.group], columns=columns):
            keys: Iterable[object] = batch[unit.key].to_pylist() if unit.key else range(row, row + len(batch))
            for value, key in zip(batch[column].to_pylist(), keys, strict=True):
                text = str(key) if unit.key else f"{table_text(name)}#{key}"
                yield Item(text, lambda value=value, text=text: _bytes(value, text))
            row += len(batch)


def _bytes(value: object, key: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise InputError(f"holds {type(data).__name__}, not the bytes of an image file", where=key)
    return data
