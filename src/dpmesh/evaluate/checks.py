"""Values from users' files: checked, with an InputError that names the file and the field, and escaped for printing."""

import math
import re
import unicodedata
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh import io
from dpmesh.data.annotation import invertible
from dpmesh.errors import DPMeshError, InputError

LARGEST = 1e9
"""Larger numbers are no measurement, whatever the unit."""
LARGEST_SIDE = 100_000
"""Pixels."""


def read_json(path: Path) -> Any:
    """A data set's JSON file. Raises InputError."""
    try:
        return io.read_json(path)
    except InputError as error:
        raise InputError(error.what, where=error.where, fix="Download it again.") from None


@contextmanager
def misfits(where: Path) -> Generator[None]:
    """Turns the errors of a reader that meets fields of a wrong kind into an InputError that names `where`."""
    try:
        yield
    except MemoryError:
        raise InputError("does not fit into memory", where=str(where)) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        fix = "Download the files again."
        raise InputError(f"a field has a wrong kind of value ({cause})", where=str(where), fix=fix) from None


def entry(row: object, name: str, where: str) -> Any:
    """row[name]. Raises InputError if `row` is no dictionary or lacks it."""
    if not isinstance(row, dict):
        raise InputError("not a dictionary", where=where, fix="This is not the set's file.")
    if name not in row:
        raise InputError(f"the field {name!r} is missing", where=where, fix="Download the file again.")
    return cast("dict[str, Any]", row)[name]


def rows(content: object, name: str, where: str) -> list[Any]:
    """content[name]. Raises InputError if it is no list."""
    value = entry(content, name, where)
    if not isinstance(value, list):
        raise InputError(f"{name} is not a list", where=where, fix="This is not the set's file.")
    return cast("list[Any]", value)


def numbers(value: object, shape: tuple[int, ...], where: str, *, finite: bool = True) -> NDArray[np.float64]:
    """An array of this shape. -1 in `shape` is any length; extra leading axes of length 1 are dropped (1×72).

    Raises InputError for another shape, for numbers above LARGEST and, with `finite`, for numbers that are not finite.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("not an array of numbers", where=where) from None
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    fits = array.ndim == len(shape) and all(w in (-1, n) for w, n in zip(shape, array.shape, strict=True))
    if not fits:
        wanted, got = ("×".join(str(n) if n >= 0 else "n" for n in s) for s in (shape, array.shape))
        raise InputError(f"{got or 'a number'} instead of {wanted} numbers", where=where)
    if finite and not np.isfinite(array).all():
        raise InputError("a number is not finite", where=where)
    if (np.abs(array) > LARGEST).any():
        raise InputError("a number is beyond anything measured", where=where)
    return array


def whole(value: object, where: str, low: int = 0, high: int = LARGEST_SIDE) -> int:
    """An integer in [low, high]. Raises InputError."""
    number = numbers(value, (), where)
    if number != np.round(number) or not low <= number <= high:
        raise InputError(f"{float(number):g} is no whole number from {low} to {high}", where=where)
    return int(number)


def camera(value: object, where: str) -> NDArray[np.float64]:
    """K (3, 3) of a pinhole camera. Raises InputError if it is singular."""
    K = numbers(value, (3, 3), where)
    if not invertible(K):
        raise InputError("this camera cannot be inverted", where=where)
    return K


def betas(value: object, where: str) -> NDArray[np.float64]:
    """The first ten shape coefficients (10,). Raises InputError for fewer."""
    coefficients = numbers(np.ravel(np.asarray(value)), (-1,), where)
    if len(coefficients) < 10:
        raise InputError(f"{len(coefficients)} shape coefficients instead of 10", where=where)
    return coefficients[:10]


def rotations(value: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Rotation matrices (..., 3, 3). Raises InputError unless orthonormal, with determinant 1."""
    off = np.abs(value @ np.swapaxes(value, -1, -2) - np.eye(3)).max(initial=0)
    if off > 1e-2 or (np.linalg.det(value) < 0).any():
        raise InputError("this is no rotation", where=where)
    return value


def first_existing(candidates: list[Path], what: str) -> Path:
    """The first path that exists. Raises InputError that names all candidates."""
    for path in candidates:
        if path.exists():
            return path
    raise InputError(
        f"{what} was not found",
        where=" or ".join(str(path) for path in candidates),
        fix="docs/guide/evaluation.md says what to download and where to put it.",
    )


COUNT, NUMBER, STRING, FLAG, ANY = "a count", "a finite number", "a text", "true or false", "anything"


@dataclass(frozen=True)
class Each:
    """An object with any names, whose values have the shape `value`."""

    value: Any


@dataclass(frozen=True)
class Maybe:
    """The shape `value`, or null."""

    value: Any


def require(value: Any, shape: Any, where: str, fix: str, error: type[DPMeshError] = InputError) -> None:
    """Check a JSON value against a shape. Raises `error`, which names the first field that does not fit.

    shape: one of the constants, Each, Maybe, {name: shape} with required names (others are allowed), or [shape] for a
    list.
    """
    if problem := _problem(value, shape, ""):
        raise error(problem, where=where, fix=fix)


def _problem(value: Any, shape: Any, path: str) -> str:
    if isinstance(shape, Maybe):
        return "" if value is None else _problem(value, shape.value, path)
    if isinstance(shape, (Each, dict)):
        return _object(value, shape, path)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{path or 'it'} is not a list"
        return next(filter(None, (_problem(v, shape[0], f"{path}[{i}]") for i, v in enumerate(value))), "")
    return "" if _fits(value, shape) else f"{path or 'it'} is not {shape}"


def _object(value: Any, shape: "Each | dict[str, Any]", path: str) -> str:
    if not isinstance(value, dict):
        return f"{path or 'it'} is not an object"
    fields: Mapping[str, Any] = value
    if isinstance(shape, Each):
        inner = ((name, shape.value) for name in fields)
    else:
        missing = [name for name in shape if name not in fields]
        if missing:
            return f"{_inside(path, missing[0])} is missing"
        inner = iter(shape.items())
    return next(filter(None, (_problem(fields[n], s, _inside(path, n)) for n, s in inner)), "")


def _inside(path: str, name: str) -> str:
    return f"{path}.{name[:60]}" if path else name[:60]


def _fits(value: Any, shape: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        COUNT: isinstance(value, int) and number and 0 <= value < 2**53,
        NUMBER: number and abs(value) < 1e300 and math.isfinite(value),
        STRING: isinstance(value, str),
        FLAG: isinstance(value, bool),
        ANY: True,
    }[shape]


_MARKDOWN = re.compile(r"([\\|`*\[\]$]|(?<![^\W_])_|_(?![^\W_])|~(?=~))")
"""Characters with a meaning in Markdown; underscores within a word have none."""


def one_line(text: object, limit: int = 0) -> str:
    """The text as one printable line: control, format and direction characters and lone surrogates become escapes.

    limit: longest result in characters; longer ones are cut. 0: no limit.
    """
    shown = "".join(_escaped(c) for c in str(text))
    return shown if not limit or len(shown) <= limit else shown[: limit - 1] + "…"


def markdown_text(text: object) -> str:
    """`one_line`, escaped for a Markdown table or list: no markup, no HTML."""
    escaped = _MARKDOWN.sub(r"\\\1", one_line(text))
    return re.sub(r"&(?=#|\w+;)", "&amp;", escaped).replace("<", "&lt;")


def plot_label(text: object) -> str:
    """`one_line` as a matplotlib label. Legends skip labels that begin with an underscore, so those get a space.
    Drawing it needs rcParams["text.parse_math"] = False."""
    shown = one_line(text, 48)
    return f" {shown}" if shown.startswith("_") else shown


def file_name(text: object) -> str:
    """A file name for any file system: at most 100 characters of a-z, A-Z, 0-9, - and _."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in str(text))[:100]


def _escaped(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
