"""The shape of a JSON result, and text from users' files escaped for printing."""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmesh.errors import DPMeshError, InputError

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
