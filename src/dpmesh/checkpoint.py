"""Weights in a folder: config.json (config, provenance) and model.safetensors. Strict, atomic, nothing unpickled.

Gigabytes are never held twice: tensors are written one by one and read in small batches into the model's own memory,
and a model whose weights are about to be loaded is not initialised first.
"""

import json
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dpmesh.errors import ConfigError, WeightsError
from dpmesh.io import atomic_path, open_regular, read_json

Provenance = dict[str, Any]
"""Origin of weights: commit, data, steps, results, licence. Plain JSON."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LARGEST_CONFIG = 16 * 2**20
"""Bytes; a provenance with checksums has about ten thousand."""
DEEPEST = 30
"""Nesting levels of a config or provenance; ours have five."""
BATCH = 16 * 2**20
"""Bytes of the file that are mapped at a time while weights are read."""

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")


def save_weights(
    model: nn.Module, folder: Path, config: dict[str, Any], provenance: Provenance, *, half: bool = False
) -> None:
    """The model's state as `write_weights` writes it."""
    write_weights(folder, model.state_dict(), config, provenance, half=half)


def write_weights(
    folder: Path,
    state: Mapping[str, Tensor],
    config: dict[str, Any],
    provenance: Provenance,
    *,
    half: bool = False,
) -> None:
    """Write both files (tensors as fp16 if half) atomically; raises OutputError."""
    text = json.dumps({"config": config, "provenance": provenance}, indent=1) + "\n"
    with atomic_path(folder / CONFIG) as config_part, atomic_path(folder / WEIGHTS) as weights_part:
        _stream(weights_part, state, half)
        config_part.write_text(text)


def _stream(path: Path, state: Mapping[str, Tensor], half: bool) -> None:
    """Write safetensors' format tensor by tensor; its own writer needs all of them contiguous at once."""

    def stored(value: Tensor) -> torch.dtype:
        return torch.float16 if half and value.is_floating_point() else value.dtype

    # Wide types first, so that every tensor starts at a multiple of its own width.
    names = sorted(state, key=lambda name: (-stored(state[name]).itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in names:
        end = start + state[name].numel() * stored(state[name]).itemsize
        header[name] = {
            "dtype": _NAMES[stored(state[name])],
            "shape": list(state[name].shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            value = state[name].detach().to("cpu", stored(state[name])).contiguous()
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)


def read_config(folder: Path) -> tuple[dict[str, Any], Provenance]:
    """The config as plain data, and the provenance. Raises WeightsError."""
    fix = "Give a folder that save_pretrained wrote."
    try:
        content = read_json(folder / CONFIG, LARGEST_CONFIG, WeightsError)
    except WeightsError as error:
        raise WeightsError(
            f"no readable {CONFIG} ({error.what})", where=str(folder), fix=error.fix or fix
        ) from None
    parts = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    config, provenance = parts.get("config"), parts.get("provenance")
    if not isinstance(config, dict) or not isinstance(provenance, dict) or not _shallow(parts):
        raise WeightsError(
            f"no readable {CONFIG} (it does not hold a config and a provenance)", where=str(folder), fix=fix
        )
    return cast("dict[str, Any]", config), cast("dict[str, Any]", provenance)


def _shallow(value: object) -> bool:
    """Whether the nesting has at most `DEEPEST` levels, so that it can be printed."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += cast("dict[str, object]", one).values()
            elif isinstance(one, list):
                inner += cast("list[object]", one)
        level = inner
    return not level


@contextmanager
def building(where: Path) -> Generator[None]:
    """Turn any error while building and loading a model from `where` into a WeightsError.

    A config checks single sizes; only the layers check that they fit one another.
    """
    try:
        yield
    except ConfigError as error:
        raise WeightsError(error.what, where=error.where or str(where), fix=error.fix) from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise WeightsError(f"no model can be built from it ({line})", where=str(where)) from error


def check_stored(state: Mapping[str, Tensor], folder: Path, *, unstored: Collection[str] = ()) -> None:
    """Raise WeightsError unless the folder's weights have the names, shapes and number types of a model's state.

    Reads no tensor, and the state may be on the meta device: a config that does not fit costs no memory.
    """
    own = {name: value for name, value in state.items() if name not in unstored}
    with _reading(folder) as path, _open(path) as file:
        slices = {str(name): file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        stored = {name: tuple(part.get_shape()) for name, part in slices.items()}
        kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
    refuse_misfits({name: tuple(value.shape) for name, value in own.items()}, stored, str(path))
    for name, value in own.items():
        kind = kinds[name]
        if (kind in _FLOATS) != value.is_floating_point() or kind not in _NAMES.values():
            raise WeightsError(
                f"{name} is stored as {kind}, which is no {_NAMES.get(value.dtype, value.dtype)}",
                where=str(path),
            )


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path, *, unstored: Collection[str] = ()) -> None:
    """Copy the stored tensors into the model; raises WeightsError with the first names that do not fit.

    The model is changed only if all names and shapes fit. unstored: names of the model that no file has. Numbers that
    are not finite, in the file or in the model's type, are refused: every prediction would be wrong.
    """
    own = {name: value for name, value in model.state_dict().items() if name not in unstored}
    check_stored(own, folder)
    with _reading(folder) as path:
        for names in _batches(own):
            with _open(path) as file:  # closing it frees the mapped pages
                for name in names:
                    own[name].copy_(file.get_tensor(name))
                    # The sum of finite numbers is finite, and takes a third of the time of testing each.
                    if own[name].is_floating_point() and not own[name].sum(dtype=torch.float64).isfinite():
                        raise WeightsError(
                            f"{name} holds NaN or infinity",
                            where=str(path),
                            fix="The training that wrote it failed, or the file is damaged: take another one.",
                        )


@contextmanager
def _reading(folder: Path) -> Generator[Path]:
    """The path of a folder's weights, a regular file; errors of reading it inside become WeightsErrors."""
    path = folder / WEIGHTS
    try:
        with open_regular(path, WeightsError):
            pass
    except WeightsError as error:
        raise WeightsError(
            f"{WEIGHTS} cannot be read ({error.what})", where=str(folder), fix=error.fix
        ) from None
    try:
        yield path
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{WEIGHTS} cannot be read ({error})", where=str(folder)) from error


def _open(path: Path) -> Any:
    return safetensors.safe_open(path, "pt")  # Any: safetensors has no types for its file


def refuse_misfits(
    wanted: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, tuple[int, ...]],
    where: str,
    called: Mapping[str, str] | None = None,
) -> None:
    """Raise WeightsError with the first missing, unexpected and mis-shaped names, unless all are equal.

    called: a stored tensor's name in the file, where it differs.
    """
    called = called or {}
    lists = {
        "missing": sorted(set(wanted) - set(stored)),
        "unexpected": [called.get(name, name) for name in sorted(set(stored) - set(wanted))],
        "mis-shaped": [
            f"{called.get(name, name)} {_shape(stored[name])} instead of {_shape(wanted[name])}"
            for name in sorted(set(wanted) & set(stored))
            if wanted[name] != stored[name]
        ],
    }
    if any(lists.values()):
        misfits = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in lists.items() if names
        )
        raise WeightsError(f"weights do not fit the model: {misfits}", where=where)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _batches(state: Mapping[str, Tensor]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name, value in state.items():
        batch.append(name)
        size += value.numel() * 4
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Uninitialised(TorchFunctionMode):
    """torch.nn.init's functions leave the tensor unchanged; a change of memory format allocates without copying."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        if func is Tensor.to and kwargs and kwargs.get("memory_format") is not None:
            return torch.empty_like(args[0], memory_format=kwargs["memory_format"])
        return func(*args, **(kwargs or {}))


@contextmanager
def uninitialised() -> Generator[None, None, None]:
    """Modules built inside have uninitialised parameters: for a model whose every tensor is about to be loaded.

    Random numbers for a billion parameters take longer than reading them, and memory that was never written to is not
    allocated yet.
    """
    with _Uninitialised():
        yield
