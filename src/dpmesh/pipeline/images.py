"""Pictures from the outside world, as upright 8-bit RGB, or an InputError that says what is wrong with them.

The header is checked before anything is decoded, so a bomb costs nothing.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dpmesh.errors import InputError

MAX_PIXELS = 120_000_000
"""Default limit of `read_image`: the largest phone pictures pass, 30,000 x 30,000 does not."""

MAX_SIDE = 32_000
"""OpenCV's warps count pixels in 16 bits."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jp2", ".avif"}
)
"""What is taken for a picture inside a folder; a file named outright is tried whatever its name."""

_FULL_FRAME_DIAGONAL = 43.2666
"""Millimetres, of the 36 x 24 mm frame: EXIF's 35 mm equivalent is meant by the diagonal (CIPA DCG-001)."""

_guard = Lock()


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `rgb` upright; `exif_focal` px or None; `notes` on what was done to it; `sha256` of the file's
    bytes that were decoded, empty where there was no file."""

    rgb: UInt8[np.ndarray, "h w 3"]
    exif_focal: float | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""


def read_image(
    source: "str | Path | Image.Image | np.ndarray", max_pixels: int = MAX_PIXELS, name: str = ""
) -> Picture:
    """Read a file, or take a PIL image or an array (H, W[, 3 or 4]), uint8 or uint16, RGB order.

    Turned upright by EXIF; transparency is laid over white; 16 bits keep their high byte; of an animation the
    first frame is taken and noted. Raises InputError for anything that is not such a picture, is damaged, or
    has more than `max_pixels`.
    """
    if isinstance(source, np.ndarray):
        return Picture(_from_array(source, name or "array"))
    if isinstance(source, Image.Image):
        return _decode(source, max_pixels, name or "picture")
    path = Path(source)
    name = name or str(path)
    if path.is_dir():
        raise InputError("is a folder, not a picture", where=name)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", where=name) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=name) from None
    if not data:
        raise InputError("the file is empty", where=name)
    with _no_bomb_check():
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            raise InputError("is not a picture that Pillow can read", where=name) from None
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"is a damaged picture ({_line(error)})", where=name) from None
    return replace(_decode(image, max_pixels, name), sha256=hashlib.sha256(data).hexdigest())


def _decode(image: Image.Image, max_pixels: int, name: str) -> Picture:
    width, height = image.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limit = f"at most {max_pixels:,} pixels and {MAX_SIDE:,} a side are read"
        raise InputError(
            f"the picture is {width:,}×{height:,} pixels; {limit}",
            where=name,
            fix="Shrink it or raise --max-pixels.",
        )
    notes: list[str] = []
    with _no_bomb_check():
        try:
            if getattr(image, "n_frames", 1) > 1:
                image.seek(0)
                notes.append("animated: the first frame was taken")
            focal35 = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm)
            image.load()
            rgb = _to_rgb(ImageOps.exif_transpose(image))
        except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
            raise InputError(f"the picture is damaged or ends early ({_line(error)})", where=name) from None
    return Picture(rgb, _focal_px(focal35, width, height), tuple(notes))


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
    """One channel of more than 8 bits to 8: integers keep the high byte of 16, floats are taken as [0, 1]."""
    if values.dtype.kind == "f":
        scaled = np.nan_to_num(values) * (255.0 if np.nanmax(values, initial=0.0) <= 1.0 else 1.0)
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
    """EXIF's 35 mm equivalent (mm) in pixels of this picture; None where it is missing, 0 or nonsense."""
    try:
        millimetres = float(focal35)  # pyright: ignore[reportArgumentType]  # EXIF holds anything
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not 4 <= millimetres <= 3000:
        return None
    return millimetres * float(np.hypot(width, height)) / _FULL_FRAME_DIAGONAL


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _no_bomb_check() -> Iterator[None]:
    """Pillow's own, global size limit is put aside: ours is checked before decoding and can be raised."""
    with _guard, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
