"""The names that a pickle may ask for, and what they build: inert records, and arrays from checked bytes.

A pickle's state never reaches a class of numpy. A dtype is a name and a byte order that are looked up here; an array is
bytes of exactly the length that its dtype and shape need.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (a dtype that a file names is none that types know)

import math
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_TEXT = re.compile(r"[SU]([1-9]\d{0,5})")
_ORDERS = ("<", ">", "|", "=")
DEEPEST = 100
"""Levels of nesting in a pickle's content."""
_MOST_DIMENSIONS = 32
_LONGEST_EMPTY = 10_000
"""Of an array without elements no axis is longer: a shape costs nothing there, and readers allocate by it."""


class Malformed(pickle.UnpicklingError):
    """A pickle holds something that no writer of arrays produces."""


@dataclass(eq=False)
class Foreign:
    """An object of scipy or chumpy as an inert record: the class's short name and the pickled fields."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

    def build(self, state: object) -> "Foreign":
        if not isinstance(state, dict):
            raise Malformed("the state of an array class is not a dictionary")
        self.fields = {_text(key): value for key, value in cast("dict[object, object]", state).items()}
        return self


@dataclass(frozen=True)
class Name:
    """An admitted global; as a value it is only this name."""

    module: str
    name: str


class Unfinished:
    """An object between its constructor's opcode and its state's; only the stack's top and the memo may hold it."""

    def __init__(self, build: Callable[[object], object]) -> None:
        self.build = build
        self.places: list[int] = []
        """Its keys in the memo."""


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
        raise Malformed(f"a dtype {code[:20]!r} that is not of plain numbers")
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
    array = _array(dtype, shape, data, "F" if fortran else "C")
    dtype = cast("np.dtype[Any]", dtype)
    own: np.dtype[Any] = np.dtype(f"={dtype.str[1:]}") if dtype.kind != "O" else dtype
    return array.astype(own, order="K", copy=False)  # as numpy reads a state


def from_buffer(
    data: object, dtype: object, shape: object, order: object = "C", axes: object = None
) -> NDArray[Any]:
    """`numpy._core.numeric._frombuffer` of protocol 5."""
    if order == "K" and axes is not None:
        array: Any = _array(dtype, shape, data, "C")
        if sorted(_sizes(axes)) != list(range(array.ndim)):
            raise Malformed("the axes of an array are not its own")
        return array.transpose(cast("tuple[int, ...]", axes))
    if order not in ("C", "F"):
        raise Malformed("an array in an unknown memory order")
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
        if not isinstance(data, list) or len(items) != count:
            raise Malformed("an array of objects with another number of objects")
        array: NDArray[Any] = np.empty(count, object)
        for i, item in enumerate(items):
            array[i] = item
        return array.reshape(sizes, order="F" if order == "F" else "C")
    raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes were read as text
    if not isinstance(raw, bytes) or len(raw) != count * dtype.itemsize:
        raise Malformed(f"an array of {count} numbers of {dtype.itemsize} bytes has another number of bytes")
    if not raw:
        return np.zeros(sizes, dtype)
    # Copied, so that it can be written to. A truth value of 7 misleads numpy, which counts by adding bytes.
    truth = dtype.kind == "b"
    flat: Any = np.frombuffer(raw, np.uint8) != 0 if truth else np.frombuffer(raw, dtype).copy()
    if dtype.kind == "U" and flat.view(dtype.str.replace("U", "u")[:2] + "4").max(initial=0) > 0x10FFFF:
        raise Malformed("a text with an invalid character")
    return flat.reshape(sizes, order="F" if order == "F" else "C")


def _sizes(shape: object) -> tuple[int, ...]:
    sizes = cast("tuple[object, ...]", shape) if isinstance(shape, tuple) else None
    if sizes is None or len(sizes) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in sizes):
        raise Malformed("the shape of an array is not one")
    axes = cast("tuple[int, ...]", sizes)
    if 0 in axes and max(axes) > _LONGEST_EMPTY:
        raise Malformed("an array without elements has a long axis")
    return axes


def latin1(text: object, encoding: object = "latin1") -> bytes:
    """`_codecs.encode` with latin1, as Python 3 writes bytes in protocol 2."""
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


def _functions() -> dict[Name, Callable[..., Any]]:
    functions: dict[Name, Callable[..., Any]] = {
        Name("numpy", "dtype"): new_dtype,
        Name("_codecs", "encode"): latin1,
    }
    for core in ("numpy.core", "numpy._core"):  # the name before and since numpy 2
        functions[Name(f"{core}.multiarray", "_reconstruct")] = new_array
        functions[Name(f"{core}.multiarray", "scalar")] = scalar
        functions[Name(f"{core}.numeric", "_frombuffer")] = from_buffer
    for builtins in ("builtins", "__builtin__"):
        functions[Name(builtins, "set")] = functions[Name(builtins, "frozenset")] = new_set
        functions[Name(builtins, "bytes")] = no_bytes
    for copyreg in ("copyreg", "copy_reg"):
        functions[Name(copyreg, "_reconstructor")] = new_foreign
    return functions


def _classes() -> dict[Name, str]:
    """Classes of scipy and chumpy -> the kind of their record."""
    classes: dict[Name, str] = {}
    for layout in ("csc", "csr", "coo"):
        for module in ("scipy.sparse", f"scipy.sparse.{layout}", f"scipy.sparse._{layout}"):
            classes[Name(module, f"{layout}_matrix")] = classes[Name(module, f"{layout}_array")] = layout
    for module, names in (
        ("chumpy.ch", ("Ch",)),
        ("chumpy", ("Ch",)),
        ("chumpy.reordering", ("Select", "Reorder", "Ravel", "Reshape")),
    ):
        classes |= {Name(module, name): "chumpy" for name in names}
    return classes


def new_foreign(cls: object, *_: object) -> Foreign:
    """`copyreg._reconstructor`, and the opcode NEWOBJ: a foreign object without its state."""
    if not isinstance(cls, Name) or cls not in CLASSES:
        raise Malformed("an object of no foreign class")
    return Foreign(CLASSES[cls])


def new_set(items: object = ()) -> set[Any]:
    if not isinstance(items, list | tuple | set):
        raise Malformed("a set of something else than a list")
    return {dictionary_key(item) for item in cast("list[object]", items)}


def dictionary_key(value: Any) -> Any:
    """A dictionary's key or a set's member, of types whose hashes no file can make collide."""
    if isinstance(value, str | bytes | Foreign) or value is None:
        return value
    if isinstance(value, int) and abs(value) < 2**60:
        return value
    raise Malformed(f"a key of the type {type(value).__name__}")


FUNCTIONS, CLASSES = _functions(), _classes()
ONLY_NAMES = {
    Name("numpy", "ndarray"),
    *(Name(builtins, "object") for builtins in ("builtins", "__builtin__")),
}


def check_size(root: Any, most: int) -> None:
    """Raise Malformed for content that contains itself, is nested deeper than `DEEPEST`, or has more than `most`
    elements when shared parts count each time: thirty lists of twice the previous list are 300 bytes of a file and a
    thousand million elements.
    """
    done: dict[int, int] = {}  # id -> elements in it, what is shared counted each time
    path: list[tuple[Any, Iterator[Any], list[int]]] = [(root, iter(_inside(root)), [_own(root)])]
    child: Any
    inside = {id(root)}
    while path:
        value, rest, total = path[-1]
        child = next(rest, done)  # `done` serves as the end mark
        if child is done:
            path.pop()
            inside.discard(id(value))
            done[id(value)] = total[0]
            if path:
                path[-1][2][0] += total[0]
            continue
        if id(child) in inside:
            raise Malformed("something contains itself")
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


def _inside(value: Any) -> list[Any]:
    if isinstance(value, Foreign):
        return list(value.fields.values())
    if isinstance(value, dict):
        return list(cast("dict[Any, Any]", value).values())
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        return array.ravel().tolist() if array.dtype.kind == "O" else []
    return list(cast("list[Any]", value)) if isinstance(value, list | tuple | set) else []


def _own(value: Any) -> int:
    if not isinstance(value, np.ndarray):
        return 1
    array = cast("NDArray[Any]", value)
    return 1 if array.dtype.kind == "O" else 1 + array.size
