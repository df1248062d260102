"""Files of tensors, memory mapped and never freely unpickled: .safetensors and what torch.save writes."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch as st
import torch
from torch import Tensor

from dpmesh.errors import WeightsError

UNMAPPED = 2**31
"""Bytes. torch.save's format before 1.6 cannot be mapped; a larger one would have to fit into memory."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU, mapped: nothing is read before it is used.

    Known by content, not by suffix. A dictionary under "state_dict", as training frameworks write, is unwrapped.
    Raises WeightsError where the file cannot be read, holds anything but tensors, or asks for code to be run.
    """
    if not path.is_file():
        raise WeightsError("there is no such file", where=str(path))
    try:
        with path.open("rb") as file:
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
            raise WeightsError(f"{name!r} is no tensor but a {type(value).__name__}", where=str(path))
        found[name] = value.detach()
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return st.load_file(path)  # pyright: ignore[reportUnknownMemberType]
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"the file is damaged ({error})", where=str(path), fix="Download it again."
        ) from error


_BROKEN = (RuntimeError, EOFError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError,
           OverflowError, zipfile.BadZipFile)  # fmt: skip
"""What torch.load raises on a damaged file."""


def _torch(path: Path, *, mapped: bool) -> Any:
    if not mapped and path.stat().st_size > UNMAPPED:
        raise WeightsError("this is no file of torch.save's present format", where=str(path))
    try:
        return torch.load(path, map_location="cpu", mmap=mapped or None, weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked is None:
            raise WeightsError("the file is damaged or no file of tensors", where=str(path)) from error
        raise WeightsError(
            f"the file asks for {asked[1]}, which no tensor needs; nothing was run",
            where=str(path),
            fix="Take the weights as .safetensors, or from another source.",
        ) from error
    except _BROKEN as error:
        raise WeightsError(
            "the file is cut off, damaged or no file of tensors", where=str(path), fix="Download it again."
        ) from error
