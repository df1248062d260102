"""Frames of a folder of numbered images, and of a camera of this machine."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from dpmesh.errors import InputError
from dpmesh.video.frames import DEFAULT_FPS, Frame, Span

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_NUMBER = re.compile(r"(\d+)(?!.*\d)")


@dataclass(eq=False)
class CameraFrames:
    """A camera of this machine, by its number. Times are those of reading."""

    number: int
    given_fps: float | None = None
    name: str = field(init=False)
    fps: float = field(init=False)
    length: int | None = field(init=False, default=None)
    live: bool = field(init=False, default=True)
    notes: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"camera:{self.number}"
        self._capture = cv2.VideoCapture(self.number)
        if not self._capture.isOpened():
            raise InputError("no such camera, or another program uses it", where=self.name)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = self.given_fps or (rate if 1 <= rate <= 1000 else DEFAULT_FPS)

    def frames(self, span: Span) -> Iterator[Frame]:
        """Raises InputError where the camera gives no frame."""
        index, began = -1, time.monotonic()
        try:
            while True:
                good, image = self._capture.read()
                passed = time.monotonic() - began if index >= 0 else 0.0
                if not good and index < 0:
                    raise InputError("the camera gives no image", where=self.name)
                if not good:
                    self.notes.append(f"the camera stopped after frame {index}")
                    return
                if index < 0:
                    began = time.monotonic()
                index += 1
                if passed >= span.end:
                    return
                if passed >= span.start and index % span.every == 0:
                    yield Frame(index, passed, np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))
        finally:
            self._capture.release()


@dataclass(eq=False)
class FolderFrames:
    """The images of a folder in the order of the last number in their names; other files are left out."""

    folder: Path
    fps: float = DEFAULT_FPS
    name: str = field(init=False)
    length: int | None = field(init=False)
    live: bool = field(init=False, default=False)
    notes: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.name = str(self.folder)
        files = [
            p
            for p in self.folder.iterdir()
            if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
        ]
        unnumbered = [p.name for p in files if not _NUMBER.search(p.stem)]
        if unnumbered:
            raise InputError(
                f"{unnumbered[0]} has no frame number in its name",
                where=self.name,
                fix="Name the frames 0001.png, 0002.png, ..., or use dpmesh predict for single images.",
            )
        if not files:
            raise InputError("no images here", where=self.name)
        self.files = sorted(files, key=lambda p: (int(_number(p)), p.name))
        self.length = len(self.files)

    def frames(self, span: Span) -> Iterator[Frame]:
        """Raises InputError for a frame that cannot be read or has another size than the first."""
        from dpmesh.inference.images import read_image

        size: tuple[int, ...] | None = None
        for index, path in enumerate(self.files):
            time = index / self.fps
            if time >= span.end:
                return
            if time < span.start or index % span.every:
                continue
            image = read_image(path).rgb
            size = image.shape if size is None else size
            if image.shape != size:
                raise InputError(
                    f"{image.shape[1]}×{image.shape[0]} px, the frames before have {size[1]}×{size[0]}",
                    where=str(path),
                )
            yield Frame(index, time, image)


def _number(path: Path) -> str:
    match = _NUMBER.search(path.stem)
    return match[1] if match else "0"
