"""Opens untrusted image files with Pillow: the admitted formats, limits on decoding, errors that name the file.

Pillow knows some forty formats and recognises them by content: a PostScript program in `x.jpg` would go to
Ghostscript. So every `Image.open` of this package names the formats of one table. A decoder may raise any exception on
damaged bytes; here it becomes that image's InputError.
"""

import io
import os
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import RLock
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from dpmesh.errors import InputError
from dpmesh.io import HEAD, Mistaken, mistaken, open_regular

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
"""Pillow's name of every format that is read, and the suffixes that mark a folder's images."""

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Read with pillow-heif (the extra `heic`); without it each such file is an error that names the extra."""

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes) | {*HEIF_SUFFIXES}

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".flv",
        ".3gp",
        ".mts",
        ".m2ts",
        ".ts",
    ]
)
RAW_SUFFIXES = frozenset([".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"])
RAW = Mistaken(
    "is a raw photo, which is not read", "Convert it to JPEG or TIFF first, e.g. with darktable or dcraw -T."
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_KIND = Mistaken(
    "is a TIFF that is damaged or of a kind that is not read (such as colours in floating-point numbers)",
    "Convert it to 8 or 16 bits a channel.",
)
VIDEO = Mistaken(
    "is a video", "Extract its frames first, into an empty folder: ffmpeg -i VIDEO -q:v 2 frames/%06d.jpg"
)
_CONVERT = "Convert it to JPEG or PNG first."
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_OTHER_KINDS = (
    (b"\xff\x0a", 0, Mistaken("is a JPEG XL image, which is not read", _CONVERT)),
    (b"JXL ", 4, Mistaken("is a JPEG XL image, which is not read", _CONVERT)),
    (b"%PDF", 0, Mistaken("is a PDF, not an image", _CONVERT)),
    (b"8BPS", 0, Mistaken("is a Photoshop file, which is not read", _CONVERT)),
    (b"v/1\x01", 0, Mistaken("is an OpenEXR image, which is not read", _CONVERT)),
    (b"#?RADIANCE", 0, Mistaken("is a Radiance HDR image, which is not read", _CONVERT)),
    (b"<svg", 0, Mistaken("is an SVG drawing, not a photo", _CONVERT)),
    (b"FUJIFILMCCD-RAW", 0, RAW),
    (b"IIU\0", 0, RAW),
    (b"IIRO", 0, RAW),
    (
        b"\0\x05\x16\x07",
        0,
        Mistaken("is a file that macOS stores next to an image, not the image", "Leave it out."),
    ),
    (b"\x1aE\xdf\xa3", 0, VIDEO),
    (b"AVI ", 8, VIDEO),
    (b"FLV\x01", 0, VIDEO),
    (b"OggS", 0, VIDEO),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, VIDEO),
    (b"\0\0\x01\xba", 0, VIDEO),
    (b"\0\0\x01\xb3", 0, VIDEO),
    (b"moov", 4, VIDEO),
    (b"mdat", 4, VIDEO),
    (b"wide", 4, VIDEO),
)
"""(magic, position, kind) of files that often lie among images."""

LARGEST_IMAGE = 2**30
"""Bytes of a file. 120 million uncompressed pixels of 3 × 16 bits have three quarters of that."""

MOST_SCANS = 50
"""Scans of a progressive JPEG; encoders write about 10. Each costs a pass over all blocks and may be a few bytes."""

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_TILE_TAGS = (322, 323)
_COMMON = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""Magic of JPEG and PNG: for these Pillow need not import all of its decoders."""
_guard = RLock()


@contextmanager
def its_own_error(name: str) -> Generator[None]:
    """Turns any exception of a decoder inside into an InputError that names the image."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            f"is not an image that can be read here ({', '.join(FORMATS)})", where=name
        ) from None
    except MemoryError:
        raise InputError("the image does not fit into memory", where=name) from None
    except Exception as error:  # noqa: BLE001  decoders raise anything: struct.error, TypeError, cv2.error, ...
        raise InputError(f"the image is damaged or ends early ({_line(error)})", where=name) from None


@contextmanager
def decoding(name: str, max_pixels: int | None = None) -> Generator[None]:
    """`its_own_error` around Pillow, with its warnings silenced. One thread at a time.

    max_pixels: Pillow's global limit inside (it refuses twice as many), None for none: callers check sizes before
    pixels are decoded, with a limit that users can raise.
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
        raise InputError(f"the image is a JPEG of more than {MOST_SCANS} scans", where=name)
    return _open(io.BytesIO(data), name)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from a file's header, without reading the rest; raises InputError."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > LARGEST_IMAGE:  # some decoders read all of a file for its header
            raise InputError(f"is larger than {LARGEST_IMAGE:,} bytes", where=str(path))
        return _open(file, str(path)).size


def _open(file: io.BytesIO | io.BufferedReader | BinaryIO, name: str) -> Image.Image:
    head = file.read(HEAD)
    file.seek(0)
    if head.startswith(_COMMON):
        Image.preinit()
    else:
        Image.init()
    raw = Path(name).suffix.lower() in RAW_SUFFIXES
    if head.startswith(_TIFF) and (raw or head[8:10] == b"CR"):  # Pillow would read its thumbnail
        raise InputError(RAW.what, where=name, fix=RAW.fix)
    formats = [known for known in FORMATS if known in Image.OPEN]
    if _heif(head) and heif_available():
        formats.append("HEIF")
    with decoding(name):
        try:
            return Image.open(file, formats=formats)
        except UnidentifiedImageError:
            if "HEIF" in formats:
                raise InputError("the HEIC image is damaged", where=name, fix="Copy it again.") from None
            kind = other_kind(head) or (RAW if raw else _TIFF_KIND if head.startswith(_TIFF) else None)
            if kind is None:
                raise
            raise InputError(kind.what, where=name, fix=kind.fix) from None


def _heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


@cache
def heif_available() -> bool:
    """Whether pillow-heif is installed; registers its decoder with Pillow."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()  # pyright: ignore[reportUnknownMemberType]
    return True


def other_kind(head: bytes) -> Mistaken | None:
    """The kind of a file that Pillow did not recognise as an admitted image, by its first bytes."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return Mistaken("is an AVIF image, for which this Pillow was built without a decoder",
                            "Install Pillow's own wheel: pip install --upgrade pillow.")  # fmt: skip
        if _heif(head):
            return Mistaken("is a HEIC image, which needs pillow-heif",
                            "Install it: pip install 'dpmesh[heic]', or convert the image to JPEG.")  # fmt: skip
        if brand == b"crx ":
            return RAW
        return VIDEO
    if head[:1] == head[188:189] == b"G":  # packets of an MPEG transport stream
        return VIDEO
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<?xml") and b"<svg" in text:
        text = b"<svg"
    for magic, at, kind in _OTHER_KINDS:
        if (text if magic == b"<svg" else head)[at : at + len(magic)] == magic:
            return kind
    return mistaken(head)


def refuse_foreign(image: Image.Image, name: str) -> None:
    """Raise InputError for an image that the caller opened but did not decode, in a format that is not in `FORMATS`."""
    waiting = isinstance(image, ImageFile.ImageFile) and bool(image.tile)
    if waiting and image.format not in (*FORMATS, "MPO", "HEIF"):  # MPO: several JPEGs in one file
        raise InputError(
            f"{image.format} is not one of the formats that are read ({', '.join(FORMATS)})",
            where=name,
            fix="If you trust the file, decode it yourself: image.load().",
        )


def refuse_tiles(image: Image.Image, max_pixels: int, name: str) -> None:
    """Raise InputError for a TIFF whose tiles exceed the pixel limit: a tile is decoded whole."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return
    with decoding(name):
        width, height = (int(tags.get(tag, 1)) for tag in _TILE_TAGS)
    if width * height > max(max_pixels, 1):
        raise InputError(f"the image has tiles of {width:,}×{height:,} pixels", where=name)


def _scans(data: bytes) -> int:
    """Number of scans of a JPEG, counted to at most MOST_SCANS + 1."""
    at, count = 2, 0
    while count <= MOST_SCANS and (marker := _MARKER.search(data, at)):
        kind, at = marker[1][0], marker.end()
        if kind == 0xD9:  # the end of the image; what follows (thumbnails, videos) is not decoded
            break
        count += kind == 0xDA
        if kind not in (0x01, 0xD8):  # all others have a length
            at += int.from_bytes(data[at : at + 2], "big")
    return count


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
