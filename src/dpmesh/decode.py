"""Image files of strangers, opened with Pillow: which formats are admitted, and what a decoder may cost.

Pillow knows some forty formats and recognises them by content: a PostScript program in `x.jpg` would go to
Ghostscript. So every `Image.open` of this package names the formats of one table. A decoder may raise anything at
all on damaged bytes; here it becomes that image's InputError.
"""

import io
import os
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from dpmesh.errors import InputError
from dpmesh.io import open_regular

FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm",),
    "JPEG2000": (".jp2",),
}
"""Pillow's name of every format that is read, and the suffixes by which a folder's images are known."""

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

LARGEST_IMAGE = 2**30
"""Bytes of a file. 120 million uncompressed pixels of 3 × 16 bits have three quarters of that."""

MOST_SCANS = 50
"""Of a progressive JPEG; encoders make 10 or so. Each scan costs a walk over all blocks and may have a few bytes."""

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_TILE_TAGS = (322, 323)
_guard = RLock()


@contextmanager
def its_own_error(name: str) -> Generator[None]:
    """Raises InputError, naming the image, for whatever a decoder raises inside."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        admitted = ", ".join(FORMATS)
        raise InputError(f"is not a picture that can be read here ({admitted})", where=name) from None
    except MemoryError:
        raise InputError("the picture does not fit into memory", where=name) from None
    except Exception as error:  # noqa: BLE001  decoders raise anything: struct.error, TypeError, cv2.error, ...
        raise InputError(f"the picture is damaged or ends early ({_line(error)})", where=name) from None


@contextmanager
def decoding(name: str, max_pixels: int | None = None) -> Generator[None]:
    """`its_own_error` around Pillow, with its warnings silenced. One thread at a time.

    max_pixels: Pillow's own global limit meanwhile (it refuses twice as many), None for none: the caller checks
    sizes himself, before pixels are decoded, with a limit that users can raise.
    """
    with _guard, warnings.catch_warnings(), its_own_error(name):
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def open_image(data: bytes, name: str) -> Image.Image:
    """The image with its header read and its pixels still to be decoded; raises InputError."""
    if not data:
        raise InputError("the file is empty", where=name)
    if data.startswith(b"\xff\xd8") and _scans(data) > MOST_SCANS:
        raise InputError(f"the picture is a JPEG of more than {MOST_SCANS} scans", where=name)
    return _open(io.BytesIO(data), name)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header of a file, the rest of which is not read; raises InputError."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > LARGEST_IMAGE:  # some decoders read all of a file for its header
            raise InputError(f"is larger than {LARGEST_IMAGE:,} bytes", where=str(path))
        return _open(file, str(path)).size


def _open(file: io.BytesIO | io.BufferedReader | BinaryIO, name: str) -> Image.Image:
    Image.init()
    with decoding(name):
        image = Image.open(file, formats=[known for known in FORMATS if known in Image.OPEN])
    return image


def refuse_foreign(image: Image.Image, name: str) -> None:
    """Raise InputError for an image that somebody else has opened, and that only now would be decoded, by a decoder
    that is not admitted (`FORMATS`)."""
    waiting = isinstance(image, ImageFile.ImageFile) and bool(image.tile)
    if waiting and image.format not in (*FORMATS, "MPO"):  # MPO: several JPEGs in one file
        raise InputError(
            f"{image.format} is none of the formats that are read ({', '.join(FORMATS)})",
            where=name,
            fix="If you trust the file, decode it yourself: image.load().",
        )


def refuse_tiles(image: Image.Image, max_pixels: int, name: str) -> None:
    """Raise InputError for a TIFF whose tiles are larger than any image may be: one is decoded whole."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return
    with decoding(name):
        width, height = (int(tags.get(tag, 1)) for tag in _TILE_TAGS)
    if width * height > max(max_pixels, 1):
        raise InputError(f"the picture has tiles of {width:,}×{height:,} pixels", where=name)


def _scans(data: bytes) -> int:
    """How many scans a JPEG has, counted to one more than MOST_SCANS."""
    at, count = 2, 0
    while count <= MOST_SCANS and (marker := _MARKER.search(data, at)):
        kind, at = marker[1][0], marker.end()
        if kind == 0xD9:  # the end of the image; what follows (thumbnails, films) is not decoded
            break
        count += kind == 0xDA
        if kind not in (0x01, 0xD8):  # all others have a length; what it spans may hold anything
            at += int.from_bytes(data[at : at + 2], "big")
    return count


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
