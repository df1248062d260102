"""The user's own people: keypoint files (COCO or OpenPose, told apart by their content) and boxes.

What is forgiven is counted (KeypointPeople); all else raises InputError with file, person and field.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Float64

from dpmesh.errors import InputError
from dpmesh.io import read_json
from dpmesh.pipeline.detect import Detection
from dpmesh.skeletons import COCO17, JOINTS30, OPENPOSE18, OPENPOSE25, Skeleton, convert

LARGEST_FILE = 64 * 2**20
FAR_OUTSIDE = 0.5
"""A point further outside than this part of the picture's long side is taken for a mistake: unseen."""
MOST_BOXES = 1000
"""Of one image: each is looked into, which takes some hundredths of a second."""
FARTHEST_BOX = 10.0
"""A box that reaches further outside than this many long sides of the image is taken for a mistake."""
MARGIN = 0.15
"""A box around keypoints leaves this part of its long side free: heads and hands reach past their joints."""

_FORMATS = (
    "Give COCO annotations, a list of COCO results, or OpenPose's {people: [{pose_keypoints_2d: [...]}]}."
)


@dataclass(frozen=True)
class KeypointPeople:
    """People of one picture and what was forgiven in reading them.

    non_finite: points with NaN, infinity or null; far_outside: points far from the picture; both now unseen.
    skipped: people of whom nothing was seen and no box was given, and crowds (`iscrowd`).
    """

    people: tuple[Detection, ...]
    non_finite: int = 0
    far_outside: int = 0
    skipped: int = 0


def read_keypoints(
    path: Path, image_name: str, image_size: tuple[int, int], only_image: bool = True
) -> list[Detection]:
    """The people of one picture in a keypoint file; `read_keypoint_file` without its counts."""
    return list(read_keypoint_file(path, image_name, image_size, only_image).people)


def read_keypoint_file(
    path: Path, image_name: str, image_size: tuple[int, int], only_image: bool = True
) -> KeypointPeople:
    """Read the people of the picture `image_name` (file name) of `image_size` (h, w) px.

    only_image: no other picture is in play, so entries that name no picture belong to this one.
    A point's third number is its confidence, cut to [0, 1] (COCO's 1 "hidden" and 2 "visible" give 1).
    Raises InputError for a file in none of the formats, and for a picture that the file does not know.
    """
    content = _read_json(path)
    if isinstance(content, dict) and "people" in content:
        if not only_image:
            raise InputError(
                "OpenPose's format names no picture",
                where=str(path),
                fix="Give one picture with it, or a COCO file with an images table.",
            )
        return _collect(
            _rows(content["people"], path, "people"), "people", path, image_size, _openpose_person
        )
    if isinstance(content, dict) and "annotations" in content:
        rows = _rows(content["annotations"], path, "annotations")
        if "images" in content:
            ids = _ids_of(_rows(content["images"], path, "images"), image_name, path)
            rows = [row for row in rows if _id(row[1], "image_id", f"annotations[{row[0]}]", path) in ids]
            return _collect(rows, "annotations", path, image_size, _coco_person)
        return _collect(
            _named(rows, image_name, only_image, path), "annotations", path, image_size, _coco_person
        )
    if isinstance(content, list):
        rows = _named(_rows(content, path, "results"), image_name, only_image, path)
        return _collect(rows, "results", path, image_size, _coco_person)
    raise InputError("neither COCO nor OpenPose keypoints", where=str(path), fix=_FORMATS)


def read_boxes(
    source: str | Path, image_name: str, image_size: tuple[int, int]
) -> Float32[np.ndarray, "n 4"]:
    """Boxes (n, 4), x1 y1 x2 y2 px, of one picture of `image_size` (h, w).

    source: the text "x1,y1,x2,y2;x1,y1,x2,y2", or a JSON file with a list of four numbers each, or with a
    dictionary of such lists by file name. A box without area or wholly outside raises InputError.
    """
    text = str(source)
    if text.lower().endswith(".json") or os.path.isfile(text):  # False also for what no path may be
        content, where = _read_json(Path(text)), text
        if isinstance(content, dict):
            table = cast("dict[str, Any]", content)
            names = [name for name in table if _same_file(name, image_name)]
            if not names:
                has = f"It has: {_some(list(table))}."
                raise InputError(f"no boxes for {image_name}", where=where, fix=has)
            content = table[names[0]]
        rows = content
    else:
        rows, where = [part.split(",") for part in text.split(";") if part.strip()], "boxes"
    if not isinstance(rows, list) or not rows:
        raise InputError("no boxes", where=where, fix='Give "x1,y1,x2,y2;..." or a JSON list of them.')
    few_enough(len(cast("list[Any]", rows)), where)
    return np.stack(
        [_box(row, f"{where}: box {i}", image_size) for i, row in enumerate(cast("list[Any]", rows))]
    )


def few_enough(boxes: int, where: str) -> None:
    """Raise InputError for more boxes than are looked into."""
    if boxes > MOST_BOXES:
        raise InputError(f"{boxes:,} boxes, more than {MOST_BOXES:,}", where=where)


_Row = tuple[int, dict[str, Any]]
"""One entry of a list in the file, with its place there."""
_Person = tuple[Float64[np.ndarray, "j 3"], Skeleton, list[float] | None, float | None]
"""Points as they stand in the file, their joint set, xyxy box and score where given."""


def _read_json(path: Path) -> Any:
    try:
        return read_json(path, LARGEST_FILE)
    except InputError as error:
        fix = _FORMATS if "JSON" in error.what else "Give a JSON file of one image's people."
        raise InputError(error.what, where=error.where, fix=fix) from None


def _rows(value: Any, path: Path, name: str) -> list[_Row]:
    if not isinstance(value, list):
        raise InputError(f"{name} is not a list", where=str(path), fix=_FORMATS)
    for index, row in enumerate(cast("list[Any]", value)):
        if not isinstance(row, dict):
            raise InputError("not an object", where=f"{path}: {name}[{index}]", fix=_FORMATS)
    return list(enumerate(cast("list[dict[str, Any]]", value)))


def _field(row: dict[str, Any], name: str, where: str, path: Path) -> Any:
    if name not in row:
        raise InputError(f"the field {name} is missing", where=f"{path}: {where}", fix=_FORMATS)
    return row[name]


def _same_file(named: Any, image_name: str) -> bool:
    """File names are compared without their folders; separators of both systems. They never become a path."""
    return isinstance(named, str) and _base(named) == _base(image_name)


def _base(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(map(_shown, names[:3]))
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"


def _shown(value: Any) -> str:
    """A name or number of the file for a message: short, on one line, nothing that a terminal would obey."""
    if not isinstance(value, (str, int, float)):
        return f"a {type(value).__name__}"
    text = str(value)
    return "".join(c if c.isprintable() else "?" for c in text[:60]) + ("..." if len(text) > 60 else "")


def _id(row: dict[str, Any], name: str, where: str, path: Path) -> Any:
    value = _field(row, name, where, path)
    if not isinstance(value, (str, int, float)):
        raise InputError("neither a number nor a name", where=f"{path}: {where}.{name}")
    return value


def _ids_of(images: list[_Row], image_name: str, path: Path) -> set[Any]:
    names = [_field(row, "file_name", f"images[{i}]", path) for i, row in images]
    ids = {
        _id(row, "id", f"images[{i}]", path)
        for (i, row), name in zip(images, names, strict=True)
        if _same_file(name, image_name)
    }
    if not ids:
        raise InputError(f"no picture {image_name}", where=f"{path}: images", fix=f"It has: {_some(names)}.")
    return ids


def _named(rows: list[_Row], image_name: str, only_image: bool, path: Path) -> list[_Row]:
    """Rows of a list without an images table: by file_name, else image_id (a name, or the name's number)."""
    stem = PurePosixPath(image_name).stem
    labels = [row.get("file_name", row.get("image_id")) for _, row in rows]

    def ours(label: Any) -> bool:
        is_number = isinstance(label, int) and stem.isdecimal() and int(stem) == label
        return is_number or (isinstance(label, str) and (_same_file(label, image_name) or label == stem))

    found = [row for row, label in zip(rows, labels, strict=True) if ours(label)]
    if found or not rows:
        return found
    by_name = any(isinstance(label, str) for label in labels)
    if only_image and not by_name and len(set(map(_shown, labels))) == 1:
        return rows  # Nothing says which picture, and there is but one.
    raise InputError(
        f"no entry belongs to {image_name}",
        where=str(path),
        fix=f"It has: {_some(list(dict.fromkeys(map(_shown, labels))))}. Add file_name to each entry.",
    )


def _coco_person(row: dict[str, Any], where: str, path: Path) -> _Person:
    points = _points(_field(row, "keypoints", where, path), (COCO17,), f"{path}: {where}.keypoints")
    box = None
    if row.get("bbox") is not None:
        x, y, w, h = _numbers(row["bbox"], 4, f"{path}: {where}.bbox")
        box = [x, y, x + w, y + h]
    score = None
    if row.get("score") is not None:
        score = _numbers([row["score"]], 1, f"{path}: {where}.score")[0]
    return points, COCO17, box, 1.0 if score is None else min(max(score, 0.0), 1.0)


def _openpose_person(row: dict[str, Any], where: str, path: Path) -> _Person:
    name = "pose_keypoints_2d"
    points = _points(_field(row, name, where, path), (OPENPOSE18, OPENPOSE25), f"{path}: {where}.{name}")
    return points, OPENPOSE25 if len(points) == len(OPENPOSE25) else OPENPOSE18, None, None


def _collect(
    rows: list[_Row],
    name: str,
    path: Path,
    image_size: tuple[int, int],
    parse: Callable[[dict[str, Any], str, Path], _Person],
) -> KeypointPeople:
    people: list[Detection] = []
    non_finite = far_outside = skipped = 0
    long_side = max(image_size)
    for index, row in rows:
        where = f"{name}[{index}]"
        if row.get("iscrowd") == 1:
            skipped += 1
            continue
        points, skeleton, given, score = parse(row, where, path)
        points, broken, far = cleaned(points, image_size)
        non_finite, far_outside = non_finite + broken, far_outside + far
        seen = points[points[:, 2] > 0]
        if not len(seen) and given is None:
            skipped += 1
            continue
        box = _around(seen, long_side) if given is None else _box(given, f"{path}: {where}.bbox", image_size)
        score = float(seen[:, 2].mean()) if score is None else score
        exact = points.astype(np.float32)
        people.append(
            Detection(box, convert(exact, skeleton, COCO17), score, convert(exact, skeleton, JOINTS30))
        )
    return KeypointPeople(tuple(people), non_finite, far_outside, skipped)


def cleaned(
    points: Float64[np.ndarray, "j 3"], image_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "j 3"], int, int]:
    """Points that can be used, confidences in [0, 1], the others unseen; how many were not finite, and how many lay
    far outside the image (h, w)."""
    reach = FAR_OUTSIDE * max(image_size)
    limit = np.asarray([image_size[1], image_size[0]]) + reach
    broken = ~np.isfinite(points).all(-1)
    outside = ((points[:, :2] < -reach) | (points[:, :2] > limit)).any(-1)
    far = ~broken & (points[:, 2] > 0) & outside
    out = np.where((broken | far)[:, None], 0, points)
    out[:, 2] = out[:, 2].clip(0, 1)
    out[out[:, 2] == 0] = 0
    return out, int(broken.sum()), int(far.sum())


def _points(value: Any, allowed: tuple[Skeleton, ...], where: str) -> Float64[np.ndarray, "j 3"]:
    """Flat x y confidence triples; null counts as NaN."""
    counts = [3 * len(skeleton) for skeleton in allowed]
    wanted = " or ".join(map(str, counts))
    if not isinstance(value, list):
        raise InputError("not a list of numbers", where=where, fix=f"Give {wanted} numbers.")
    numbers = cast("list[Any]", value)
    if len(numbers) not in counts:
        raise InputError(
            f"{len(numbers)} numbers", where=where, fix=f"Give {wanted}: x, y, confidence per joint."
        )
    return np.asarray([math.nan if v is None else _number(v, where) for v in numbers], np.float64).reshape(
        -1, 3
    )


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{_shown(value)} is not a number", where=where)
    try:
        return float(value)
    except OverflowError:  # An integer of hundreds of digits.
        return math.inf


def _numbers(value: Any, count: int, where: str) -> list[float]:
    """`count` finite numbers."""
    if not isinstance(value, list) or len(cast("list[Any]", value)) != count:
        raise InputError(f"not {count} numbers", where=where)
    numbers = [_number(v, where) for v in cast("list[Any]", value)]
    if not all(map(math.isfinite, numbers)):
        raise InputError("a number is not finite", where=where)
    return numbers


def _box(row: Any, where: str, image_size: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    """One xyxy box that has an area and touches the picture. Numbers may be given as text."""
    if isinstance(row, list) and all(isinstance(v, str) for v in cast("list[Any]", row)):
        try:
            row = [float(v) for v in cast("list[str]", row)]
        except ValueError as error:
            text = _shown(",".join(cast("list[str]", row)))
            raise InputError(f"{text!r} is not four numbers", where=where) from error
    return checked_box(_numbers(row, 4, where), where, image_size)


def checked_box(box: Sequence[float], where: str, image_size: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    """x1 y1 x2 y2, finite, as a box that can be looked into; raises InputError for any other."""
    x1, y1, x2, y2 = box
    far = FARTHEST_BOX * max(image_size)
    fix = "Give x1,y1,x2,y2 in pixels (COCO's bbox: x, y, width, height)."
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} has no area", where=where, fix=fix)
    if x1 >= image_size[1] or y1 >= image_size[0] or x2 <= 0 or y2 <= 0:
        raise InputError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is outside the picture", where=where, fix=fix)
    if min(x1, y1) < -far or max(x2, y2) > max(image_size) + far:
        raise InputError(
            f"the box {x1:g},{y1:g},{x2:g},{y2:g} reaches far outside the picture", where=where, fix=fix
        )
    if max(x2 - x1, y2 - y1) < 1:
        raise InputError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is smaller than a pixel", where=where, fix=fix)
    return np.asarray([x1, y1, x2, y2], np.float32)


def _around(seen: Float64[np.ndarray, "k 3"], long_side: int) -> Float32[np.ndarray, "4"]:
    """Box around seen points with a margin; around very few points, a twentieth of the picture at least."""
    low, high = seen[:, :2].min(0), seen[:, :2].max(0)
    extent = max(float((high - low).max()), long_side / 20)
    return np.concatenate([low - MARGIN * extent, high + MARGIN * extent]).astype(np.float32)
