"""Pictures of data sets: bounded, RGB, as they are stored.

EXIF orientation is ignored, because annotations were made on the stored pixels (unlike pipeline/images.py).
"""

import io
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from dpmesh.errors import InputError

MAX_PIXELS = 40_000_000
"""The sets' largest pictures have 4.2 million (2048×2048 of MuCo); CrowdPose and COCO come from the web."""


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) from the header alone; raises InputError."""
    try:
        size: tuple[int, int] = Image.open(io.BytesIO(data)).size
        return size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError("this is not a readable picture", where=name) from error


def decode_rgb(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Raises InputError, naming the file, for anything but a whole picture of at most MAX_PIXELS."""
    width, height = size_of(data, name)
    if width * height > MAX_PIXELS:
        raise InputError(f"the picture has {width:,}×{height:,} pixels, more than {MAX_PIXELS:,}", where=name)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.shape[:2] != (height, width):
        raise InputError("the picture is damaged", where=name)
    return np.asarray(decoded, np.uint8)


def read_bytes(path: Path) -> bytes:
    """Raises InputError where the file cannot be read or is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the picture cannot be read ({error.strerror})", where=str(path)) from error
    if not data:
        raise InputError("the picture is empty", where=str(path))
    return data
