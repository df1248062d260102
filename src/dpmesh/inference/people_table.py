"""One table of all people in a folder of results, as JSON lines or Parquet: a row for each person.

A table is made of the `scene.json` of the results and of nothing else, anew and whole each time: after any run it has
one row for each person of each result, however often results were made again or runs were interrupted.
"""

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from dpmesh.errors import ConfigError, DPMeshError, InputError, OutputError
from dpmesh.inference.output_formats import TABLES
from dpmesh.inference.record import SCENE_SCHEMA, complete_formats, read_record
from dpmesh.inference.staging import folders_below
from dpmesh.io import atomic_path, atomic_write, read_json
from dpmesh.skeletons import COCO17, JOINTS30

SCHEMA = "dpmesh.people/1"
PROVENANCE = "people.provenance.json"
"""Next to the tables: columns, and weights and options of each run. A table that it does not name is not ours."""
_BATCH = 512
"""Rows of a Parquet row group."""


@dataclass(frozen=True)
class Column:
    """kind: "text", "int" or "float". shape: of its lists, () for a scalar."""

    kind: str
    shape: tuple[int, ...]
    meaning: str
    optional: bool = False


COLUMNS = {
    "image": Column("text", (), "the image as it was named"),
    "result": Column("text", (), "folder of the result"),
    "image_sha256": Column("text", (), "of the image file; empty where there was none"),
    "run": Column("text", (), f"key of `runs` in {PROVENANCE}: weights and options"),
    "person": Column("int", (), "number in the image, from 0, by score"),
    "score": Column("float", (), "confidence of the detection, 0 to 1"),
    "image_height": Column("int", (), "px"),
    "image_width": Column("int", (), "px"),
    "focal": Column("float", (), "px"),
    "focal_source": Column("text", (), "given, exif or diagonal (a guess)"),
    "K": Column("float", (3, 3), "camera matrix, px"),
    "box": Column("float", (4,), "x1 y1 x2 y2, image px, right and bottom exclusive"),
    "keypoints2d": Column("float", (17, 3), "the model's input: x y px, confidence; `keypoint_names`"),
    "global_orient": Column("float", (3,), "axis-angle, radians, body frame to camera frame"),
    "body_pose": Column("float", (69,), "axis-angle of joints 1 to 23, radians"),
    "betas": Column("float", (10,), "shape, standard deviations"),
    "transl": Column("float", (3,), "metres, camera frame, added after skinning"),
    "joints3d": Column("float", (30, 3), "metres, camera frame (x right, y down, z forward); `joint_names`"),
    "joints2d": Column("float", (30, 2), "joints3d projected by K, image px"),
    "joint_sigma": Column("float", (30,), "metres; null where it is not predicted", optional=True),
}


def table_file(table: str) -> str:
    """The file name of "jsonl" or "parquet"."""
    return f"people.{table}"


def plan_tables(out: Path, wanted: Iterable[str]) -> tuple[str, ...]:
    """The tables to write in `out`: the wanted ones and those that are there. Costs no computation.

    Raises OutputError for a file of their names that is not ours, ConfigError for Parquet without pyarrow.
    """
    owned = _owned(out)
    for name in [table_file(table) for table in wanted] + ([PROVENANCE] if [*wanted] else []):
        if os.path.lexists(out / name) and name not in owned:
            raise OutputError(
                "was not written by dpmesh and is in the way", where=str(out / name), fix="Move it first."
            )
    chosen = tuple(table for table in TABLES if table in [*wanted] or table_file(table) in owned)
    if "parquet" in chosen:
        _pyarrow()
    return chosen


def write_tables(out: str | Path, tables: Sequence[str] = ("jsonl",)) -> int:
    """Write `people.jsonl`, `people.parquet` of all results in a folder that have a `scene.json`; returns the rows.

    Results at any depth; rows are in the order of the folders' paths. An unfinished result has no rows. Raises
    OutputError, ConfigError as plan_tables; InputError for a damaged scene.json.
    """
    out = Path(out)
    chosen = plan_tables(out, tables)
    if not chosen:
        return 0
    runs: dict[str, object] = {}
    provenance: dict[str, object] = {
        "schema": SCHEMA,
        "files": [PROVENANCE, *map(table_file, chosen)],
        "joint_names": list(JOINTS30.joints),
        "keypoint_names": list(COCO17.joints),
        "columns": {name: column.meaning for name, column in COLUMNS.items()},
        "runs": runs,
    }
    _write_provenance(out, provenance)  # first, so that no table of ours is unknown to the next run
    count = 0
    with ExitStack() as files:
        writers = [files.enter_context(_WRITERS[table](out / table_file(table))) for table in chosen]
        for row in _rows(out, runs):
            count += 1
            for write, _ in writers:
                write(row)
        for _, finish in writers:
            finish(provenance)
    _write_provenance(out, provenance)
    return count


def _write_provenance(out: Path, provenance: Mapping[str, object]) -> None:
    atomic_write(out / PROVENANCE, json.dumps(provenance, indent=1, allow_nan=False) + "\n")


def _owned(out: Path) -> frozenset[str]:
    """Files in `out` that an earlier run wrote."""
    path = out / PROVENANCE
    if not path.is_file() or path.is_symlink():
        return frozenset()
    try:
        plain = read_json(path, error=OutputError)
    except DPMeshError:
        return frozenset()
    if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
        return frozenset()
    listed = plain.get("files")
    known = {PROVENANCE, *map(table_file, TABLES)}
    return frozenset(name for name in known if isinstance(listed, list) and name in listed)


def _rows(out: Path, runs: dict[str, object]) -> Iterator[dict[str, object]]:
    """All rows; `runs` takes weights and options of each run by its key."""
    for folder in folders_below(out):
        record = read_record(folder)
        if record is None or record.verb != "predict" or record.pending:
            continue
        if "json" not in complete_formats(record, folder):
            continue
        path = folder / "scene.json"
        plain = read_json(path)
        if not isinstance(plain, dict) or plain.get("schema") != SCENE_SCHEMA:
            raise InputError(f"is not of the schema {SCENE_SCHEMA}", where=str(path), fix=_AGAIN)
        made = {"weights": plain.get("weights"), "options": plain.get("options")}
        key = "run-" + hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]
        runs[key] = made
        try:
            yield from _rows_of(plain, folder.relative_to(out).as_posix(), key)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"is damaged ({error!r})"[:120], where=str(path), fix=_AGAIN) from None


_AGAIN = "Make it again with dpmesh predict --overwrite."


def _rows_of(scene: Mapping[str, Any], result: str, run: str) -> Iterator[dict[str, object]]:
    common = {
        "image": scene["source"],
        "result": result,
        "image_sha256": scene["source_sha256"],
        "run": run,
        "image_height": scene["image_size"][0],
        "image_width": scene["image_size"][1],
        "focal": scene["K"][0][0],
        "focal_source": scene["focal_source"],
        "K": scene["K"],
    }
    for number, person in enumerate(scene["people"]):
        values = {**person, **common, "person": number}
        yield {name: _checked(values[name], column, name) for name, column in COLUMNS.items()}


def _checked(value: object, column: Column, name: str) -> object:
    """The value, if it is of its column; raises ValueError."""
    if value is None and column.optional:
        return None
    if column.shape:
        items = value if isinstance(value, list) else []
        if len(items) != column.shape[0]:
            raise ValueError(name)
        inner = Column(column.kind, column.shape[1:], "")
        return [_checked(item, inner, name) for item in items]
    kinds = {"text": str, "int": int, "float": (int, float)}
    if not isinstance(value, kinds[column.kind]) or isinstance(value, bool):
        raise ValueError(name)
    if isinstance(value, str):  # a file name may hold bytes that are no UTF-8; readers of tables refuse them
        return value.encode("utf-8", "backslashreplace").decode()
    return float(cast("float", value)) if column.kind == "float" else value


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed",
            where="--save parquet",
            fix='Install it with: pip install "dpmesh[parquet]", or save jsonl.',
        ) from None
    return pyarrow


_Write = Callable[[dict[str, object]], None]
_Finish = Callable[[Mapping[str, object]], None]
"""Takes the provenance after the last row."""


@contextmanager
def _jsonl(path: Path) -> Generator[tuple[_Write, _Finish]]:
    with atomic_path(path) as part, part.open("w", encoding="utf-8") as file:
        yield lambda row: _put_line(file, row), lambda _: None


def _put_line(file: TextIO, row: Mapping[str, object]) -> None:
    file.write(json.dumps(row, allow_nan=False) + "\n")


@contextmanager
def _parquet(path: Path) -> Generator[tuple[_Write, _Finish]]:
    """Float columns are float32, lists that are never null have a fixed size; the provenance is JSON under the file's
    metadata key "dpmesh"."""
    arrow = _pyarrow()
    kinds = {"text": arrow.string(), "int": arrow.int32(), "float": arrow.float32()}
    fields: list[Any] = []
    for name, column in COLUMNS.items():
        kind = kinds[column.kind]
        for size in reversed(column.shape):
            # Of lists with a fixed size pyarrow (17 to 22) writes nulls that it cannot read.
            kind = arrow.list_(kind) if column.optional else arrow.list_(kind, size)
        fields.append(arrow.field(name, kind, nullable=column.optional))
    schema = arrow.schema(fields)
    with atomic_path(path) as part, arrow.parquet.ParquetWriter(part, schema) as writer:
        batch: list[dict[str, object]] = []

        def put(row: dict[str, object] | None) -> None:
            """None: the last row has been put."""
            if row is not None:
                batch.append(row)
            if batch and (row is None or len(batch) == _BATCH):
                writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
                batch.clear()

        def finish(provenance: Mapping[str, object]) -> None:
            put(None)
            writer.add_key_value_metadata({"dpmesh": json.dumps(provenance)})

        yield put, finish


_WRITERS = {"jsonl": _jsonl, "parquet": _parquet}
