"""Output of `dpmesh bulk`: `part-*.parquet` with the rows of ROW_COLUMNS, and the weights and options of the runs.

A part is written whole or not at all, under a name that depends on its images only: an actor that does the same images
again, because the first one was killed, replaces the part by an equal one.
Readers take no name with _ in front for data.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dpmesh.bulk.lease import LEASE
from dpmesh.bulk.storage import Place, files_in, read, remove_temporary, write
from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.inference.options import differences
from dpmesh.inference.people_rows import ROW_COLUMNS, Column, Row, arrow_schema, pyarrow_module
from dpmesh.inference.row_parts import SCHEMA
from dpmesh.skeletons import COCO17, JOINTS30

PROVENANCE = "_dpmesh.json"
_PART = re.compile(r"part-[0-9a-f]{16}-\d{5,}\.parquet")
_LARGEST = 64 * 2**20
THUMBNAIL, THUMBNAILS = "thumbnail", "thumbnails"
"""The column; the recorded option: longest side in pixels, None without."""
_THUMBNAIL = {
    THUMBNAIL: Column("bytes", (), "JPEG of the overlay, in the first row of an image", optional=True)
}


def part_name(unit: str, number: int) -> str:
    """unit: a digest of 16 hexadecimal digits."""
    return f"part-{unit}-{number:05}.parquet"


def columns_of(thumbnails: bool) -> dict[str, Column]:
    """The columns of an output: ROW_COLUMNS, and `thumbnail` where thumbnails are made."""
    return ROW_COLUMNS | (_THUMBNAIL if thumbnails else {})


def write_part(out: Place, name: str, rows: Sequence[Row], *, thumbnails: bool = False) -> None:
    """thumbnails: the part has their column; rows without one have null there. Raises OutputError."""
    arrow = pyarrow_module()
    table = arrow.Table.from_pylist(list(rows), schema=arrow_schema(columns_of(thumbnails)))
    write(out / name, _bytes_of(table))


def _bytes_of(table: Any) -> bytes:
    arrow = pyarrow_module()
    sink = arrow.BufferOutputStream()
    arrow.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def write_run(out: Place, key: str, made: Mapping[str, object]) -> None:
    """Weights and options of the rows whose column `run` is `key`."""
    write(out / f"_{key}.json", (json.dumps(made, indent=1) + "\n").encode())


def check_output(out: Place, options: Mapping[str, object]) -> None:
    """Raise OutputError where the output is not of dpmesh bulk, or of other options. Nothing is written."""
    there = [name for name in files_in(out) if name != LEASE]
    if not there:
        return
    if PROVENANCE not in there:
        fix = "Choose an empty or a new folder."
        raise OutputError("holds files that are not of dpmesh bulk", where=out.name, fix=fix)
    try:
        plain = json.loads(read(out / PROVENANCE, _LARGEST))
        recorded = plain["options"] if plain["schema"] == SCHEMA else None
    except (OSError, ValueError, KeyError, TypeError, DPMeshError):
        recorded = None
    if not isinstance(recorded, dict):
        raise OutputError("is damaged", where=(out / PROVENANCE).name, fix="Choose another folder.")
    if changes := differences(recorded, options):
        what = f"holds rows of other options ({'; '.join(changes)})"
        raise OutputError(what, where=out.name, fix="Choose another folder.")


def start_output(out: Place, options: Mapping[str, object]) -> None:
    """Write the provenance of a new output; remove what killed writers have left of an old one. Raises OutputError."""
    if PROVENANCE in files_in(out):
        remove_temporary(out)
        return
    columns = columns_of(bool(options.get(THUMBNAILS)))
    provenance = {
        "schema": SCHEMA,
        "options": options,
        "columns": {name: column.meaning for name, column in columns.items()},
        "joint_names": list(JOINTS30.joints),
        "keypoint_names": list(COCO17.joints),
    }
    write(out / PROVENANCE, (json.dumps(provenance, indent=1) + "\n").encode())


def parts_of(out: Place) -> list[str]:
    """Names of the parts. Raises InputError."""
    return [name for name in files_in(out) if _PART.fullmatch(name)]


def done_keys(out: Place) -> Iterator[tuple[str, str]]:
    """(key, error or "") of the images that have rows. Raises InputError."""
    for name in parts_of(out):
        table = _read(out, name, ["image", "error"])
        for key, error in {*zip(table["image"].to_pylist(), table["error"].to_pylist(), strict=True)}:
            yield key, error or ""


def drop_errors(out: Place, again: Callable[[str], bool]) -> int:
    """Remove the rows of images that failed and are to be done again, by their keys; returns their number.

    Raises OutputError.
    """
    arrow, count = pyarrow_module(), 0
    for name in parts_of(out):
        table = _read(out, name, None)
        pairs = zip(table["image"].to_pylist(), table["error"].to_pylist(), strict=True)
        keep = [error is None or not again(image) for image, error in pairs]
        if not all(keep):
            count += keep.count(False)
            write(out / name, _bytes_of(table.filter(arrow.array(keep))))
    return count


def _read(out: Place, name: str, columns: list[str] | None) -> Any:
    arrow = pyarrow_module()
    place = out / name
    try:
        with place.fs.open_input_file(place.path) as file:
            return arrow.parquet.read_table(file, columns=columns)
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"cannot be read ({error})"[:300], where=place.name, fix="Remove it.") from None
