"""How much a pickle's content is when what is shared counts each time: a small file can be too large to walk over."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.pickle_arrays import Foreign, Malformed

DEEPEST = 100
"""Levels of nesting."""

Value = Any


def check_size(root: Value, most: int) -> None:
    """Refuse what holds itself, what is nested too deeply, and what a loop over all of it would not come to an end of.

    A list of twice the same list, thirty times over, is 300 bytes and a thousand million elements.
    """
    done: dict[int, int] = {}  # id -> elements in it, what is shared counted each time
    path: list[tuple[Value, Iterator[Value], list[int]]] = [(root, iter(_inside(root)), [_own(root)])]
    child: Value
    inside = {id(root)}
    while path:
        value, rest, total = path[-1]
        child = next(rest, done)  # `done` is no value of the file
        if child is done:
            path.pop()
            inside.discard(id(value))
            done[id(value)] = total[0]
            if path:
                path[-1][2][0] += total[0]
            continue
        if id(child) in inside:
            raise Malformed("something holds itself")
        if id(child) in done:
            total[0] += done[id(child)]
        elif type(child) in _CONTAINERS:
            if len(path) == DEEPEST:
                raise Malformed("it is nested too deeply")
            inside.add(id(child))
            path.append((child, iter(_inside(child)), [_own(child)]))
        else:
            total[0] += 1
        if total[0] > most:
            raise Malformed("it refers to the same things too often")


_CONTAINERS = (list, tuple, dict, set, Foreign, np.ndarray)


def _inside(value: Value) -> list[Value]:
    if isinstance(value, Foreign):
        return list(value.fields.values())
    if isinstance(value, dict):
        return list(cast("dict[Any, Any]", value).values())
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        return array.ravel().tolist() if array.dtype.kind == "O" else []
    return list(cast("list[Any]", value)) if isinstance(value, list | tuple | set) else []


def _own(value: Value) -> int:
    if not isinstance(value, np.ndarray):
        return 1
    array = cast("NDArray[Any]", value)
    return 1 if array.dtype.kind == "O" else 1 + array.size
