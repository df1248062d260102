"""Rows of people: the columns of every table, and a scene's rows.

A table of people (people_table.py) has COLUMNS, a row for each person. Streamed rows (row_parts.py) and the output of
`dpmesh bulk` have ROW_COLUMNS: at least one row for each image, also without people and for one that failed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from dpmesh.errors import ConfigError


@dataclass(frozen=True)
class Column:
    """kind: "text", "int", "float" or "bytes". shape: of its lists, () for a scalar."""

    kind: str
    shape: tuple[int, ...]
    meaning: str
    optional: bool = False


COLUMNS = {
    "image": Column("text", (), "the image as it was named"),
    "result": Column("text", (), "folder of the result"),
    "image_sha256": Column("text", (), "of the image file; empty where there was none"),
    "run": Column("text", (), "key of the weights and options, in `runs` of the provenance"),
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

_FIRST = {
    "image": COLUMNS["image"],
    "error": Column("text", (), "why the image failed; null where it did not", optional=True),
    "people": Column("int", (), "people in the image; it has as many rows, and one row where there is none"),
}
ROW_COLUMNS = _FIRST | {
    name: replace(column, optional=True) for name, column in COLUMNS.items() if name not in _FIRST
}
"""The columns of COLUMNS are null in the row of an image without people or one that failed, but for what is known."""

Row = dict[str, object]


def run_of(scene: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
    """(key, weights and options) of the run that made a scene, given as the content of its scene.json."""
    made: dict[str, object] = {"weights": scene.get("weights"), "options": scene.get("options")}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    return "run-" + digest[:12], made


def person_rows(scene: Mapping[str, Any], result: str, run: str) -> Iterator[Row]:
    """A row of COLUMNS for each person of a scene, given as the content of its scene.json.

    Raises KeyError, TypeError, ValueError or IndexError where it is damaged.
    """
    common = _common(scene, result, run)
    for number, person in enumerate(scene["people"]):
        values = {**person, **common, "person": number}
        yield {name: _checked(values[name], column, name) for name, column in COLUMNS.items()}


def image_rows(scene: Mapping[str, Any], result: str, run: str) -> list[Row]:
    """The rows of ROW_COLUMNS of a scene. Raises as person_rows."""
    people = list(person_rows(scene, result, run))
    values = people or [_common(scene, result, run)]
    return [_row({**row, "error": None, "people": len(people)}) for row in values]


def error_row(image: str, error: str, result: str | None = None) -> Row:
    """The row of ROW_COLUMNS of an image that failed."""
    return _row({"image": image, "error": error, "people": 0, "result": result})


def _common(scene: Mapping[str, Any], result: str, run: str) -> Row:
    return {
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


def _row(values: Mapping[str, object]) -> Row:
    return {name: _checked(values.get(name), column, name) for name, column in ROW_COLUMNS.items()}


def table_text(text: str) -> str:
    """As tables have a text: a file name may hold bytes that are no UTF-8, which readers of tables refuse."""
    return text.encode("utf-8", "backslashreplace").decode()


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
    if isinstance(value, str):
        return table_text(value)
    return float(cast("float", value)) if column.kind == "float" else value


def pyarrow_module() -> Any:
    """pyarrow; raises ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed",
            where="parquet",
            fix='Install it with: pip install "dpmesh[parquet]".',
        ) from None
    return pyarrow


def arrow_schema(columns: Mapping[str, Column]) -> Any:
    """Floats are float32; lists that are never null have a fixed size."""
    arrow = pyarrow_module()
    kinds = {
        "text": arrow.string(),
        "int": arrow.int32(),
        "float": arrow.float32(),
        "bytes": arrow.binary(),
    }
    fields: list[Any] = []
    for name, column in columns.items():
        kind = kinds[column.kind]
        for size in reversed(column.shape):
            # Of lists with a fixed size pyarrow (17 to 22) writes nulls that it cannot read.
            kind = arrow.list_(kind) if column.optional else arrow.list_(kind, size)
        fields.append(arrow.field(name, kind, nullable=column.optional))
    return arrow.schema(fields)
