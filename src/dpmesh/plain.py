"""Config dataclasses as plain data (JSON, TOML) and back: unknown names and wrong types are refused by name."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from dpmesh.errors import ConfigError

Config = TypeVar("Config")


def to_plain(config: object) -> dict[str, Any]:
    """A config dataclass as nested dictionaries, for JSON."""
    return dataclasses.asdict(config)  # pyright: ignore[reportArgumentType]  (any dataclass instance)


def from_plain(kind: type[Config], data: Mapping[str, Any], where: str = "") -> Config:
    """A config dataclass from nested dictionaries (JSON, TOML); raises ConfigError on unknown or missing names."""
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    place = where or kind.__name__
    if unknown := sorted(set(data) - names):
        raise ConfigError(
            f"unknown setting {unknown[0]!r}", where=place, fix=f"There are: {', '.join(sorted(names))}."
        )
    values = {name: _value(hints[name], value, f"{place}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except (
        TypeError,
        ValueError,
        ArithmeticError,
    ) as error:  # the two last: of numbers that no check foresaw
        raise ConfigError(str(error).replace("__init__() ", ""), where=place) from None


def changed(config: Config, changes: Mapping[str, Any], where: str = "") -> Config:
    """The config with the values of nested tables laid over its own; raises ConfigError as from_plain does.

    A table that names another `kind` than the config has takes nothing from it but that kind's defaults.
    """
    return from_plain(type(config), _laid_over(to_plain(config), changes), where)


def _laid_over(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(plain)
    for name, value in changes.items():
        old = plain.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            table, own = typing.cast("Mapping[str, Any]", value), typing.cast("Mapping[str, Any]", old)
            same = table.get("kind", own.get("kind")) == own.get("kind")
            found[name] = _laid_over(own, table) if same else dict(table)
        else:
            found[name] = value
    return found


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kinds := _kinds(arguments):
        given = typing.cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {"kind": "?"}
        kind = str(given.get("kind", next(iter(kinds))))
        if kind not in kinds:
            raise ConfigError(f"its kind must be one of {', '.join(kinds)}", where=where)
        return from_plain(kinds[kind], given, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(typing.cast("type[Any]", hint), typing.cast("Mapping[str, Any]", value), where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{value!r} is not a list", where=where)
        items = typing.cast("list[Any]", value)
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{value!r} is not one of {', '.join(map(repr, arguments))}", where=where)
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, where)
    if isinstance(origin, type):
        if not isinstance(value, origin):
            raise ConfigError(f"{value!r} is not a {origin.__name__}", where=where)
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{value!r} is not a {hint.__name__}", where=where)
    return value


def _one_of(members: tuple[Any, ...], value: Any, where: str) -> Any:
    """The value as the first member of a union that it can be."""
    for member in members:
        try:
            return _value(member, value, where)
        except ConfigError:
            continue
    names = " or ".join(getattr(member, "__name__", str(member)) for member in members)
    raise ConfigError(f"{value!r} is not a {names}", where=where)


def _kinds(union: tuple[Any, ...]) -> dict[str, Any]:
    """The dataclasses of a union by their `kind`; the first is meant where a file names none."""
    members = (member for member in union if dataclasses.is_dataclass(member))
    return {str(f.default): m for m in members for f in dataclasses.fields(m) if f.name == "kind"}
