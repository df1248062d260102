"""Files of tensors, memory mapped and never freely unpickled: .safetensors and what torch.save writes."""

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch as st
import torch
from torch import Tensor
from torch.serialization import safe_globals

from dpmesh.errors import WeightsError
from dpmesh.io import open_regular

UNMAPPED = 2**31
"""Bytes. torch.save's format before 1.6 cannot be mapped; a larger one would have to fit into memory."""

BESIDE = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric|omegaconf|argparse|pathlib|typing|collections|numpy)\.[\w.]+"
    r"|(any|bool|dict|float|frozenset|int|list|object|str|tuple)"
)
"""Names that training frameworks leave in their checkpoints beside the tensors: callbacks, settings, figures. They are
read as `Beside`, so that no class of that name is looked for, let alone used."""
MOST_BESIDE = 200


class Beside:
    """Something of a checkpoint that is no tensor: it takes any arguments and any state, and keeps neither."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __new__(cls, *_: object, **__: object) -> "Beside":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


def _dictionary(*_: object) -> dict[object, object]:
    """collections.defaultdict: torch fills nothing but dictionaries."""
    return {}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU, mapped: nothing is read before it is used.

    Known by content, not by suffix. A dictionary under "state_dict", as training frameworks write, is unwrapped; what
    they write beside it (`BESIDE`) is passed over. Raises WeightsError where the file cannot be read, holds anything
    but tensors, or asks for code to be run.
    """
    with open_regular(path, WeightsError) as file:
        try:
            head = file.read(9)
        except OSError as error:
            raise WeightsError(f"the file cannot be read ({error.strerror})", where=str(path)) from error
    if head[8:9] == b"{":
        return _safetensors(path)
    content = _torch(path, mapped=head[:4] == b"PK\x03\x04")
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):  # pyright: ignore[reportUnknownMemberType]
        content = cast("dict[object, object]", content["state_dict"])
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            "there are no named tensors in the file",
            where=str(path),
            fix="Give a state dict, as torch.save wrote it.",
        )
    found: dict[str, Tensor] = {}
    for name, value in cast("Mapping[object, object]", content).items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            shown = repr(name)[:80] if isinstance(name, str) else f"a {type(name).__name__}"
            raise WeightsError(
                f"{shown} is no name of a tensor but of a {type(value).__name__}"
                if isinstance(name, str)
                else f"a tensor's name is {shown}",
                where=str(path),
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise WeightsError(f"{name[:80]} is no plain tensor", where=str(path))
        found[name] = value.detach()
    return found


def refuse_numbers(
    tensors: Mapping[str, Tensor], where: str, called: Mapping[str, str] | None = None
) -> None:
    """WeightsError for the first tensor whose numbers no weights have: NaN, infinity, whole or complex numbers.

    called: what a tensor is called in the file, where that is not the name it is found by.
    """
    for name, value in tensors.items():
        told = (called or {}).get(name, name)
        if not value.is_floating_point():
            raise WeightsError(f"{told} is stored as {value.dtype}, which no weights are", where=where)
        if not torch.isfinite(value).all():
            raise WeightsError(f"{told} holds NaN or infinity", where=where, fix="Download the file again.")


_BROKEN = (RuntimeError, EOFError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError,
           OverflowError, MemoryError, zipfile.BadZipFile, struct.error, safetensors.SafetensorError)  # fmt: skip
"""What torch.load raises on a damaged file. It knows a .safetensors by itself where `read_tensors` does not."""


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return st.load_file(path)  # pyright: ignore[reportUnknownMemberType]
    except _BROKEN as error:
        raise WeightsError(
            f"the file is damaged ({_line(error)})", where=str(path), fix="Download it again."
        ) from error


def _torch(path: Path, *, mapped: bool) -> Any:
    if not mapped and path.stat().st_size > UNMAPPED:
        raise WeightsError("this is no file of torch.save's present format", where=str(path))
    beside: list[Any] = []  # (stand-in, name): torch's type for it knows classes only
    while True:
        try:
            with safe_globals(beside), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of a pickle's unusual protocol: it is read, or it is an error
                return torch.load(path, map_location="cpu", mmap=mapped or None, weights_only=True)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL ([\w.]+)", str(error))
            if asked is None:
                raise WeightsError("the file is damaged or no file of tensors", where=str(path)) from error
            name = asked[1]
            if not BESIDE.fullmatch(name) or len(beside) == MOST_BESIDE:
                raise WeightsError(
                    f"the file asks for {name[:80]}, which no tensor needs; nothing was run",
                    where=str(path),
                    fix="Take the weights as .safetensors, or from another source.",
                ) from error
            stand_in = _dictionary if name == "collections.defaultdict" else type("Beside", (Beside,), {})
            # torch tells built-in names without their module.
            beside.append((stand_in, name if "." in name else f"builtins.{name}"))
        except _BROKEN as error:
            raise WeightsError(
                "the file is cut off, damaged or no file of tensors",
                where=str(path),
                fix="Download it again.",
            ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
