"""Frames of a video file, a folder of numbered images, a camera or a stream, one at a time.

Videos are decoded by PyAV (FFmpeg), cameras read by OpenCV. Times are the frames' own timestamps, so a variable frame
rate and a start other than zero are right; damage loses only the frames that cannot be decoded, and is noted.
"""

import math
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from dpmesh.errors import ConfigError, InputError
from dpmesh.video.upright import rgb_of

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_FPS = 30.0
"""Of a folder of images, which stores none."""
_CAMERA = re.compile(r"camera:(\d+)")
_STREAM = re.compile(r"(rtsp|rtmp|https?|udp|tcp|srt)://", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)(?!.*\d)")


@dataclass(frozen=True, eq=False)
class Frame:
    """index: of the source's frames, from 0. time: seconds after the source's first frame."""

    index: int
    time: float
    image: UInt8[np.ndarray, "h w 3"]
    """RGB, upright."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Which frames are read: from `start` until before `end` (seconds after the first frame), each `every`-th."""

    start: float = 0.0
    end: float = math.inf
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ConfigError(f"start={self.start:g} and end={self.end:g} leave no time", where="start, end")
        if self.every < 1:
            raise ConfigError(f"every={self.every} must be at least 1", where="every")


@runtime_checkable
class FrameSource(Protocol):
    """A source of frames. Iterating opens it, yields the frames of a span in order, and closes it."""

    name: str
    fps: float
    """Frames a second: the average, where the rate varies."""
    length: int | None
    """Frames of the whole source, as its header has it; None where it does not say."""
    live: bool
    """A camera or stream, which can be read once."""
    notes: list[str]
    """What had to be left out, complete after the iteration."""

    def frames(self, span: Span) -> Iterator[Frame]: ...


def open_frames(source: str | Path, fps: float | None = None) -> FrameSource:
    """The source's frames: a video file, a folder of numbered images, `camera:N`, or a stream's URL.

    fps: of a folder of images, and in place of a video's own times. Raises InputError, ConfigError.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise ConfigError(f"fps={fps:g} is not between 0 and 1000", where="fps")
    text = str(source)
    if match := _CAMERA.fullmatch(text):
        return CameraFrames(int(match[1]), fps)
    if _STREAM.match(text):
        return VideoFrames(text, fps, live=True)
    path = Path(source)
    if path.is_dir():
        return FolderFrames(path, fps or DEFAULT_FPS)
    if not path.exists():
        raise InputError("no such file or folder", where=text)
    return VideoFrames(text, fps)


def import_av() -> Any:
    """PyAV. Raises ConfigError where it is not installed."""
    try:
        import av
    except ImportError:
        raise ConfigError(
            "PyAV, which decodes videos, is not installed", where="video", fix="pip install 'dpmesh[video]'"
        ) from None
    return av


@dataclass(eq=False)
class VideoFrames:
    """A file, camera or stream that FFmpeg opens. live: without a length; frames are not sought."""

    url: str
    given_fps: float | None = None
    live: bool = False
    name: str = ""
    fps: float = field(init=False)
    length: int | None = field(init=False, default=None)
    notes: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or self.url
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.fps = self.given_fps or (float(rate) if rate else DEFAULT_FPS)
            if not self.live:
                self.length = stream.frames or self._counted(stream, container)

    def _counted(self, stream: Any, container: Any) -> int | None:
        if stream.duration and stream.time_base:
            return max(1, round(float(stream.duration * stream.time_base) * self.fps))
        return max(1, round(container.duration / 1e6 * self.fps)) if container.duration else None

    def _open(self) -> Any:
        av = import_av()
        try:
            container = av.open(self.url)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"not a readable video ({_line(error)})", where=self.name) from None
        if not container.streams.video:
            container.close()
            raise InputError("the file has no video", where=self.name)
        container.streams.video[0].thread_type = "AUTO"
        return container

    def frames(self, span: Span) -> Iterator[Frame]:
        """Raises InputError where not one frame can be decoded."""
        first: float | None = None
        size: tuple[int, ...] | None = None
        index = -1
        bad = _Damage()
        with closing(self._open()) as container:
            aspect = container.streams.video[0].sample_aspect_ratio
            for decoded in _decoded(container, bad):
                stamp = (index + 1) / self.fps if decoded.time is None else float(decoded.time)
                first = stamp if first is None else first
                time = (index + 1) / self.given_fps if self.given_fps else stamp - first
                if time >= span.end:
                    break
                index += 1
                bad.after = index
                if time < span.start or index % span.every:
                    continue
                image = rgb_of(decoded, aspect)
                size = image.shape if size is None else size
                if image.shape != size:
                    self.notes.append(f"stops before frame {index}, where the image size changes")
                    return
                yield Frame(index, time, image)
        if index < 0:
            raise InputError(f"no frame can be decoded{bad.reason}", where=self.name)
        missing = self.length is not None and not self.live and index + 1 < self.length - 1
        if bad.packets:
            self.notes.append(
                f"damaged after frame {bad.first}: {index + 1} frames could be decoded{bad.reason}"
            )
        elif missing and math.isinf(span.end):
            self.notes.append(f"the header has {self.length} frames, {index + 1} were decoded")


@dataclass
class _Damage:
    """Packets that could not be decoded. first: the frame before the first of them. after: the newest frame."""

    packets: int = 0
    first: int = -1
    after: int = -1
    reason: str = ""

    def count(self, error: BaseException) -> None:
        if not self.packets:
            self.first, self.reason = self.after, f" ({_line(error)})"
        self.packets += 1


def _decoded(container: Any, bad: _Damage) -> Iterator[Any]:
    """PyAV's frames, without the packets that cannot be decoded."""
    av = import_av()
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            bad.count(error)
            return
        try:
            frames = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError as error:
            bad.count(error)
            continue
        yield from frames


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


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
