"""Read images as upright 8-bit RGB. A file that cannot be used raises InputError.

The header is checked before anything is decoded, so a decompression bomb costs nothing.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from dpmesh.decode import LARGEST_IMAGE, SUFFIXES, decoding, open_image, refuse_foreign, refuse_tiles
from dpmesh.errors import InputError
from dpmesh.inference.options import MAX_PIXELS
from dpmesh.io import read_bytes

__all__ = ["MAX_SIDE", "SUFFIXES", "DecodedImage", "read_image"]

MAX_SIDE = 32_000
"""OpenCV's warps count pixels in 16 bits."""

_FULL_FRAME_DIAGONAL = 43.2666
"""Millimetres, of the 36 x 24 mm frame: EXIF's 35 mm equivalent refers to the diagonal (CIPA DCG-001)."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the image upright."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    rgb: upright. exif_focal: px, or None. notes: on what was ignored or left out. sha256: of its file, else empty.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    exif_focal: float | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""


def read_image(
    source: "str | Path | Image.Image | np.ndarray", max_pixels: int = MAX_PIXELS, name: str = ""
) -> DecodedImage:
    """Read a file, a PIL image, or an array (H, W[, 3 or 4]) of uint8 or uint16 in RGB order.

    The image is rotated upright by EXIF; transparency is blended over white; 16 bits keep their high byte. Of an
    animation the first frame is used; this is noted, and so is EXIF that cannot be read. Raises InputError for anything
    that is not such an image (`decode.FORMATS`), is damaged, or has more than `max_pixels`.
    """
    if isinstance(source, np.ndarray):
        return DecodedImage(_from_array(source, name or "array"))
    if isinstance(source, Image.Image):
        refuse_foreign(source, name or "image")
        return _decode(source, max_pixels, name or "image")
    path = Path(source)
    data = read_bytes(path, LARGEST_IMAGE)
    decoded = _decode(open_image(data, name or str(path)), max_pixels, name or str(path))
    return replace(decoded, sha256=hashlib.sha256(data).hexdigest())


def _decode(image: Image.Image, max_pixels: int, name: str) -> DecodedImage:
    width, height = image.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limit = f"at most {max_pixels:,} pixels and {MAX_SIDE:,} a side are read"
        raise InputError(
            f"the image is {width:,}×{height:,} pixels; {limit}",
            where=name,
            fix="Shrink it or raise --max-pixels.",
        )
    refuse_tiles(image, max_pixels, name)
    notes: list[str] = []
    with decoding(name, max_pixels):
        # Not n_frames: of a TIFF it walks to the last page.
        if getattr(image, "is_animated", False):
            image.seek(0)
            notes.append("animated: the first frame was taken")
        focal35 = _exif(image, ExifTags.Base.FocalLengthIn35mmFilm, notes)
        image.load()
        orientation = _exif(image, ExifTags.Base.Orientation, notes)
        upright = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
        rgb = _to_rgb(image if upright is None else image.transpose(upright))
    return DecodedImage(rgb, _focal_px(focal35, width, height), tuple(dict.fromkeys(notes)))


def _exif(image: Image.Image, tag: ExifTags.Base, notes: list[str]) -> object:
    """A value of EXIF, or None. Damaged EXIF is noted, not refused, since the pixels may be whole."""
    try:
        exif = image.getexif()
        if tag == ExifTags.Base.Orientation:
            return exif.get(tag)
        return exif.get_ifd(ExifTags.IFD.Exif).get(tag)
    except Exception:  # noqa: BLE001  Pillow's reader raises anything, from struct.error to TypeError
        notes.append("EXIF cannot be read and was ignored")
        return None


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if (
        image.mode.startswith("I") or image.mode == "F"
    ):  # 16-bit grey and its relatives: Pillow would clip them
        return _grey(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _grey(values: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """One channel of more than 8 bits as 8 bits: of integers the high byte of 16, floats from [0, 1]."""
    if values.dtype.kind == "f":
        brightest = values[np.isfinite(values)].max(initial=0.0)
        scaled = np.where(np.isnan(values), 0, values) * (255.0 if brightest <= 1.0 else 1.0)
    else:
        scaled = values / (257.0 if values.max(initial=0) > 255 else 1.0)
    return np.repeat(np.clip(np.round(scaled), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _from_array(array: np.ndarray, name: str) -> UInt8[np.ndarray, "h w 3"]:
    right = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if (
        array.dtype not in (np.uint8, np.uint16)
        or not right
        or 0 in array.shape
        or max(array.shape) > MAX_SIDE
    ):
        shape = "×".join(str(n) for n in array.shape)
        raise InputError(f"an array must be H×W×3 uint8, RGB; this is {shape} {array.dtype}", where=name)
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _focal_px(focal35: object, width: int, height: int) -> float | None:
    """EXIF's 35 mm equivalent (mm) in pixels of this image; None where it is missing, 0 or implausible."""
    try:
        millimetres = float(focal35)  # pyright: ignore[reportArgumentType]  # EXIF holds anything
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not 4 <= millimetres <= 3000:
        return None
    return millimetres * float(np.hypot(width, height)) / _FULL_FRAME_DIAGONAL
