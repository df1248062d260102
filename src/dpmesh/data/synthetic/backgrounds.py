"""Photographs without people as backgrounds, in the place of drawn surroundings."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from dpmesh.data.images import decode_rgb
from dpmesh.errors import InputError
from dpmesh.io import read_bytes

SUFFIXES = (".jpg", ".jpeg", ".png")
_SIDE = 640
"""Pixels of a photograph's shorter side, at most: more does not show in a crop."""
_LARGEST = 100 * 2**20
_ZOOM = 2.5


class Backgrounds:
    """The .jpg and .png files of one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError without such files."""
        names = folder.iterdir() if folder.is_dir() else ()
        self._files = sorted(path for path in names if path.suffix.lower() in SUFFIXES)
        if not self._files:
            raise InputError(
                "there is no .jpg or .png here",
                where=str(folder),
                fix="Name a folder of photos without people.",
            )

    def draw(self, rng: np.random.Generator, size: int) -> Float32[NDArray[np.float32], "s s 3"]:
        """A random square of a random photograph, half of them mirrored. Raises InputError, naming a damaged one."""
        photo = _photo(self._files[int(rng.random() * len(self._files))])
        side = int(min(photo.shape[:2]) / rng.uniform(1, _ZOOM))
        y, x = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
        square = photo[y : y + side, x : x + side]
        if rng.random() < 0.5:
            square = square[:, ::-1]
        scaled = cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=cv2.INTER_AREA)
        return np.asarray(scaled, np.float32) / np.float32(255) * np.float32(rng.uniform(0.7, 1.15))


@lru_cache(maxsize=64)
def _photo(path: Path) -> UInt8[NDArray[np.uint8], "h w 3"]:
    image = decode_rgb(read_bytes(path, _LARGEST), str(path))
    scale = _SIDE / min(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8)
