"""Files of tensors, memory mapped and never freely unpickled: .safetensors, and checkpoints of torch.save."""

import json
import pickle
import re
import shlex
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch as st
import torch
from torch import Tensor
from torch.serialization import safe_globals

from dpmesh.errors import WeightsError
from dpmesh.io import HEAD, mistaken, open_regular

UNMAPPED = 2**31
"""Bytes. torch.save's format before 1.6 cannot be mapped; a larger file would have to fit into memory."""

NESTS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "params", "weights",
         "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")  # fmt: skip
"""Keys under which checkpoints nest a model's state, in order of preference: trained weights before their average."""
DEEPEST_NEST = 4

STANDARD = re.compile(
    r"(argparse|pathlib|typing|collections|datetime|enum|decimal|fractions|uuid|functools\.partial)\b[\w.]*"
    r"|(any|bool|dict|float|frozenset|int|list|object|str|tuple|set|complex|slice|range|bytearray)"
)
"""Names of Python's own library that settings in checkpoints use. Any other name of the library is refused; names of
other packages (callbacks, settings, figures) are read as inert records, and nothing of that name is imported."""
MOST_RECORDS = 200


class Record:
    """A checkpoint's object that is no tensor, as an inert record: it accepts any arguments and state, and keeps
    neither."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __new__(cls, *_: object, **__: object) -> "Record":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


class TableRecord:
    """The same for a class derived from dict: torch fills nothing but plain and ordered dictionaries."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict[object, object]()


class ListRecord:
    """The same for a class derived from list."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return list[object]()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU, mapped: nothing is read before it is used.

    Recognised by content, not by suffix. A state nested under one of `NESTS` is unwrapped; of plain weights and their
    moving average in one file the plain ones are taken. Prefixes of data-parallel training and of averaged models
    (`module.`, `ema_model.`) are removed where all names have them. Settings, callbacks and figures are passed over
    (`STANDARD`). Raises WeightsError for a file that cannot be read, holds no tensors or asks for code to be run.
    """
    with open_regular(path, WeightsError) as file:
        try:
            head = file.read(HEAD)
        except OSError as error:
            raise WeightsError(f"the file cannot be read ({error.strerror})", where=str(path)) from error
    if head[8:9] == b"{":
        return _safetensors(path)
    _refuse_archives(path, head)
    return _plain(_state(_torch(path, mapped=head[:4] == b"PK\x03\x04"), path), path)


def _refuse_archives(path: Path, head: bytes) -> None:
    """WeightsError for an empty file and an archive that torch.save did not write."""
    kind = mistaken(head)
    if kind is None:
        return
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError):
            return  # torch reports the damage
        if any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
            return
        inside = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        kind = kind._replace(what=f"is a zip archive{inside}, not a checkpoint")
    elif head[257:262] == b"ustar" and head.startswith(
        (b"pickle\0", b"sys_info\0", b"storages\0", b"tensors\0")
    ):
        return  # torch.save before 0.1.10; torch reports that it is no longer read
    raise WeightsError(kind.what, where=str(path), fix=kind.fix)


def _state(content: object, path: Path) -> Mapping[object, object]:
    """The mapping that holds the tensors."""
    place = "m"
    for _ in range(DEEPEST_NEST):
        if not isinstance(content, Mapping):
            break
        table = cast("Mapping[object, object]", content)
        if any(isinstance(value, Tensor) for value in table.values()):
            return table
        nest = next(
            (key for key in NESTS if table.get(key) and isinstance(table[key], Mapping | Record)), None
        )
        if nest is None:
            break
        content, place = table[nest], f"{place}[{json.dumps(nest)}]"
    whole = isinstance(content, Record)
    raise WeightsError(
        "the file holds a whole model, not its named tensors"
        if whole
        else "there are no named tensors in the file",
        where=str(path),
        fix=_trusted(path, f"{place}.state_dict()")
        if whole
        else "Give a state dict, as torch.save wrote it.",
    )


def _plain(table: Mapping[object, object], path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in table.items():
        if not isinstance(value, Tensor):
            if isinstance(
                value, int | float | complex | str | bytes | None | Mapping | list | tuple | Record
            ):
                continue  # a counter, a version, a setting
            raise WeightsError(f"{name!r:.80} is a {type(value).__name__}, not a tensor", where=str(path))
        if not isinstance(name, str):
            raise WeightsError(f"a tensor's name is a {type(name).__name__}", where=str(path))
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise WeightsError(f"{name[:80]} is no plain tensor", where=str(path))
        tensors[name] = value.detach()
    return without_wrappers(tensors)


_COUNTERS = {"n_averaged", "initted", "step", "ema_model.initted", "ema_model.step"}


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix of a wrapper that holds the whole model.

    `module.` of DataParallel and of torch's AveragedModel (with its counter n_averaged), `_orig_mod.` of torch.compile;
    of `online_model.` and `ema_model.` (ema_pytorch) the average is taken, as such a file exists for it.
    """
    names = dict(tensors)
    while names:
        kept = {name: value for name, value in names.items() if name not in _COUNTERS}
        average = {name: value for name, value in kept.items() if name.startswith("ema_model.")}
        if average and all(name.startswith(("ema_model.", "online_model.")) for name in kept):
            names = {name.removeprefix("ema_model."): value for name, value in average.items()}
            continue
        prefix = next(
            (p for p in ("module.", "_orig_mod.") if kept and all(n.startswith(p) for n in kept)), ""
        )
        if not prefix:
            break
        names = {name.removeprefix(prefix): value for name, value in kept.items()}
    return names


def refuse_numbers(
    tensors: Mapping[str, Tensor], where: str, called: Mapping[str, str] | None = None
) -> None:
    """WeightsError for the first tensor that cannot be weights: NaN, infinity, integers or complex numbers.

    called: the tensor's name in the file, where it differs.
    """
    for name, value in tensors.items():
        shown = (called or {}).get(name, name)
        if not value.is_floating_point():
            raise WeightsError(f"{shown} is stored as {value.dtype}, which no weights are", where=where)
        if not torch.isfinite(value).all():
            raise WeightsError(f"{shown} holds NaN or infinity", where=where, fix="Download the file again.")


_BROKEN = (RuntimeError, EOFError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError,
           OverflowError, MemoryError, zipfile.BadZipFile, struct.error, safetensors.SafetensorError)  # fmt: skip
"""Raised by torch.load for a damaged file. It recognises a .safetensors by its suffix where `read_tensors` does not."""


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return without_wrappers(st.load_file(path))  # pyright: ignore[reportUnknownMemberType]
    except _BROKEN as error:
        raise WeightsError(
            f"the file is damaged ({_line(error)})", where=str(path), fix="Download it again."
        ) from error


def _torch(path: Path, *, mapped: bool) -> Any:
    if not mapped and path.stat().st_size > UNMAPPED:
        raise WeightsError("this is no file of torch.save's present format", where=str(path))
    records: dict[str, Any] = {}  # name in the file -> stand-in
    while True:
        try:
            with (
                safe_globals([(stand_in, name) for name, stand_in in records.items()]),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # about the pickle's protocol: it is read, or it is an error
                return torch.load(path, map_location="cpu", mmap=mapped or None, weights_only=True)
        except pickle.UnpicklingError as error:
            _admit(records, str(error), path)
        except _BROKEN as error:
            raise WeightsError(
                "the file is cut off, damaged or no file of tensors",
                where=str(path),
                fix="Download it again.",
            ) from error


def _admit(records: dict[str, Any], refusal: str, path: Path) -> None:
    """Add the record that torch's reader refused for, or raise WeightsError."""
    if filled := re.search(r"Can only (SETITEM|append|extend).*<class '[\w.]*\.Record_(\d+)'>", refusal):
        name = list(records)[int(filled[2])]
        records[name] = TableRecord if filled[1] == "SETITEM" else ListRecord
        records[name] = type(f"Record_{filled[2]}", (records[name],), {})
        return
    asked = re.search(r"GLOBAL ([\w.]+)", refusal)
    if asked is None:
        if re.search(r"Unsupported operand|Can only|unrecognized function", refusal):
            raise WeightsError(
                "the file holds objects besides its tensors that are not read without running it",
                where=str(path),
                fix=_trusted(path, 'm["state_dict"]'),
            )
        raise WeightsError("the file is damaged or no file of tensors", where=str(path))
    shown = asked[1]
    name = shown if "." in shown else f"builtins.{shown}"  # torch names built-ins without their module
    if not _admitted(shown) or name in records or len(records) == MOST_RECORDS:
        raise WeightsError(
            f"the file asks for {shown[:80]}, which no tensor needs; nothing was run",
            where=str(path),
            fix="Take the weights as .safetensors, or from another source.",
        )
    kind = TableRecord if name == "collections.defaultdict" else Record
    records[name] = type(f"Record_{len(records)}", (kind,), {})


def _admitted(name: str) -> bool:
    """Whether a name may be stood in for: a setting of Python's own library, or anything of another package."""
    package = name.partition(".")[0]
    library = package in sys.stdlib_module_names or package in (
        "__builtin__",
        "copy_reg",
        "cPickle",
        "nt",
        "posix",
    )
    return bool(STANDARD.fullmatch(name)) or ("." in name and not library)


def _trusted(path: Path, state: str) -> str:
    """The command that extracts the tensors of a file whose source the user trusts."""
    load = f'torch.load({json.dumps(path.name)}, "cpu", weights_only=False)'
    code = f'import torch; m = {load}; torch.save({state}, "tensors.pth")'
    return f"If you trust its source, extract the tensors: python -c {shlex.quote(code)}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
