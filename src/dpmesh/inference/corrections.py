"""Corrections of predicted people by hand: their list, and the JSON file that keeps it.

Light to import: the command line reads the file before it loads a model. What a correction does to a scene is in
correct.py, to a video in video/correct.py.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, cast, get_args

from dpmesh.errors import InputError
from dpmesh.io import atomic_write, read_json

SCHEMA = "dpmesh.corrections/1"
LARGEST_FILE = 16 * 2**20
MOST = 10_000
"""Corrections of one image or video; images in one file."""
Operation = Literal["move", "hide", "swap", "delete", "add", "floor"]
Part = Literal["all", "arms", "legs"]
FARTHEST = 1e6
"""Bound of pixels and metres."""


@dataclass(frozen=True)
class Correction:
    """One step. `person` is the number in the uncorrected result; people that were added follow, in the order of the
    list, and those that are deleted keep their numbers.

    move: `joint` (skeletons.JOINTS30) is at `pixel` (x y, image pixels) or `point` (metres, camera frame).
    hide: the keypoint of `joint` is not used; a `move` of that joint before it is withdrawn.
    swap: left and right keypoints of `part` exchange their places.
    delete: the person is not in the result. add: a person in `box` (x1 y1 x2 y2) or with `keypoints` (COCO-17, x y
    confidence; 0 is not visible), image pixels.
    floor: the feet of all people, or of `people` alone, stand on a floor: the plane normal · point = -`height` (up,
    camera frame; metres of the camera above it); or through the points of it at `pixels`, each as far away as the
    foot next to it in the image; or without these fields that of the feet. The last one counts (floors.py).
    In a video `person` is the track's number, and `frame` the frame that move, hide, swap and `pixels` are of.
    """

    op: Operation
    person: int | None = None
    joint: str | None = None
    pixel: tuple[float, float] | None = None
    point: tuple[float, float, float] | None = None
    part: Part = "all"
    box: tuple[float, float, float, float] | None = None
    keypoints: tuple[tuple[float, float, float], ...] | None = None
    frame: int | None = None
    normal: tuple[float, float, float] | None = None
    height: float | None = None
    pixels: tuple[tuple[float, float], ...] | None = None
    people: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Raises InputError for fields that are missing, wrong, or of another operation."""
        _check(vars(self))

    def as_json(self) -> dict[str, Any]:
        """The fields that are set, as plain lists and numbers."""
        plain = {name: value for name, value in vars(self).items() if value is not None}
        if self.op != "swap":
            del plain["part"]
        return cast("dict[str, Any]", json.loads(json.dumps(plain)))

    @property
    def mark(self) -> str:
        """The step in words, as a person's `corrected` has it."""
        what = self.joint if self.joint is not None else self.part if self.op == "swap" else ""
        when = "" if self.frame is None else f" in frame {self.frame}"
        return f"{self.op} {what}".strip() + when


@dataclass(frozen=True)
class Entry:
    """The corrections of one image or video. sha256: of its file; empty for an image without a file."""

    source: str
    sha256: str
    corrections: tuple[Correction, ...]


@dataclass(frozen=True)
class Corrections:
    """The content of a file: entries in order.

    >>> list = Corrections((Entry("a.jpg", "", (Correction("hide", 0, "L_Wrist"),)),))
    >>> list.of("a.jpg", "")
    (Correction(op='hide', person=0, joint='L_Wrist', pixel=None, ...
    """

    entries: tuple[Entry, ...] = ()
    where: str = field(default="corrections", compare=False)
    """The file, for error messages."""

    @classmethod
    def read(cls, path: str | Path) -> "Corrections":
        """Raises InputError for a file that cannot be read, or holds anything else."""
        plain, where = read_json(Path(path), LARGEST_FILE), str(path)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            _refuse(f"is not of the schema {SCHEMA}", where=where)
        images = cast("dict[str, Any]", plain).get("images")
        entries = _list(images, "images", where)
        return cls(tuple(_entry(one, f"{where}: images[{i}]") for i, one in enumerate(entries)), where)

    def write(self, path: str | Path) -> None:
        """Write the file whole or not at all. Raises OutputError."""
        images = [
            {"source": e.source, "sha256": e.sha256, "corrections": [c.as_json() for c in e.corrections]}
            for e in self.entries
        ]
        content = json.dumps({"schema": SCHEMA, "images": images}, indent=1, allow_nan=False)
        atomic_write(Path(path), content + "\n")

    def of(self, source: str, sha256: str) -> tuple[Correction, ...]:
        """Those of an image, empty where the file has none: by its checksum, or by its name where the entry has
        no checksum. Raises InputError for an entry of that name and another checksum."""
        name = Path(source).name
        same = [e for e in self.entries if e.sha256 and e.sha256 == sha256]
        same = same or [e for e in self.entries if not e.sha256 and Path(e.source).name == name]
        if same:
            return tuple(one for entry in same for one in entry.corrections)
        if any(Path(e.source).name == name for e in self.entries):
            _refuse(
                f"its corrections of {name} are of a file with other content",
                "Correct the new file, or remove the entry's sha256.",
                self.where,
            )
        return ()


def corrections_record(steps: Sequence[Correction]) -> object:
    """As results record it among their options: None without corrections."""
    if not steps:
        return None
    text = json.dumps([step.as_json() for step in steps])
    count = f"{len(steps)} correction" + ("s" if len(steps) > 1 else "")
    return {"file": count, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def corrections_of(plain: object, where: str) -> tuple[Correction, ...]:
    """A list as `Correction.as_json` makes its items. Raises InputError."""
    return tuple(_correction(item, f"{where}[{i}]") for i, item in enumerate(_list(plain, "the list", where)))


def _entry(plain: object, where: str) -> Entry:
    item = cast("dict[str, Any]", plain) if isinstance(plain, dict) else {}
    if set(item) != {"source", "sha256", "corrections"}:
        _refuse("must have source, sha256 and corrections, nothing else", where=where)
    source, sha256 = item["source"], item["sha256"]
    if not isinstance(source, str) or not isinstance(sha256, str):
        _refuse("source and sha256 must be texts", where=where)
    return Entry(source, sha256, corrections_of(item["corrections"], f"{where}.corrections"))


def _correction(plain: object, where: str) -> Correction:
    item = cast("dict[str, Any]", plain) if isinstance(plain, dict) else {}
    known = Correction.__dataclass_fields__
    if unknown := [name for name in item if name not in known]:
        _refuse(f"unknown field {str(unknown[0])[:40]!r}", f"Known: {', '.join(known)}.", where)
    if "op" not in item:
        _refuse("has no op", f"Known: {', '.join(get_args(Operation))}.", where)
    fields = {name: _tuples(value) for name, value in item.items()}
    if isinstance(item.get("people"), list):
        fields["people"] = tuple(cast("list[Any]", item["people"]))
    try:
        _check(fields)
    except InputError as error:
        raise InputError(error.what, where=where, fix=error.fix) from None
    return Correction(**fields)


def _check(fields: Mapping[str, Any]) -> None:
    """Raise InputError for fields of a correction that are missing, wrong, or of another operation."""
    op, part = fields["op"], fields.get("part", "all")
    if not isinstance(op, str) or op not in _FIELDS:
        _refuse(f"unknown op {str(op)[:40]!r}", f"Known: {', '.join(_FIELDS)}.")
    for name, (fits, wanted) in _CHECKS.items():
        value = fields.get(name)
        if value is not None and name not in _FIELDS[op]:
            _refuse(f"{op} takes no {name}")
        if value is not None and not fits(value):
            listed = f", of {', '.join(_joints())}" if name == "joint" else ""
            _refuse(f"{name} of {op} must be {wanted}{listed}")
    if part not in get_args(Part) or (part != "all" and op != "swap"):
        _refuse(f"part must be of {', '.join(get_args(Part))}, and belongs to swap")
    for name in ("person", "joint"):
        if name in _FIELDS[op] and fields.get(name) is None:
            _refuse(f"{op} needs {name}")
    for one, other in (("pixel", "point"), ("box", "keypoints")):
        if one in _FIELDS[op] and (fields.get(one) is None) == (fields.get(other) is None):
            _refuse(f"{op} needs {one} or {other}, not both")
    normal, height = fields.get("normal") is not None, fields.get("height") is not None
    if normal != height or (normal and fields.get("pixels") is not None):
        _refuse("floor takes normal and height, or pixels, or none of them")


def _list(plain: object, name: str, where: str) -> Sequence[object]:
    if not isinstance(plain, list):
        _refuse(f"{name} must be a list", where=where)
    items = cast("list[object]", plain)
    if len(items) > MOST:
        _refuse(f"{name} has {len(items)} items, more than {MOST}", where=where)
    return items


def _tuples(value: Any) -> Any:
    """Lists as tuples, and the numbers in them as floats."""
    if not isinstance(value, list):
        return value
    return tuple(
        float(one)
        if isinstance(one, int) and not isinstance(one, bool) and abs(one) <= FARTHEST
        else _tuples(one)
        for one in cast("list[Any]", value)
    )


def _joints() -> tuple[str, ...]:
    from dpmesh.skeletons import JOINTS30  # here: imports numpy, and --help does not

    return JOINTS30.joints


def _refuse(what: str, fix: str = "See docs/guide/corrections.md.", where: str = "correction") -> NoReturn:
    raise InputError(what, where=where, fix=fix)


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and bool(abs(value) <= FARTHEST)


def _numbers(count: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and len(value) == count and all(map(_number, value))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= FARTHEST


def _box(value: Any) -> bool:
    return _numbers(4)(value) and value[0] < value[2] and value[1] < value[3]


def _points(value: Any) -> bool:
    return isinstance(value, tuple) and 0 < len(value) <= MOST and all(map(_numbers(2), value))


def _people(value: Any) -> bool:
    return isinstance(value, tuple) and 0 < len(value) <= MOST and all(map(_whole, value))


def _pose(value: Any) -> bool:
    rows = isinstance(value, tuple) and len(value) == 17 and all(map(_numbers(3), value))
    return rows and all(0 <= row[2] <= 1 for row in value) and any(row[2] > 0 for row in value)


_FIELDS: Mapping[str, tuple[str, ...]] = {
    "move": ("person", "joint", "pixel", "point", "frame"),
    "hide": ("person", "joint", "frame"),
    "swap": ("person", "frame"),
    "delete": ("person",),
    "add": ("box", "keypoints"),
    "floor": ("normal", "height", "pixels", "people", "frame"),
}
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "person": (_whole, "a number from 0"),
    "frame": (_whole, "a number from 0"),
    "joint": (lambda value: value in _joints(), "the name of a joint"),
    "pixel": (_numbers(2), "two finite numbers, x y"),
    "point": (
        lambda value: _numbers(3)(value) and value[2] > 0,
        "three finite numbers, x y z, before the camera",
    ),
    "normal": (
        lambda value: _numbers(3)(value) and math.hypot(*value) > 1e-3,
        "three finite numbers, x y z, not all zero",
    ),
    "height": (lambda value: _number(value) and value > 0, "metres, more than zero"),
    "pixels": (_points, "a list of x y, finite numbers"),
    "people": (_people, "a list of numbers from 0"),
    "box": (_box, "four finite numbers, x1 y1 x2 y2, with x1 < x2 and y1 < y2"),
    "keypoints": (_pose, "17 rows of x, y and a confidence in [0, 1], one of them above 0"),
}
