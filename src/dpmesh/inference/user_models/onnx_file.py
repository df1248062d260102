"""Open an ONNX file of unknown origin: bounded, without files outside it, without custom operators."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dpmesh.errors import InputError
from dpmesh.io import read_bytes

LARGEST_MODEL = 2**30
"""Bytes; the largest published top-down pose model that fits one file has 0.6 GB."""
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Operator sets that onnxruntime itself contains."""
_DEEPEST = 20
"""Graphs inside graphs (branches, loops)."""
_PASSING = {"Cast", "Identity", "Pad", "QuantizeLinear", "DequantizeLinear"}
"""Operators between a model's input and its first layer that do not normalise it."""

_Message = memoryview


@dataclass
class _Contents:
    domains: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    external: bool = False
    first_nodes: list[tuple[str, list[str], list[str]]] = field(default_factory=list)
    """Operator, inputs and outputs of the outermost graph's nodes."""


class UserModel:
    """An onnxruntime session of a user's file, on the CPU, with one image input.

    Raises InputError for a file that is not ONNX, too large, refers to other files or needs custom operators, and for
    a model without exactly one image input.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.path = path
        data = read_bytes(path, LARGEST_MODEL)
        contents = _contents(data, path)
        import onnxruntime  # Here: slow to import.

        options = session_options(threads)
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  onnxruntime's own classes share no base
            raise _refused("onnxruntime cannot open it", error, path) from None
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or 3 not in (inputs[0].shape[1], inputs[0].shape[3]):
            shapes = ", ".join(f"{one.name} {_shape(one.shape)}" for one in inputs)
            raise InputError(
                f"has not one image as input, n×3×h×w or n×h×w×3, but {shapes or 'none'}", where=str(path)
            )
        self._input = inputs[0]
        self.channels_first = inputs[0].shape[1] == 3
        height, width = inputs[0].shape[2:4] if self.channels_first else inputs[0].shape[1:3]
        self.fixed_size = (
            (width, height) if isinstance(width, int) and isinstance(height, int) else None
        )  # of the input, width and height; None if the model accepts any
        self.outputs = tuple(str(output.name) for output in self._session.get_outputs())
        self.first_operator = _first_operator(contents, self._input.name)
        kinds: dict[str, Any] = {
            "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8,
            "tensor(int32)": np.int32,
        }  # fmt: skip
        if self._input.type not in kinds:
            raise InputError(f"has an input of type {self._input.type}", where=str(path))
        self.dtype = np.dtype(kinds[self._input.type])

    def run(self, pixels: Shaped[np.ndarray, "h w 3"]) -> list[Shaped[np.ndarray, "..."]]:
        """The outputs for one image. Raises InputError where the model fails or a number is not finite."""
        batch = pixels.transpose(2, 0, 1)[None] if self.channels_first else pixels[None]
        try:
            outputs = self._session.run(None, {self._input.name: np.ascontiguousarray(batch, self.dtype)})
            arrays = [np.asarray(output) for output in outputs]
        except Exception as error:  # noqa: BLE001  onnxruntime's own classes share no base
            size = f"{pixels.shape[1]}×{pixels.shape[0]}"
            raise _refused(f"fails on an input of {size} pixels", error, self.path) from None
        if not all(a.dtype.kind in "fiu" and np.isfinite(a).all() for a in arrays):
            raise InputError("its outputs are not finite numbers", where=str(self.path))
        return arrays

    def described(self, outputs: list[Shaped[np.ndarray, "..."]]) -> str:
        """Names and shapes of outputs, for messages."""
        return ", ".join(f"{n} {_shape(a.shape)}" for n, a in zip(self.outputs, outputs, strict=True))


def session_options(threads: int) -> Any:
    """Of onnxruntime: quiet, with a fixed number of threads."""
    import onnxruntime  # Here: slow to import.

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # It would warn of unused initializers of converted graphs.
    return options


def _refused(what: str, error: Exception, path: Path) -> InputError:
    return InputError(f"{what} ({' '.join(str(error).split())[:160]})", where=str(path))


def _shape(shape: Any) -> str:
    return "×".join(str(side) for side in shape) or "scalar"


def _contents(data: bytes, path: Path) -> _Contents:
    """What the file refers to, without onnxruntime; raises InputError where it is unsafe or no ONNX."""
    contents = _Contents()
    try:
        for number, value in _fields(memoryview(data)):
            if number == 7 and isinstance(value, _Message):
                _graph(value, contents, 0)
            elif number == 25 and isinstance(value, _Message):
                _function(value, contents)
    except (ValueError, IndexError) as error:
        what = str(error) if isinstance(error, ValueError) else "cut short"
        raise InputError(f"is not a readable ONNX file ({what})", where=str(path)) from None
    if not contents.first_nodes:
        raise InputError("is not a readable ONNX file (no graph)", where=str(path))
    if contents.external:
        raise InputError(
            "keeps weights in other files", where=str(path), fix="Save the model as one ONNX file."
        )
    if foreign := sorted(contents.domains - _DOMAINS - contents.functions):
        raise InputError(
            f"needs custom operators ({', '.join(foreign)})",
            where=str(path),
            fix="Export it with the operators of ONNX alone.",
        )
    return contents


def _graph(graph: memoryview, contents: _Contents, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("graphs nested too deep")
    for number, value in _fields(graph):
        if not isinstance(value, _Message):
            continue
        if number == 1:
            _node(value, contents, depth)
        elif number == 5:
            _tensor(value, contents)
        elif number == 15:
            _sparse(value, contents)


def _function(function: memoryview, contents: _Contents) -> None:
    for number, value in _fields(function):
        if not isinstance(value, _Message):
            continue
        if number == 7:
            _node(value, contents, 1)
        elif number == 10:
            contents.functions.add(bytes(value).decode())
        elif number == 11:
            _attribute(value, contents, 1)


def _node(node: memoryview, contents: _Contents, depth: int) -> None:
    operator, domain = "", ""
    names: dict[int, list[str]] = {1: [], 2: []}
    for number, value in _fields(node):
        if not isinstance(value, _Message):
            continue
        if number in names:
            names[number].append(bytes(value).decode())
        elif number == 4:
            operator = bytes(value).decode()
        elif number == 5:
            _attribute(value, contents, depth)
        elif number == 7:
            domain = bytes(value).decode()
    contents.domains.add(domain)
    if depth == 0:
        contents.first_nodes.append((operator, names[1], names[2]))


def _attribute(attribute: memoryview, contents: _Contents, depth: int) -> None:
    for number, value in _fields(attribute):
        if not isinstance(value, _Message):
            continue
        if number in (5, 10):
            _tensor(value, contents)
        elif number in (6, 11):
            _graph(value, contents, depth + 1)
        elif number in (22, 23):
            _sparse(value, contents)


def _sparse(tensor: memoryview, contents: _Contents) -> None:
    for number, value in _fields(tensor):
        if number in (1, 2) and isinstance(value, _Message):
            _tensor(value, contents)


def _tensor(tensor: memoryview, contents: _Contents) -> None:
    for number, value in _fields(tensor):
        contents.external |= number == 13 or (number == 14 and value != 0)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message (onnx.proto has the numbers). Raises ValueError."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("no protobuf")
        if size > len(message) - at:
            raise ValueError("cut short")
        yield number, message[at : at + size] if kind == 2 else 0
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("no protobuf")


def _first_operator(contents: _Contents, name: str) -> str:
    """The first operator on the input that may change its values."""
    for operator, inputs, outputs in contents.first_nodes:  # sorted: a node follows those it depends on
        if name in inputs:
            if operator not in _PASSING or not outputs:
                return operator
            name = outputs[0]
    return ""
