"""Reads the photographs that `benchmarks/photos/fetch.py` fetched, and those of examples/."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dpmesh.decode import LARGEST_IMAGE, its_own_error
from dpmesh.errors import InputError
from dpmesh.io import read_bytes

FILM = "walking.mp4"
Image = UInt8[np.ndarray, "h w 3"]
_FIX = "Fetch them: python -m benchmarks.photos.fetch IMAGES."


def stills(folder: Path, examples: Path) -> Iterator[tuple[str, Image]]:
    """Name and RGB of each photograph. Raises InputError."""
    fetched = sorted((folder / "stills").glob("*.png"))
    if not fetched:
        raise InputError("no images", where=str(folder / "stills"), fix=_FIX)
    for path in (*sorted(examples.glob("*.jpg")), *fetched):
        data = np.frombuffer(read_bytes(path, LARGEST_IMAGE), np.uint8)
        with its_own_error(str(path)):
            decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        yield path.stem, _rgb(decoded, path)


def film(folder: Path, every: int = 1) -> Iterator[tuple[str, Image]]:
    """walking_000, walking_001, ...: every n-th frame of the walking film, RGB. Raises InputError."""
    path, at = folder / FILM, 0
    reader = cv2.VideoCapture(str(path))
    if not reader.isOpened():
        raise InputError("cannot be read", where=str(path), fix=_FIX)
    while True:
        there, frame = reader.read()
        if not there:
            return
        if at % every == 0:
            yield f"walking_{at:03d}", _rgb(frame, path)
        at += 1


def _rgb(image: np.ndarray | None, path: Path) -> Image:
    if image is None:
        raise InputError("cannot be read as an image", where=str(path), fix=_FIX)
    return np.ascontiguousarray(image[..., ::-1])
