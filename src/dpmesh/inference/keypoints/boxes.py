"""Boxes of the user: text, or a JSON file of several layouts, in pixels of the image."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.names import ImageIndex
from dpmesh.io import read_json

LARGEST_FILE = 2**30
MOST_BOXES = 1000
"""Per image: a pose is detected in each, which takes some hundredths of a second."""
FARTHEST_BOX = 10.0
"""A box that extends further outside, in long sides of the image, is a mistake."""
_FRACTION = 2.0
"""Boxes whose numbers are all below this are fractions of the image, not pixels."""
_FIX = 'Use "x1,y1,x2,y2;..." in pixels, or JSON: a list of boxes, COCO detections, or a dictionary by image.'

_NAMED = 'Use a JSON file that names its images: {"a.jpg": [[x1, y1, x2, y2], ...]}, or COCO detections.'


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one image. xyxy: x1 y1 x2 y2, px. scores: in [0, 1]; 1 by default. skipped: entries of other classes."""

    xyxy: Float32[np.ndarray, "n 4"]
    scores: Float32[np.ndarray, " n"]
    skipped: int = 0


def read_boxes(
    source: str | Path,
    image_name: str,
    image_size: tuple[int, int],
    only_image: bool = True,
    inputs: Sequence[str] = (),
) -> Boxes:
    """The boxes of one image. image_name: its path. image_size: (h, w) px.

    only_image: no other image is processed, so boxes that name no image belong to this one. inputs: paths of all images
    that are processed: an entry serves one of them.

    source: the text "x1,y1,x2,y2;x1,y1,x2,y2"; or a JSON file with a list of boxes, with such lists by image name, or
    with COCO detections (`image_id` or `file_name`, `bbox` x y w h, `score`; of several categories only 1 or "person").
    A box may be four numbers x1 y1 x2 y2, or an object with `bbox`, `xywh` (x y w h), `xyxy`, `box` or x1, y1, x2, y2.
    Raises InputError for a box without area or wholly outside, and for fractions instead of pixels.
    """
    text = str(source)
    if isinstance(source, Path) or text.lower().endswith(".json") or os.path.exists(text):
        rows, where = _rows_of(Path(text), image_name, only_image, inputs), text
    else:
        if not only_image:
            raise InputError(
                "text boxes belong to one image, and there are several", where="boxes", fix=_NAMED
            )
        rows, where = [part.split(",") for part in text.split(";") if part.strip()], "boxes"
    if not rows:
        raise InputError("no boxes", where=where, fix=_FIX)
    few_enough(len(rows), where)
    persons = [(box, i) for i, row in enumerate(rows) if (box := _box(row, f"{where}: box {i}")) is not None]
    if not persons:
        raise InputError(
            "no entry is a person", where=where, fix="A person is category_id 1, or named person."
        )
    table = np.array([box[:4] for box, _ in persons])
    if float(np.abs(table).max()) <= _FRACTION and min(image_size) > 32:
        raise InputError(
            f"the boxes lie between {table.min():.3g} and {table.max():.3g}: fractions of the image, not pixels",
            where=where,
            fix=f"Multiply x by {image_size[1]} and y by {image_size[0]}.",
        )
    for box, i in persons:
        refuse_box(box, f"{where}: box {i}", image_size)
    scores = np.array([box[4] for box, _ in persons])
    per = 100.0 if scores.max() > 10 else 1.0
    return Boxes(
        table.astype(np.float32), (scores / per).clip(0, 1).astype(np.float32), len(rows) - len(persons)
    )


class _BoxFile:
    """A JSON file of boxes. by_image: its keys, if it is a dictionary by image. rows, by_label: else."""

    def __init__(self, path: Path) -> None:
        content = read_json(path, LARGEST_FILE)
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):  # pyright: ignore[reportUnknownMemberType]
            content = _with_names(cast("dict[str, Any]", content))
        self.table = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
        self.by_image = (
            ImageIndex([(name, name) for name in self.table]) if isinstance(content, dict) else None
        )
        self.rows = [] if self.by_image is not None else _listed(content, path)
        self.by_label = _by_label(self.rows)


def _open(path: Path) -> _BoxFile:
    """The file, cached until it changes."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return _BoxFile(path)  # raises what is wrong
    return _opened(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _opened(path: Path, _changed: int, _size: int) -> _BoxFile:
    return _BoxFile(path)


def _rows_of(path: Path, image_name: str, only_image: bool, inputs: Sequence[str]) -> list[Any]:
    file = _open(path)
    rows, by_label = file.rows, file.by_label
    if file.by_image is not None:
        names = file.by_image.find(image_name, str(path), inputs)
        if not names:
            raise _no_boxes(image_name, path, file.by_image)
        rows = _listed(file.table[names[0][1]], path)
        by_label = _by_label(rows)
    if by_label is None:
        if not only_image and file.by_image is None:
            raise InputError("the file names no image, and there are several", where=str(path), fix=_NAMED)
        return rows
    matches = by_label.find(image_name, str(path), inputs)
    if not matches:
        raise _no_boxes(image_name, path, by_label)
    return [rows[i] for _, i in matches]


def _listed(content: Any, path: Path) -> list[Any]:
    if not isinstance(content, list):
        raise InputError("has no list of boxes", where=str(path), fix=_FIX)
    return cast("list[Any]", content)


def _by_label(rows: list[Any]) -> ImageIndex[int] | None:
    """The rows by the image that they name; None if no row names one."""
    labels = [_label(row) for row in rows]
    if not any(label is not None for label in labels):
        return None
    return ImageIndex([(str(label), i) for i, label in enumerate(labels) if label is not None])


def _no_boxes(image_name: str, path: Path, index: ImageIndex[Any]) -> InputError:
    return InputError(f"has no boxes for {image_name}", where=str(path), fix=f"Its images: {index.some()}.")


def _with_names(content: dict[str, Any]) -> list[Any]:
    """COCO annotations as rows that name their image."""
    rows = content.get("images")
    images = (
        [row for row in cast("list[Any]", rows) if isinstance(row, dict)] if isinstance(rows, list) else []
    )
    names = {str(row.get("id")): row.get("file_name") for row in images}
    annotations = [row for row in content["annotations"] if isinstance(row, dict)]
    return [
        {**row, "file_name": names.get(str(row.get("image_id")), row.get("image_id"))} for row in annotations
    ]


def _label(row: Any) -> str | int | None:
    if not isinstance(row, Mapping):
        return None
    value = cast("Mapping[str, Any]", row).get("file_name", cast("Mapping[str, Any]", row).get("image_id"))
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def _box(row: Any, where: str) -> tuple[float, float, float, float, float] | None:
    """x1 y1 x2 y2 score; None for another class than person."""
    if isinstance(row, Mapping):
        return _named(cast("Mapping[str, Any]", row), where)
    x1, y1, x2, y2 = _numbers(row, where)
    return x1, y1, x2, y2, 1.0


def _named(row: Mapping[str, Any], where: str) -> tuple[float, float, float, float, float] | None:
    person = {1, "1", "person", None}
    if (
        row.get("category_id") not in person
        or row.get("name") not in {"person", None}
        or row.get("iscrowd") == 1
    ):
        return None
    score = next((row[name] for name in ("score", "confidence") if row.get(name) is not None), 1.0)
    score = _numbers([score, 0, 0, 0], where)[0]
    corners = row.get("box") if isinstance(row.get("box"), Mapping) else row
    assert isinstance(corners, Mapping)
    if {"x1", "y1", "x2", "y2"} <= set(corners):  # pyright: ignore[reportUnknownArgumentType]
        x1, y1, x2, y2 = _numbers([corners[key] for key in ("x1", "y1", "x2", "y2")], where)
        return x1, y1, x2, y2, score
    if row.get("xyxy") is not None:
        x1, y1, x2, y2 = _numbers(row["xyxy"], where)
        return x1, y1, x2, y2, score
    value = next((row[name] for name in ("bbox", "xywh", "box") if row.get(name) is not None), None)
    if value is None:
        raise InputError("no box", where=where, fix=_FIX)
    x, y, w, h = _numbers(value, where)
    return x, y, x + w, y + h, score


def _numbers(row: Any, where: str) -> list[float]:
    """Four finite numbers; they may be text."""
    if not isinstance(row, list) or len(cast("list[Any]", row)) != 4:
        raise InputError("is not four numbers", where=where, fix=_FIX)
    numbers: list[float] = []
    for value in cast("list[Any]", row):
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            numbers.append(float(value))
        except (ValueError, OverflowError):
            raise InputError(f"{value!r:.40} is not a number", where=where, fix=_FIX) from None
    if not all(map(math.isfinite, numbers)):
        raise InputError("a number is not finite", where=where)
    return numbers


def few_enough(boxes: int, where: str) -> None:
    """Raise InputError for more than MOST_BOXES."""
    if boxes > MOST_BOXES:
        raise InputError(f"{boxes:,} boxes, more than {MOST_BOXES:,}", where=where)


def refuse_box(box: Sequence[float], where: str, image_size: tuple[int, int]) -> None:
    """Raise InputError for a box x1 y1 x2 y2 in which no pose can be detected."""
    x1, y1, x2, y2 = box[:4]
    what = f"the box {x1:g},{y1:g},{x2:g},{y2:g}"
    fix = "Use x1,y1,x2,y2 in pixels (COCO's bbox: x, y, width, height)."
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"{what} has no area", where=where, fix=fix)
    if x1 >= image_size[1] or y1 >= image_size[0] or x2 <= 0 or y2 <= 0:
        raise InputError(f"{what} is outside the image", where=where, fix=fix)
    far = FARTHEST_BOX * max(image_size)
    if min(x1, y1) < -far or max(x2, y2) > max(image_size) + far:
        raise InputError(f"{what} extends far outside the image", where=where, fix=fix)
    if max(x2 - x1, y2 - y1) < 1:
        raise InputError(f"{what} is smaller than a pixel", where=where, fix=fix)
