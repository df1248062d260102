"""An object's state as JSON and back: dataclasses, lists, dicts, numbers, texts and arrays. No code is stored."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

import numpy as np

_ARRAY, _CLASS = "array", "class"


def packed(value: Any) -> Any:
    """Plain JSON values. Raises TypeError for anything else."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: value.dtype.str, "shape": list(value.shape), "values": value.ravel().tolist()}
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: packed(getattr(value, field.name)) for field in fields(value)}
        return {_CLASS: type(value).__name__, "fields": content}
    if isinstance(value, Mapping):
        return {str(name): packed(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [packed(part) for part in cast("list[Any]", value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be stored")


def unpacked(value: Any, classes: Mapping[str, type]) -> Any:
    """What was packed; tuples come back as lists. classes: the dataclasses by name. Raises ValueError, KeyError."""
    if isinstance(value, list):
        return [unpacked(part, classes) for part in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    content = cast("dict[str, Any]", value)
    if _ARRAY in content:
        dtype = np.dtype(content[_ARRAY])
        if dtype.hasobject:
            raise ValueError("an array of objects")
        return np.array(content["values"], dtype).reshape(content["shape"])
    if _CLASS in content:
        return classes[content[_CLASS]](
            **{name: unpacked(part, classes) for name, part in content["fields"].items()}
        )
    return {name: unpacked(part, classes) for name, part in content.items()}
