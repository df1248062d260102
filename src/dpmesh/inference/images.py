"""Images as upright 8-bit RGB from files, Pillow images, arrays and tensors; the header is checked before pixels are
decoded."""

import hashlib
import sys
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from dpmesh.decode import SUFFIXES, decoding, open_image, refuse_foreign, refuse_tiles
from dpmesh.errors import InputError
from dpmesh.inference.image_sources import file_content, tensor_pixels
from dpmesh.inference.options import MAX_PIXELS

__all__ = ["MAX_SIDE", "SUFFIXES", "DecodedImage", "read_image"]

MAX_SIDE = 32_000
"""OpenCV's warps count pixels in 16 bits."""

DEPTHS = {10: 0.75, 12: 0.75, 14: 0.98}
"""Bits of camera data that programs store unscaled in 16-bit files, and the share of the range that its brightest value
must reach where the file does not state the depth. Read as 16 bits, 10 and 12 bits would be nearly black, but 14 bits
a dim photo: there a true 16-bit image is the likelier one unless the range is full."""

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
"""EXIF orientation -> the transposition that undoes it."""

_SEVERAL = {
    "MPO": "several photos in one file (MPO): the first was taken",
    "TIFF": "a TIFF of several pages: the first was taken",
    "HEIF": "several images in one file (HEIF): the primary one was taken",
}
"""Note on a file of several images, by format; all others are animations."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image: `rgb` upright; `exif_focal` px or None; `notes` on its decoding; `sha256` of its file, empty
    for Pillow images and arrays."""

    rgb: UInt8[np.ndarray, "h w 3"]
    exif_focal: float | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""


def read_image(source: object, max_pixels: int = MAX_PIXELS, name: str = "") -> DecodedImage:
    """Decode an image: a path, the bytes of an image file, an open binary file, a PIL image, an array (H, W[, 1, 3 or
    4]), uint8 or uint16, or a tensor ([1, 3 or 4,] H, W), uint8 or float in [0, 1]. Colours are in RGB order.

    Turned upright by EXIF; transparency is laid over white. 16 bits keep their high byte; 10, 12 or 14 bits stored
    unscaled in 16 are stretched where the file states them (TIFF's MaxSampleValue and BitsPerSample, PNG's sBIT), or
    where the brightest value fills their range (`DEPTHS`); other dark data is read as 16 bits, with a note.
    Of an animation, an MPO or a multi-page TIFF the first image is taken, with a note; EXIF that cannot be read is
    ignored, with a note. Raises InputError for anything that is not such an image (`decode.FORMATS`), is damaged, or
    has more than `max_pixels`.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "array")
    if isinstance(source, Image.Image):
        refuse_foreign(source, name or "image")
        return _decode(source, max_pixels, name or "image")
    if (torch := sys.modules.get("torch")) is not None and isinstance(source, torch.Tensor):
        return _from_array(tensor_pixels(source, name or "tensor"), name or "tensor")
    data, name = file_content(source, name)
    decoded = _decode(open_image(data, name), max_pixels, name, data)
    return replace(decoded, sha256=hashlib.sha256(data).hexdigest())


def _decode(image: Image.Image, max_pixels: int, name: str, data: bytes = b"") -> DecodedImage:
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
        # Not n_frames, which reads a TIFF up to its last page.
        if getattr(image, "is_animated", False):
            if image.format != "HEIF":  # opened at its primary image
                image.seek(0)
            notes.append(_SEVERAL.get(image.format or "", "animated: the first frame was taken"))
        focal35 = _exif(image, ExifTags.Base.FocalLengthIn35mmFilm, notes)
        image.load()
        turn = _exif(image, ExifTags.Base.Orientation, notes)
        upright = _UPRIGHT.get(turn) if isinstance(turn, int) else None
        image = _eight_bits(image, data, notes)
        rgb = _to_rgb(image if upright is None else image.transpose(upright))
    return DecodedImage(rgb, _focal_px(focal35, width, height), tuple(dict.fromkeys(notes)))


def _exif(image: Image.Image, tag: ExifTags.Base, notes: list[str]) -> object:
    """A value of EXIF, None where it is missing; damage is only noted, as the pixels may be intact."""
    try:
        exif = image.getexif()
        if tag == ExifTags.Base.Orientation:
            return exif.get(tag)
        return exif.get_ifd(ExifTags.IFD.Exif).get(tag)
    except Exception:  # noqa: BLE001  Pillow's reader raises anything, from struct.error to TypeError
        notes.append("EXIF cannot be read and was ignored")
        return None


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _eight_bits(image: Image.Image, data: bytes, notes: list[str]) -> Image.Image:
    """The decoded image with 8 bits a channel. data: its file, for the low bytes of colours, which Pillow drops."""
    if image.mode == "F":  # taken as [0, 1], or as [0, 255] if brighter
        values = np.asarray(image)
        brightest = values[np.isfinite(values)].max(initial=0.0)
        return _rounded(np.where(np.isnan(values), 0, values) * (255.0 if brightest <= 1.0 else 1.0))
    if image.mode.startswith("I"):  # 16-bit grey and similar modes, which Pillow would clip
        values = np.asarray(image)
        bits = _depth(values, _stated_depth(image, data), notes)
        return _rounded(values / (257.0 if bits == 16 else (2**bits - 1) / 255))
    if data and _is_deep_colour(image, data) and _brightest(image) < 2**6:
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is not None and deep.dtype == np.uint16 and deep.ndim == 3:
            colours = deep[..., 2::-1]
            bits = _depth(colours, _stated_depth(image, data), notes)
            if bits != 16:
                rgb = _rounded(colours * (255 / (2**bits - 1)))
                if deep.shape[2] == 4:
                    rgb.putalpha(Image.fromarray((deep[..., 3] // 256).astype(np.uint8)))
                return rgb
    return image


def _brightest(image: Image.Image) -> int:
    """The largest value of the colour channels, without alpha."""
    channels = image.split()
    return int(max(np.asarray(channel).max() for channel in channels[: 1 if len(channels) < 3 else 3]))


def _rounded(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


def _depth(values: np.ndarray, stated: int | None, notes: list[str]) -> int:
    """Bits of integer data from a 16-bit file: 8, one of `DEPTHS`, or 16."""
    brightest = int(values.max(initial=0))
    if brightest < 2**8:
        return 8
    bits = next((bits for bits in DEPTHS if brightest < 2**bits), 16)
    if stated in DEPTHS and brightest < 2**stated:
        bits = stated
    elif (
        bits == 16 or not (values % 257).any() or not (values % 256).any()
    ):  # full range, or 8 bits scaled to 16
        return 16
    elif brightest < DEPTHS[bits] * 2**bits:
        notes.append(f"16-bit data no brighter than {brightest}: if it has fewer bits, scale it to 16 first")
        return 16
    notes.append(f"{bits}-bit data in a 16-bit file: stretched")
    return bits


_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281


def _tiff_tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return tuple(v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int))


def _stated_depth(image: Image.Image, data: bytes) -> int | None:
    """Bits a channel as TIFF's tags or PNG's sBIT state them, where they are fewer than 16."""
    if image.format == "TIFF":
        bits = {value.bit_length() for value in _tiff_tag(image, _MAX_SAMPLE_VALUE)}
        bits |= {value for value in _tiff_tag(image, _BITS_PER_SAMPLE) if value < 16}
        return min(bits, default=None)
    if image.format == "PNG":
        at = data.find(b"sBIT", 0, data.find(b"IDAT"))
        length = min(int.from_bytes(data[at - 4 : at], "big"), 3) if at > 0 else 0
        return max(data[at + 4 : at + 4 + length], default=None)
    return None


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """Whether a file has 16 bits in each of several channels."""
    if image.format == "PNG":
        return data[24:25] == b"\x10" and image.mode in ("RGB", "RGBA", "LA")
    return (
        image.format == "TIFF"
        and image.mode in ("RGB", "RGBA", "LA")
        and 16 in _tiff_tag(image, _BITS_PER_SAMPLE)
    )


def _from_array(array: np.ndarray, name: str) -> DecodedImage:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    right = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if (
        array.dtype not in (np.uint8, np.uint16)
        or not right
        or 0 in array.shape
        or max(array.shape) > MAX_SIDE
    ):
        shape = "×".join(str(n) for n in array.shape)
        what = f"an array must be H×W×3 uint8, RGB; this is {shape} {array.dtype}"
        raise InputError(what, where=name, fix=_array_fix(array))
    notes: list[str] = []
    if array.dtype == np.uint16:
        bits = _depth(array[..., :3] if array.ndim == 3 else array, None, notes)
        colours = array[..., :3] if array.ndim == 3 else array
        scaled = colours >> 8 if bits not in DEPTHS else np.round(colours * (255 / (2**bits - 1)))
        scaled = scaled.astype(np.uint8)
        array = np.dstack([scaled, (array[..., 3:] >> 8).astype(np.uint8)]) if array.ndim == 3 else scaled
    return DecodedImage(_to_rgb(Image.fromarray(np.ascontiguousarray(array))), notes=tuple(notes))


def _array_fix(array: np.ndarray) -> str:
    if array.ndim == 4:
        return "Pass a list of images: list(array)."
    if array.ndim == 3 and array.shape[2] not in (3, 4) and array.shape[0] in (1, 3, 4):
        return "Move the channels last: array.transpose(1, 2, 0)."
    if array.dtype.kind == "f":
        return "Convert values in [0, 1]: (255 * array).round().astype(np.uint8)."
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1:
        return "Convert values up to 255: array.astype(np.uint8)."
    return ""


def _focal_px(focal35: object, width: int, height: int) -> float | None:
    """EXIF's 35 mm equivalent (mm) in pixels of this image; None where it is missing, 0 or out of range."""
    try:
        millimetres = float(focal35)  # pyright: ignore[reportArgumentType]  # EXIF holds anything
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not 4 <= millimetres <= 3000:
        return None
    return millimetres * float(np.hypot(width, height)) / _FULL_FRAME_DIAGONAL
