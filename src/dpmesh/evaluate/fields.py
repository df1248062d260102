"""Fields of foreign files, checked: every misfit is an InputError that names the file and the place."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh import io
from dpmesh.errors import InputError


def read_json(path: Path) -> Any:
    """Of a foreign file; raises InputError."""
    return io.read_json(path)


def entry(row: object, name: str, where: str) -> Any:
    """row[name] of a dictionary that must have it."""
    if not isinstance(row, dict):
        raise InputError("not a dictionary", where=where, fix="This is not the set's file.")
    if name not in row:
        raise InputError(f"the field {name!r} is missing", where=where, fix="Download the file again.")
    return cast("dict[str, Any]", row)[name]


def rows(content: object, name: str, where: str) -> list[Any]:
    """content[name], which must be a list."""
    found = entry(content, name, where)
    if not isinstance(found, list):
        raise InputError(f"{name} is not a list", where=where, fix="This is not the set's file.")
    return cast("list[Any]", found)


def numbers(value: object, shape: tuple[int, ...], where: str, *, finite: bool = True) -> NDArray[np.float64]:
    """An array of this shape; -1 in `shape` is any length, more than this one's leading ones are dropped (1×72)."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise InputError("not an array of numbers", where=where) from None
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    fits = array.ndim == len(shape) and all(w in (-1, n) for w, n in zip(shape, array.shape, strict=True))
    if not fits:
        wanted, got = ("×".join(str(n) if n >= 0 else "n" for n in s) for s in (shape, array.shape))
        raise InputError(f"{got or 'a number'} instead of {wanted} numbers", where=where)
    if finite and not np.isfinite(array).all():
        raise InputError("a number is not finite", where=where)
    return array


def first_existing(candidates: list[Path], what: str) -> Path:
    """The first path that exists; AssetError-like InputError that names all places where it was looked for."""
    for path in candidates:
        if path.exists():
            return path
    raise InputError(
        f"{what} was not found",
        where=" or ".join(str(path) for path in candidates),
        fix="docs/evaluation.md says what to download and where to put it.",
    )
