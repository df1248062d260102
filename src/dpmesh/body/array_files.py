"""Arrays from .npy and .npz files, and the fields of an SMPL file: recognised by content, never executed."""

import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.pickle_reader import BROKEN, read_pickle
from dpmesh.body.unpickle import FIELDS, load_smpl_pickle, plain_array
from dpmesh.errors import InputError
from dpmesh.io import HEAD, mistaken, open_regular, read_bytes

LARGEST_ARRAYS = 2 * 2**30
"""Bytes of the arrays read from an .npz, unpacked; SMPL 1.1.0 has a quarter of a gibibyte."""

BROKEN_ARRAYS = (
    OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RuntimeError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What numpy and zipfile raise on a damaged file; RuntimeError for unknown compression or encryption."""

_PICKLE_STARTS = (b"\x80", b"(d", b"(l", b"(i", b"c", b"}", b"]")
_NOT_A_BODY = "Give a .npz, or SMPL's .pkl."


def load_smpl_fields(path: Path, extra: Collection[str] = ()) -> dict[str, NDArray[np.generic]]:
    """The arrays of a body file by SMPL's field names, whatever the file is called: .npz, or SMPL's pickle.

    extra: names of further arrays to read from an .npz. Other fields are not read. Raises InputError.
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
    if head.startswith(b"PK"):
        return load_npz(path, names=(*FIELDS, *extra))
    if kind := mistaken(head):
        raise InputError(kind.what, where=str(path), fix=kind.fix)
    if head.startswith(b"\x93NUMPY"):
        raise InputError("is a single array (.npy), not a body", where=str(path), fix=_NOT_A_BODY)
    if head.startswith(_PICKLE_STARTS) or path.suffix.lower() == ".pkl":
        return load_smpl_pickle(path)
    raise InputError("is not a body file", where=str(path), fix=_NOT_A_BODY)


def load_npz(
    path: Path, limit: int = LARGEST_ARRAYS, names: Collection[str] | None = None
) -> dict[str, NDArray[np.generic]]:
    """Arrays of an .npz by name, of at most `limit` bytes unpacked. Raises InputError.

    names: the arrays to read where present (default: all). Others are skipped, so that objects among them do no harm.
    An object array that is read must hold one array, sparse matrix or chumpy array, as `np.savez` stores SMPL's
    J_regressor; its pickle is read as data.
    """
    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as archive:
                members = {
                    member.filename.removesuffix(".npy"): member
                    for member in archive.infolist()
                    if member.filename.endswith(".npy") and (names is None or member.filename[:-4] in names)
                }
                if not any(name.endswith(".npy") for name in archive.namelist()):
                    raise InputError(*_no_arrays(archive), where=str(path))
                if (size := sum(member.file_size for member in members.values())) > limit:
                    raise InputError(f"unpacked it would have {size:,} bytes", where=str(path))
                objects = {name: _object(archive, member) for name, member in members.items()}
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {
                    name: checked(arrays[name] if objects[name] is None else objects[name])
                    for name in members
                }
    except InputError as error:
        raise InputError(error.what, where=error.where or str(path), fix=error.fix) from None
    except (*BROKEN_ARRAYS, *BROKEN) as error:
        raise _unreadable("this is not a readable .npz", error, path) from error


def load_npy(path: Path, limit: int) -> NDArray[np.generic]:
    """The array of an .npy of at most `limit` bytes. Raises InputError."""
    data = read_bytes(path, limit)
    try:
        return checked(np.load(io.BytesIO(data), allow_pickle=False))
    except BROKEN_ARRAYS as error:
        if kind := mistaken(data[:HEAD]):
            raise InputError(kind.what, where=str(path), fix=kind.fix) from None
        raise _unreadable("the file is damaged or no .npy", error, path) from error


def checked(array: object) -> NDArray[np.generic]:
    """The array itself, its truth values 0 or 1: others mislead numpy, which counts by adding bytes."""
    if not isinstance(array, np.ndarray):
        raise ValueError("a member is no array")
    values = cast("NDArray[Any]", array)
    return np.not_equal(values.view(np.uint8), 0) if values.dtype.kind == "b" else values  # pyright: ignore[reportUnknownMemberType]


def _object(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic] | None:
    """The array that a member of objects holds; None for a member of numbers or texts."""
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):  # np.save writes objects in version 1.0
            return None
        _, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if not dtype.hasobject:
            return None
        content = read_pickle(stream.read())
    array = plain_array(content)
    if array is None:
        name = member.filename.removesuffix(".npy")
        raise InputError(
            f"{name} is an array of objects", fix="Write it again with np.savez and plain arrays of numbers."
        )
    return array


def _no_arrays(archive: zipfile.ZipFile) -> tuple[str]:
    names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        return ("holds weights (torch.save), not arrays (.npz)",)
    inside = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
    return (f"is a zip archive without arrays{inside}: unpack it first",)


def _unreadable(what: str, error: BaseException, path: Path) -> InputError:
    line = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{what} ({line})", where=str(path))
