"""Config dataclasses to nested dictionaries (JSON, TOML) and back, with validation."""

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar

from dpmesh.errors import ConfigError

Config = TypeVar("Config")


def to_dict(config: object) -> dict[str, Any]:
    """A config dataclass as nested dictionaries, for JSON."""
    return dataclasses.asdict(config)  # pyright: ignore[reportArgumentType]  (any dataclass instance)


def from_dict(kind: type[Config], data: Mapping[str, Any], where: str = "") -> Config:
    """A config dataclass of type `kind` from nested dictionaries (JSON, TOML). where: file or setting, for messages.

    Raises ConfigError for unknown or missing names, values of a wrong type, and numbers that are not finite.
    """
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    place = where or kind.__name__
    if unknown := [name for name in data if name not in names]:
        raise ConfigError(
            f"unknown setting {_shown(unknown[0])}",
            where=place,
            fix=f"There are: {', '.join(sorted(names))}.",
        )
    values = {name: _value(hints[name], value, f"{place}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except ConfigError as error:  # add the file to the setting
        if not where:
            raise
        inside = f": {error.where}" if error.where not in ("", kind.__name__) else ""
        raise ConfigError(error.what, where=f"{place}{inside}", fix=error.fix) from None
    except (TypeError, ValueError, ArithmeticError) as error:  # also of numbers that no check covers
        raise ConfigError(str(error).replace("__init__() ", ""), where=place) from None


def override(config: Config, changes: Mapping[str, Any], where: str = "") -> Config:
    """The config with the values of nested tables in place of its own. Raises ConfigError as from_dict does.

    A table with another `kind` than the config's replaces it: its other values are that kind's defaults.
    """
    return from_dict(type(config), _merged(to_dict(config), changes), where)


def _merged(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(plain)
    for name, value in changes.items():
        old = plain.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            table, own = typing.cast("Mapping[str, Any]", value), typing.cast("Mapping[str, Any]", old)
            same = table.get("kind", own.get("kind")) == own.get("kind")
            merged[name] = _merged(own, table) if same else dict(table)
        else:
            merged[name] = value
    return merged


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kinds := _kinds(arguments):
        table = typing.cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {"kind": "?"}
        kind = table.get("kind", next(iter(kinds)))
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(f"the kind must be one of {', '.join(kinds)}", where=where)
        return from_dict(kinds[kind], table, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{_shown(value)} is not a table of settings", where=where)
        return from_dict(typing.cast("type[Any]", hint), typing.cast("Mapping[str, Any]", value), where)
    if origin is tuple:
        return _items(arguments, value, where)
    if origin is Literal:
        for argument in arguments:
            if type(value) is type(argument) and value == argument:  # True is no 1
                return argument
        raise ConfigError(f"{_shown(value)} is not one of {', '.join(map(repr, arguments))}", where=where)
    if origin in (typing.Union, types.UnionType):
        return _any_of(arguments, value, where)
    if isinstance(origin, type):
        if not isinstance(value, origin):
            raise ConfigError(f"{_shown(value)} is not a {origin.__name__}", where=where)
        return value
    return _plain(hint, value, where)


def _items(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """A tuple: any length for tuple[X, ...], exactly these for tuple[X, Y]."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{_shown(value)} is not a list", where=where)
    items = typing.cast("list[Any]", value)
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(items)
    if len(items) != len(hints):
        raise ConfigError(f"{len(items)} values instead of {len(hints)}", where=where)
    each = enumerate(zip(hints, items, strict=True))
    return tuple(_value(hint, item, f"{where}[{i}]") for i, (hint, item) in each)


def _any_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    """The value as the first member of a union that accepts it."""
    for hint in hints:
        with suppress(ConfigError):
            return _value(hint, value, where)
    names = " or ".join(
        "none" if hint is type(None) else getattr(hint, "__name__", str(hint)) for hint in hints
    )
    raise ConfigError(f"{_shown(value)} is not {names}", where=where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    """A number, a boolean, a string or None."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        name = "none" if hint is type(None) else hint.__name__
        raise ConfigError(f"{_shown(value)} is not a {name}", where=where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError("the number is not finite", where=where)
    return value


def _shown(value: object) -> str:
    """A short repr of a value of any size and depth."""
    return reprlib.repr(value)


def _kinds(union: tuple[Any, ...]) -> dict[str, Any]:
    """The dataclasses of a union by their `kind`; the first is the default."""
    members = (member for member in union if dataclasses.is_dataclass(member))
    return {str(f.default): m for m in members for f in dataclasses.fields(m) if f.name == "kind"}


MOST_LAYERS, LARGEST_SIZE = 100, 65_536
"""Bounds of every size in a configuration; the presets have at most 12 layers and a width of 2,048."""


def check_sizes(config: object, zero: Collection[str] = ()) -> None:
    """Raise ConfigError unless all integers of a config dataclass are possible sizes of a model and all floats positive
    and finite. zero: fields that may be 0."""
    where = type(config).__name__
    for item in dataclasses.fields(config):  # pyright: ignore[reportArgumentType]  (any dataclass instance)
        value: object = getattr(config, item.name)
        several = typing.cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
        most = MOST_LAYERS if "layers" in item.name or "depth" in item.name else LARGEST_SIZE
        if len(several) > MOST_LAYERS:
            raise ConfigError(f"{item.name} has {len(several)} values", where=where)
        for size in several:
            if isinstance(size, bool) or not isinstance(size, int | float):
                continue
            least = 0 if item.name in zero else 1 if isinstance(size, int) else math.ulp(0.0)
            if not least <= size <= most:
                bounds = f"between {least} and {most:,}" if isinstance(size, int) else "positive and finite"
                raise ConfigError(f"{item.name}={_shown(size)} must be {bounds}", where=where)
