"""A reader of pickles as data: it supports the opcodes that writers of arrays use, and runs nothing.

A pickle is a program for a stack machine; Python's own machine calls whatever the program names. This one calls only
the functions of one table (pickle_arrays.py), and memo, stack, numbers, nesting and shared content are bounded. The
opcodes are documented in the standard library's pickletools.
"""

import pickle
import struct
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.pickle_arrays import (
    CLASSES,
    FUNCTIONS,
    ONLY_NAMES,
    Foreign,
    Malformed,
    Name,
    Unfinished,
    check_size,
    dictionary_key,
    new_foreign,
    new_set,
)
from dpmesh.errors import InputError

MOST_STEPS = 8_000_000
"""Opcodes; four times the longest real file, a Panoptic sequence of 17,000 frames."""
MOST_CONTAINERS = 1_500_000
"""Lists, tuples, dictionaries, sets, arrays and marks: an empty set is one byte of a file and 200 of memory."""
MOST_MEMO = 4_000_000
"""Entries of the memo; each is one byte of a file and 100 of memory."""
MADE = 4
"""Bytes of arrays and texts built from the memo, for each byte of the file, plus 16 MiB: a file of one mebibyte could
build the same array ten thousand times, each in memory of its own."""
LONGEST_NUMBER = 16
"""Bytes of an integer; SMPL's root has the parent 2**32 - 1."""
LONGEST_LINE = 4096
"""Bytes of a line with a number or a name in protocol 0; texts and arrays may be longer."""
SHARED = 8
"""Elements of the content, shared ones counted each time, for each byte of the file, plus a million."""

Value = Any


def read_pickle(data: bytes) -> Value:
    """The content of a pickle. Raises InputError for a name that is not admitted, else what BROKEN lists."""
    content = _Machine(data).run()
    check_size(content, SHARED * len(data) + 1_000_000)
    return content


BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error,
          OverflowError, MemoryError, RecursionError, DeprecationWarning)  # fmt: skip
"""Raised for a damaged file; DeprecationWarning where warnings are errors, for a text with an unknown escape."""


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: list[Value] = []
        self.marks: list[list[Value]] = []
        self.memo: dict[int, Value] = {}
        self.containers = MOST_CONTAINERS
        self.room = MADE * len(data) + 2**24

    def run(self) -> Value:
        """Run until STOP. The stack's top may be Unfinished; every value is taken by `pop`, which checks that."""
        data = self.data
        for _ in range(MOST_STEPS):
            if self.at >= len(data):
                raise EOFError("it ends early")
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise Malformed(f"an opcode {bytes([code])!r} that no file of arrays needs")
            step(self)
        raise Malformed(f"more than {MOST_STEPS:,} steps")

    # reading

    def take(self, count: int) -> bytes:
        if count < 0 or count > len(self.data) - self.at:
            raise EOFError("it ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self, longest: int = LONGEST_LINE) -> bytes:
        end = self.data.find(b"\n", self.at, None if longest < 0 else self.at + longest)
        if end < 0:
            raise EOFError("a line does not end")
        line = self.data[self.at : end]
        self.at = end + 1
        return line

    # limits

    def count(self) -> None:
        """Charge one container."""
        self.containers -= 1
        if self.containers < 0:
            raise Malformed(f"more than {MOST_CONTAINERS:,} lists, arrays and the like")

    def charge(self, made: Value) -> None:
        """Charge the result of a call, whose arguments the memo may supply any number of times."""
        self.count()
        if isinstance(made, np.ndarray):
            self.room -= cast("NDArray[Any]", made).nbytes
        elif isinstance(made, bytes | str):
            self.room -= len(made)
        elif isinstance(made, set):
            self.room -= 64 * len(cast("set[Any]", made))
        if self.room < 0:
            raise Malformed("it builds more arrays than it has bytes for")

    # the stack

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def hold(self, value: Value) -> None:
        """Push a container."""
        self.count()
        self.stack.append(value)

    def pop(self) -> Value:
        value = self.stack.pop()
        if isinstance(value, Unfinished):
            raise Malformed("an array is used before it is whole")
        return value

    def pop_mark(self) -> list[Value]:
        items, self.stack = self.stack, self.marks.pop()
        if any(isinstance(item, Unfinished) for item in items):
            raise Malformed("an array is used before it is whole")
        return items

    def top(self, kind: type) -> Any:
        """The top of the stack, of type `kind`."""
        value = self.stack[-1]
        if type(value) is not kind:
            raise Malformed(f"a {type(value).__name__} instead of a {kind.__name__}")
        return value

    # opcodes

    def mark(self) -> None:
        self.count()
        self.marks.append(self.stack)
        self.stack = []

    def put(self, place: int) -> None:
        value = self.stack[-1]
        if isinstance(value, Unfinished):
            value.places.append(place)
        self.memo[place] = value
        if len(self.memo) > MOST_MEMO or (isinstance(value, Unfinished) and len(value.places) > MOST_MEMO):
            raise Malformed(f"more than {MOST_MEMO:,} entries in the memo")

    def get(self, place: int) -> None:
        value = self.memo[place]
        if isinstance(value, Unfinished):
            raise Malformed("an array is used before it is whole")
        self.push(value)

    def ask(self, module: str, name: str) -> None:
        asked = Name(module, name)
        if not (asked in FUNCTIONS or asked in CLASSES or asked in ONLY_NAMES):
            raise InputError(
                f"the pickle asks for {_shown(module)}.{_shown(name)}, which no file of arrays needs;"
                " nothing was run",
                fix="Use the file as downloaded from its official site.",
            )
        self.push(asked)

    def ask_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Malformed("a name that is no text")
        self.ask(module, name)

    def ask_lines(self) -> None:
        module, name = (self.line().decode() for _ in range(2))
        self.ask(module, name)

    def instance(self) -> None:
        """INST, for Python 2's old-style classes, of which none is admitted."""
        self.ask_lines()
        raise Malformed("an instance of an old class")

    def reduce(self) -> None:
        arguments, asked = self.pop(), self.pop()
        if not isinstance(asked, Name) or not isinstance(arguments, tuple) or asked not in FUNCTIONS:
            raise Malformed("a call of something that is not an admitted function")
        made = FUNCTIONS[asked](*cast("tuple[Any, ...]", arguments))
        self.charge(made)
        self.push(made)

    def new_object(self) -> None:
        arguments, cls = self.pop(), self.pop()
        if arguments != ():
            raise Malformed("an object made with arguments")
        self.hold(new_foreign(cls))

    def build(self) -> None:
        state, value = self.pop(), self.stack[-1]
        if not isinstance(value, Unfinished | Foreign):
            raise Malformed(f"a state for a {type(value).__name__}")
        built = value.build(state)
        self.charge(built)
        self.stack[-1] = built
        if isinstance(value, Unfinished):
            for place in value.places:
                if self.memo.get(place) is value:
                    self.memo[place] = built

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend(self) -> None:
        items = self.pop_mark()
        self.top(list).extend(items)

    def add_items(self) -> None:
        items = self.pop_mark()
        self.top(set).update(map(dictionary_key, items))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[dictionary_key(key)] = value

    def set_items(self) -> None:
        items = self.pop_mark()
        self._fill(self.top(dict), items)

    def dictionary(self) -> None:
        items = self.pop_mark()
        self.hold(self._fill({}, items))

    @staticmethod
    def _fill(target: dict[Any, Any], items: list[Value]) -> dict[Any, Any]:
        if len(items) % 2:
            raise Malformed("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[dictionary_key(key)] = value
        return target

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.hold(tuple(reversed(items)))

    def whole(self, raw: bytes) -> None:
        """An integer or truth value of protocol 0, as text."""
        if raw in (b"00", b"01"):
            self.push(raw == b"01")
            return
        if len(raw) > 40:
            raise Malformed("a number is too long")
        self.push(int(raw.removesuffix(b"L")))

    def long(self, count: int) -> None:
        if not 0 <= count <= LONGEST_NUMBER:
            raise Malformed("a number is too long")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def quoted(self) -> None:
        """STRING: a quoted Python literal with escapes."""
        raw = self.line(-1).strip()
        if len(raw) < 2 or raw[0] != raw[-1] or raw[:1] not in (b"'", b'"'):
            raise Malformed("a text without its quotes")
        self.push(raw[1:-1].decode("unicode_escape"))

    def text(self, count: int) -> None:
        self.push(self.take(count).decode("utf-8", "surrogatepass"))

    def text2(self, count: int) -> None:
        """Python 2's bytes, which were its text and its arrays' memory."""
        self.push(self.take(count).decode("latin1"))

    def nothing(self) -> None:
        self.take(8)  # a frame's length; the frame's opcodes follow

    def protocol(self) -> None:
        if self.take(1)[0] > pickle.HIGHEST_PROTOCOL:
            raise Malformed("a protocol of the future")


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name[:60])


_M = _Machine
_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _M.protocol, b"\x95": _M.nothing, b"(": _M.mark,
    b"N": lambda m: m.push(None), b"\x88": lambda m: m.push(True), b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.whole(m.line()), b"L": lambda m: m.whole(m.line()),
    b"J": lambda m: m.push(m.number("<i")), b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.long(m.number("<B")), b"\x8b": lambda m: m.long(m.number("<i")),
    b"F": lambda m: m.push(float(m.line())), b"G": lambda m: m.push(m.number(">d")),
    b"S": _M.quoted, b"U": lambda m: m.text2(m.number("<B")), b"T": lambda m: m.text2(m.number("<i")),
    b"V": lambda m: m.push(m.line(-1).decode("raw_unicode_escape")),
    b"\x8c": lambda m: m.text(m.number("<B")), b"X": lambda m: m.text(m.number("<I")),
    b"\x8d": lambda m: m.text(m.number("<Q")),
    b"C": lambda m: m.push(m.take(m.number("<B"))), b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))), b"\x96": lambda m: m.push(m.take(m.number("<Q"))),
    b"]": lambda m: m.hold([]), b"l": lambda m: m.hold(m.pop_mark()), b"a": _M.append, b"e": _M.extend,
    b")": lambda m: m.push(()), b"t": lambda m: m.hold(tuple(m.pop_mark())),
    b"\x85": lambda m: m.tuple_of(1), b"\x86": lambda m: m.tuple_of(2), b"\x87": lambda m: m.tuple_of(3),
    b"}": lambda m: m.hold({}), b"d": _M.dictionary, b"s": _M.set_item, b"u": _M.set_items,
    b"\x8f": lambda m: m.hold(set()), b"\x90": _M.add_items, b"\x91": lambda m: m.hold(new_set(m.pop_mark())),
    b"p": lambda m: m.put(int(m.line()[:20])), b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")), b"\x94": lambda m: m.put(len(m.memo)),
    b"g": lambda m: m.get(int(m.line()[:20])), b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"c": _M.ask_lines, b"\x93": _M.ask_stack, b"i": _M.instance,
    b"R": _M.reduce, b"\x81": _M.new_object, b"b": _M.build,
}  # fmt: skip
_STEPS = {ord(code): step for code, step in _OPCODES.items()}
