"""Images of data sets: bounded, RGB, as they are stored.

EXIF orientation is ignored, because annotations were made on the stored pixels (unlike inference/images.py).
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dpmesh import io
from dpmesh.decode import LARGEST_IMAGE, its_own_error, open_image, refuse_tiles
from dpmesh.errors import InputError

MAX_PIXELS = 40_000_000
"""The sets' largest images have 4.2 million (2048×2048 of MuCo); CrowdPose and COCO come from the web."""


def decode_rgb(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Raises InputError, naming the file, for anything but a whole image of at most MAX_PIXELS (decode.FORMATS)."""
    image = open_image(data, name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"the image has {width:,}×{height:,} pixels, more than {MAX_PIXELS:,}", where=name)
    refuse_tiles(image, MAX_PIXELS, name)
    if image.format == "PNG" and not _whole_chunks(data):
        raise InputError("the image is damaged", where=name)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    with its_own_error(name), _quietly():
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.shape[:2] != (height, width):
        raise InputError("the image is damaged", where=name)
    return np.asarray(decoded, np.uint8)


def read_bytes(path: Path) -> bytes:
    """Raises InputError where the file is none, cannot be read, is empty or larger than an image may be."""
    data = io.read_bytes(path, LARGEST_IMAGE)
    if not data:
        raise InputError("the image is empty", where=str(path))
    return data


def _whole_chunks(data: bytes) -> bool:
    """Whether a PNG's chunks lie inside the file: OpenCV makes room for what they claim, gigabytes at worst."""
    at = 8
    while at < len(data):
        kind = data[at + 4 : at + 8]
        at += int.from_bytes(data[at : at + 4], "big") + 12
        if kind == b"IEND":
            break
    return at <= len(data)


@contextmanager
def _quietly() -> Generator[None]:
    """OpenCV logs what is wrong with a file; the error says it. Wheels before 4.12 have no switch for it."""
    logging = getattr(cv2.utils, "logging", None)
    if logging is None:
        yield
        return
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)
