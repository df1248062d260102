"""What a JSON value must look like, and the first place where it does not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmesh.errors import DPMeshError, InputError

COUNT, NUMBER, STRING, FLAG, ANY = "a count", "a finite number", "a text", "true or false", "anything"


@dataclass(frozen=True)
class Each:
    """An object of any names, each with such a value."""

    value: Any


@dataclass(frozen=True)
class Maybe:
    """Such a value, or null."""

    value: Any


def require(value: Any, shape: Any, where: str, fix: str, error: type[DPMeshError] = InputError) -> None:
    """shape: one of the constants, Each, Maybe, {name: shape} with names that must be there (others may), or [shape]
    for a list. Raises `error`, which names the field."""
    if problem := _problem(value, shape, ""):
        raise error(problem, where=where, fix=fix)


def _problem(value: Any, shape: Any, place: str) -> str:
    if isinstance(shape, Maybe):
        return "" if value is None else _problem(value, shape.value, place)
    if isinstance(shape, (Each, dict)):
        return _object(value, shape, place)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place or 'it'} is not a list"
        return next(filter(None, (_problem(v, shape[0], f"{place}[{i}]") for i, v in enumerate(value))), "")
    return "" if _fits(value, shape) else f"{place or 'it'} is not {shape}"


def _object(value: Any, shape: "Each | dict[str, Any]", place: str) -> str:
    if not isinstance(value, dict):
        return f"{place or 'it'} is not an object"
    found: Mapping[str, Any] = value
    if isinstance(shape, Each):
        inner = ((name, shape.value) for name in found)
    else:
        missing = [name for name in shape if name not in found]
        if missing:
            return f"{_inside(place, missing[0])} is missing"
        inner = iter(shape.items())
    return next(filter(None, (_problem(found[n], s, _inside(place, n)) for n, s in inner)), "")


def _inside(place: str, name: str) -> str:
    return f"{place}.{name[:60]}" if place else name[:60]


def _fits(value: Any, shape: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        COUNT: isinstance(value, int) and number and 0 <= value < 2**53,
        NUMBER: number and abs(value) < 1e300 and math.isfinite(value),
        STRING: isinstance(value, str),
        FLAG: isinstance(value, bool),
        ANY: True,
    }[shape]
