"""One table of all people in a folder of results, as JSON lines or Parquet: a row for each person.

A table is made of the `scene.json` of the results and of streamed rows (row_parts.py), anew and whole each time: after
any run it has one row for each person of each result, however often results were made again or runs were interrupted.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.inference.output_formats import TABLES
from dpmesh.inference.people_rows import COLUMNS, Row, arrow_schema, person_rows, pyarrow_module, run_of
from dpmesh.inference.record import SCENE_SCHEMA, complete_formats, read_record
from dpmesh.inference.row_parts import RowIndex, rows_lock
from dpmesh.inference.staging import folders_below
from dpmesh.io import atomic_path, atomic_write, read_json
from dpmesh.skeletons import COCO17, JOINTS30

SCHEMA = "dpmesh.people/1"
PROVENANCE = "people.provenance.json"
"""Next to the tables: columns, and weights and options of each run. A table that it does not name is not ours."""
_BATCH = 512
"""Rows of a Parquet row group."""


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
        pyarrow_module()
    return chosen


def write_tables(out: str | Path, tables: Sequence[str] = ("jsonl",)) -> int:
    """Write `people.jsonl`, `people.parquet` of all results in a folder that have a `scene.json`; returns the rows.

    Results at any depth; rows are in the order of the folders' paths. An unfinished result has no rows. Raises
    OutputError, ConfigError as plan_tables; InputError for a damaged scene.json.
    """
    out = Path(out)
    with rows_lock(out):
        chosen = plan_tables(out, tables)
        return _write(out, chosen) if chosen else 0


def _write(out: Path, chosen: Sequence[str]) -> int:
    runs: dict[str, object] = {}
    provenance: dict[str, object] = {
        "schema": SCHEMA,
        "files": [PROVENANCE, *map(table_file, chosen)],
        "joint_names": list(JOINTS30.joints),
        "keypoint_names": list(COCO17.joints),
        "columns": {name: column.meaning for name, column in COLUMNS.items()},
        "runs": runs,
    }
    count = 0
    with ExitStack() as files:
        _write_provenance(out, provenance)  # first, so that no table of ours is unknown to the next run
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


def _rows(out: Path, runs: dict[str, object]) -> Iterator[Row]:
    """All rows: of the folders, then of the parts; `runs` takes weights and options of each run by its key."""
    images: set[str] = set()
    for row in _rows_of_folders(out, runs):
        images.add(str(row["image"]))
        yield row
    index = RowIndex(out)
    index.update()
    runs |= {key: made for key, made in index.runs().items() if key not in runs}
    streamed = sorted(
        image for image, entry in index.entries.items() if not entry.error and image not in images
    )
    for row in index.rows(iter(streamed)):
        if row["person"] is not None:
            yield {name: row[name] for name in COLUMNS}


def _rows_of_folders(out: Path, runs: dict[str, object]) -> Iterator[Row]:
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
        key, runs[key] = run_of(plain)
        try:
            yield from person_rows(plain, folder.relative_to(out).as_posix(), key)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"is damaged ({error!r})"[:120], where=str(path), fix=_AGAIN) from None


_AGAIN = "Make it again with dpmesh predict --overwrite."


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
    """The provenance is JSON under the file's metadata key "dpmesh"."""
    arrow, schema = pyarrow_module(), arrow_schema(COLUMNS)
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
