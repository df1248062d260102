"""Content and name of an image that is a path, bytes, an open file or a tensor."""

import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8

from dpmesh.decode import LARGEST_IMAGE
from dpmesh.errors import InputError
from dpmesh.io import read_bytes

_URL = re.compile(r"(https?|ftps?|s3|gs|rtsp|data|file):/", re.IGNORECASE)
_OPEN = 'Open it with open(path, "rb").'


def refuse_url(source: str | Path) -> None:
    """Raise InputError for a URL in the place of a path."""
    if _URL.match(str(source)):
        raise InputError(
            "is a URL; only local files are read", where=str(source), fix="Download it first: curl -LO URL"
        )


def source_path(source: object) -> str:
    """The path of an image: as it was supplied, or of an open file. Empty where there is none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(cast("str", source))
    name = getattr(source, "name", "") if hasattr(source, "read") else ""
    return name if isinstance(name, str) else ""


def file_content(source: object, name: str) -> tuple[bytes, str]:
    """(content, name for errors) of a path, of bytes or of an open file. Raises InputError for anything else."""
    if isinstance(source, (str, os.PathLike)):
        path = source_path(source)
        refuse_url(path)
        return read_bytes(Path(path), LARGEST_IMAGE), name or path
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), name or "bytes"
    if not hasattr(source, "read"):
        fix = "For many images pass a list, or use predict_many." if hasattr(source, "__iter__") else ""
        raise InputError(
            f"{type(source).__name__} is not an image. Accepted are a path, the bytes of an image file, an open "
            "binary file, a PIL image, an H×W×3 uint8 array and a 3×H×W tensor",
            where=name or "image",
            fix=fix,
        )
    name = name or source_path(source) or "file"
    try:
        data = cast("Any", source).read(LARGEST_IMAGE + 1)
    except (OSError, ValueError) as error:  # ValueError: closed, or text that is not UTF-8
        raise InputError(f"cannot be read ({error})", where=name, fix=_OPEN) from None
    if not isinstance(data, bytes):
        raise InputError("is not open in binary mode", where=name, fix=_OPEN)
    if len(data) > LARGEST_IMAGE:
        raise InputError(f"is larger than {LARGEST_IMAGE:,} bytes", where=name)
    if not data:
        raise InputError("is empty, or was read to its end", where=name, fix="Rewind it: file.seek(0).")
    return data, name


def tensor_pixels(tensor: Any, name: str) -> UInt8[np.ndarray, "h w *c"]:
    """A tensor ([C,] H, W) as an array (H, W[, C]) uint8; its size is not checked. Raises InputError."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4)):
        shape = "×".join(map(str, tensor.shape))
        fix = (
            "Pass a list of images."
            if tensor.ndim == 4
            else "Move the channels first: tensor.permute(2, 0, 1)."
        )
        raise InputError(f"a tensor must be 3×H×W, RGB; this is {shape} {kind}", where=name, fix=fix)
    pixels = tensor.detach().cpu()
    if pixels.is_floating_point():
        pixels = pixels.double().numpy()
        if not ((pixels >= 0) & (pixels <= 1)).all():  # nor NaN
            raise InputError(
                "a float tensor must have values in [0, 1]", where=name, fix="Undo its normalisation."
            )
        pixels = np.round(pixels * 255).astype(np.uint8)
    elif kind == "uint8":
        pixels = pixels.numpy()
    else:
        raise InputError(f"a tensor must be uint8, or float in [0, 1]; this is {kind}", where=name)
    return pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, 2)
