"""Data types that the readers of keypoint files return, and how they read numbers, boxes and points."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float64

from dpmesh.errors import InputError
from dpmesh.skeletons import (
    COCO17,
    HALPE26,
    HALPE136,
    OPENPOSE18,
    OPENPOSE25,
    WHOLEBODY133,
    Skeleton,
)

COCO_COUNTS = (COCO17, HALPE26, WHOLEBODY133, HALPE136)
OPENPOSE_COUNTS = (OPENPOSE25, OPENPOSE18, HALPE26, COCO17, WHOLEBODY133)

Row = tuple[str, Any]
"""Where an entry is in the file ("annotations[3]"), and its decoded content: one person."""

Skip = Literal["", "crowd", "no person", "empty", "no keypoints"]


@dataclass(frozen=True, eq=False)
class FilePerson:
    """One person, in the file's units.

    points: x, y, confidence; a number that is missing or null is NaN. box: x1 y1 x2 y2. skip: why the entry is skipped
    and counted: a crowd, another class, an empty list, no field for keypoints.
    """

    points: Float64[np.ndarray, "j 3"]
    joints: Skeleton
    box: tuple[float, float, float, float] | None = None
    score: float | None = None
    skip: Skip = ""


@dataclass(frozen=True, eq=False)
class FileImage:
    """The people of one image; `read` turns a row into a person.

    labels: the image's names and ids in the file; empty where it names no image. size: (width, height) of the canvas
    that the coordinates belong to, where the file has it.
    """

    labels: tuple[str | int, ...]
    rows: Sequence[Row]
    read: Callable[[Any], FilePerson]
    size: tuple[float, float] | None = None


Fractions = Literal["never", "always", "maybe", "openpose"]
"""Whether a format has coordinates as fractions of the image. maybe: by an option, of width and height; openpose: by
--keypoint_scale, of width - 1 and height - 1, in 0…1 or -1…1."""


@dataclass(frozen=True)
class Format:
    """A file format.

    name: for --keypoint-format. tool: which writes it. matches: whether decoded content has this format. images: its
    reader. joints: its joint orders, distinguished by their number of points.
    """

    name: str
    tool: str
    matches: Callable[[Any], bool]
    images: Callable[[Any, "Format"], list[FileImage]]
    joints: tuple[Skeleton, ...] = COCO_COUNTS
    fractions: Fractions = "never"


def number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r:.40} is not a number")
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def listed(value: Any, what: str) -> list[Any]:
    if isinstance(value, Mapping) and "__ndarray__" in value:  # how MMPose's JSON writes an array
        value = cast("Mapping[str, Any]", value)["__ndarray__"]
    if not isinstance(value, list):
        raise InputError(f"{what} is not a list")
    return cast("list[Any]", value)


def wrong_count(n: int, allowed: Sequence[Skeleton]) -> InputError:
    wanted = ", ".join(f"{3 * len(joints)} ({joints.name})" for joints in allowed)
    return InputError(
        f"{n} numbers for a person",
        fix=f"Known without joint names: {wanted}. Others by --keypoint-format or names in the file.",
    )


def points_of(value: Any, allowed: Sequence[Skeleton]) -> tuple[Float64[np.ndarray, "j 3"], Skeleton]:
    """Points from flat numbers or one list per joint, of two or three numbers, and the joint set of that size."""
    rows = listed(value, "keypoints")
    if rows and all(isinstance(row, list) for row in rows):
        widths = {len(row) for row in rows}
        if len(widths) != 1 or not widths <= {2, 3}:
            raise InputError("keypoints are not lists of two or three numbers")
        width, flat = widths.pop(), [number for row in rows for number in row]
    else:
        flat = rows
        # Two numbers per joint are accepted for COCO and for a named order only: 50 numbers are not 25 joints.
        bare = [j for j in allowed if len(flat) == 2 * len(j) and (j is COCO17 or len(allowed) == 1)]
        width = 2 if bare and not any(len(flat) == 3 * len(j) for j in allowed) else 3
    joints = next((j for j in allowed if len(flat) == width * len(j)), None)
    if joints is None:
        raise wrong_count(len(flat), allowed)
    array = np.array([number(v) for v in flat], np.float64).reshape(-1, width)
    return array if width == 3 else with_flags(array), joints


def with_flags(xy: Float64[np.ndarray, "j 2"]) -> Float64[np.ndarray, "j 3"]:
    """Points without confidence: all are visible except those at exactly 0, 0."""
    return np.c_[xy, (xy != 0).any(1).astype(np.float64)]


def finite(value: Any, count: int, what: str) -> list[float]:
    rows = listed(value, what)
    if len(rows) == 1 and isinstance(rows[0], list):  # MMPose: [[x1, y1, x2, y2]]
        rows = cast("list[Any]", rows[0])
    numbers = [number(v) for v in rows]
    if len(numbers) < count or not all(map(math.isfinite, numbers[:count])):
        raise InputError(f"{what} is not {count} finite numbers")
    return numbers[:count]


def xywh_box(row: Mapping[str, Any], *names: str) -> tuple[float, float, float, float] | None:
    """x y w h under the first of these names, as x1 y1 x2 y2; None for four zeros."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None or value == []:
        return None
    x, y, w, h = finite(value, 4, names[0])
    return (x, y, x + w, y + h) if w > 0 and h > 0 else None


def score_of(row: Mapping[str, Any], *names: str) -> float | None:
    value = next((row[name] for name in names if row.get(name) is not None), None)
    return None if value is None else finite([value], 1, names[0])[0]


def mapping(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError("not an object")
    return cast("Mapping[str, Any]", row)


def rows_of(value: Any, name: str) -> list[Row]:
    return [(f"{name}[{i}]", row) for i, row in enumerate(listed(value, name))]


def keys_of(content: Any) -> set[str]:
    """Keys of an object, or of the first object of a list."""
    if isinstance(content, list) and content:
        content = cast("list[Any]", content)[0]
    return {str(key) for key in cast("Mapping[Any, Any]", content)} if isinstance(content, Mapping) else set()
