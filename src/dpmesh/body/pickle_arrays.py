"""What numpy's, scipy's and chumpy's names stand for in a pickle: plain records, and arrays built from checked bytes.

No class of numpy is ever told what a pickle says of it. A dtype from a file is a name and a byte order that are looked
up here; an array is bytes of exactly the length that dtype and shape ask for.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (a dtype that a file names is none that types know)

import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_TEXT = re.compile(r"[SU]([1-9]\d{0,5})")
_ORDERS = ("<", ">", "|", "=")
_MOST_DIMENSIONS = 32
_LONGEST_EMPTY = 10_000
"""Of an array without elements no axis is longer: a shape costs nothing there, and readers allocate by it."""


class Malformed(pickle.UnpicklingError):
    """A pickle says something that no writer of arrays says."""


@dataclass(eq=False)
class Foreign:
    """An object of scipy or chumpy: the class's short name and what was pickled of it. It can do nothing."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

    def build(self, state: object) -> "Foreign":
        if not isinstance(state, dict):
            raise Malformed("the state of an array class is not a dictionary")
        self.fields = {_text(key): value for key, value in cast("dict[object, object]", state).items()}
        return self


@dataclass(frozen=True)
class Name:
    """A global that was admitted; as a value it is only this name."""

    module: str
    name: str


class Unfinished:
    """Between a constructor's opcode and its state's; nothing may hold it but the top of the stack and the memo."""

    def __init__(self, build: Callable[[object], object]) -> None:
        self.build = build
        self.places: list[int] = []
        """Where the memo holds it."""


def new_dtype(code: object, *_: object) -> Unfinished:
    """`numpy.dtype(code, align, copy)`, whose state follows."""
    text = _text(code)
    return Unfinished(lambda state: _dtype(text, state))


def _dtype(code: str, state: object) -> np.dtype[Any]:
    """(version, byte order, subarray, names, fields, element size, alignment, flags) of a dtype without parts."""
    parts = cast("tuple[object, ...]", state) if isinstance(state, tuple) else ()
    if len(parts) != 8 or parts[0] != 3 or any(part is not None for part in parts[2:5]):
        raise Malformed("a dtype has fields, a subarray or metadata")
    order, flags = _text(parts[1]), parts[7]
    text = _TEXT.fullmatch(code)
    if order not in _ORDERS or not (_NUMBERS.fullmatch(code) or text or code in ("O8", "O4", "O")):
        raise Malformed(f"a dtype {code[:20]!r} is none of plain numbers")
    wide = (int(text[1]) * (4 if code[0] == "U" else 1), 4 if code[0] == "U" else 1) if text else (-1, -1)
    expected = {"U": (0, 8), "O": (63,)}.get(code[0], (0,))
    if parts[5:7] != wide or flags not in expected:
        raise Malformed(f"a dtype {code!r} with sizes or flags that are not its own")
    if code[0] == "O":
        return np.dtype(object)
    return np.dtype(f"{order}{code}")


def new_array(cls: object, *_: object) -> Unfinished:
    """`_reconstruct(numpy.ndarray, (0,), b"b")`, whose state follows."""
    if cls != Name("numpy", "ndarray"):
        raise Malformed("an array of another class than numpy's")
    return Unfinished(_array_of_state)


def _array_of_state(state: object) -> NDArray[Any]:
    """(version, shape, dtype, Fortran order, bytes or, of objects, a list)."""
    parts = cast("tuple[Any, ...]", state) if isinstance(state, tuple) else ()
    if len(parts) != 5 or parts[0] != 1 or not isinstance(parts[3], int):
        raise Malformed("the state of an array is not one")
    _, shape, dtype, fortran, data = parts
    found = _array(dtype, shape, data, "F" if fortran else "C")
    dtype = cast("np.dtype[Any]", dtype)
    own: np.dtype[Any] = np.dtype(f"={dtype.str[1:]}") if dtype.kind != "O" else dtype
    return found.astype(own, order="K", copy=False)  # as numpy reads a state


def from_buffer(
    data: object, dtype: object, shape: object, order: object = "C", axes: object = None
) -> NDArray[Any]:
    """`numpy._core.numeric._frombuffer` of protocol 5."""
    if order == "K" and axes is not None:
        found: Any = _array(dtype, shape, data, "C")
        if sorted(_sizes(axes)) != list(range(found.ndim)):
            raise Malformed("the axes of an array are not its own")
        return found.transpose(cast("tuple[int, ...]", axes))
    if order not in ("C", "F"):
        raise Malformed("an array in neither order")
    return _array(dtype, shape, data, str(order))


def scalar(dtype: object, data: object = b"") -> Any:
    """`numpy.core.multiarray.scalar(dtype, bytes)`."""
    return _array(dtype, (), data, "C")[()]


def _array(kind: object, shape: object, data: object, order: str) -> NDArray[Any]:
    if not isinstance(kind, np.dtype):
        raise Malformed("an array without a dtype")
    dtype = cast("np.dtype[Any]", kind)
    sizes = _sizes(shape)
    count = math.prod(sizes)
    if dtype.kind == "O":
        items = cast("list[object]", data)
        if not isinstance(data, list) or len(items) != count or not sizes:
            raise Malformed("an array of objects without as many objects")
        found: NDArray[Any] = np.empty(count, object)
        for i, item in enumerate(items):
            found[i] = item
        return found.reshape(sizes, order="F" if order == "F" else "C")
    raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes were read as text
    if not isinstance(raw, bytes) or len(raw) != count * dtype.itemsize:
        raise Malformed(f"an array of {count} numbers of {dtype.itemsize} bytes does not have as many bytes")
    if not raw:
        return np.zeros(sizes, dtype)
    # On memory of its own, which may be written to. A truth value of 7 misleads numpy's code, which adds up bytes.
    truth = dtype.kind == "b"
    flat: Any = np.frombuffer(raw, np.uint8) != 0 if truth else np.frombuffer(raw, dtype).copy()
    if dtype.kind == "U" and flat.view(dtype.str.replace("U", "u")[:2] + "4").max(initial=0) > 0x10FFFF:
        raise Malformed("a text holds what is no character")
    return flat.reshape(sizes, order="F" if order == "F" else "C")


def _sizes(shape: object) -> tuple[int, ...]:
    sizes = cast("tuple[object, ...]", shape) if isinstance(shape, tuple) else None
    if sizes is None or len(sizes) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in sizes):
        raise Malformed("the shape of an array is not one")
    found = cast("tuple[int, ...]", sizes)
    if 0 in found and max(found) > _LONGEST_EMPTY:
        raise Malformed("an array without elements has a long axis")
    return found


def latin1(text: object, encoding: object = "latin1") -> bytes:
    """`_codecs.encode` as Python 3 writes bytes in protocol 2; no other codec."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise Malformed("a codec other than latin1")
    return text.encode("latin1")


def no_bytes(*arguments: object) -> bytes:
    """`bytes()`, as Python 3 writes empty ones in protocol 2."""
    if arguments:
        raise Malformed("bytes of something")
    return b""


def _text(value: object) -> str:
    if not isinstance(value, str | bytes):
        raise Malformed("a name that is no text")
    return value.decode("latin1") if isinstance(value, bytes) else value
