"""Frames of a video file, a folder of numbered images, a camera or a stream, one at a time.

Videos are decoded by PyAV (FFmpeg). Rotation metadata is obeyed; times are the frames' own timestamps, so a variable
frame rate and a start other than zero are right; a damaged end loses only what cannot be decoded.
"""

import math
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from dpmesh.errors import ConfigError, InputError

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
        return VideoFrames(f"/dev/video{match[1]}", fps, live=True, name=text)
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
        device = {"format": "v4l2"} if self.url.startswith("/dev/video") else {}
        try:
            container = av.open(self.url, **device)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"not a readable video ({_line(error)})", where=self.name) from None
        if not container.streams.video:
            container.close()
            raise InputError("the file has no video", where=self.name)
        container.streams.video[0].thread_type = "AUTO"
        return container

    def frames(self, span: Span) -> Iterator[Frame]:
        """Raises InputError where not one frame can be decoded."""
        av = import_av()
        first: float | None = None
        index = -1
        with closing(self._open()) as container:
            decoded = container.decode(container.streams.video[0])
            while True:
                try:
                    frame = next(decoded)
                except StopIteration:
                    break
                except av.FFmpegError as error:
                    if index < 0:
                        raise InputError(
                            f"no frame can be decoded ({_line(error)})", where=self.name
                        ) from None
                    self.notes.append(
                        f"damaged after frame {index}: the rest could not be decoded ({_line(error)})"
                    )
                    break
                index += 1
                stamp = float(index / self.fps if frame.time is None else frame.time)
                first = stamp if first is None else first
                time = index / self.given_fps if self.given_fps else stamp - first
                if time >= span.end:
                    break
                if time >= span.start and index % span.every == 0:
                    yield Frame(index, time, _upright(frame))
        if index < 0:
            raise InputError("no frame can be decoded", where=self.name)
        if (
            self.length
            and not self.live
            and index + 1 < self.length - 1
            and math.isinf(span.end)
            and not self.notes
        ):
            self.notes.append(f"the header has {self.length} frames, {index + 1} were decoded")


def _upright(frame: Any) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, turned by the display matrix: FFmpeg's angle is counter-clockwise."""
    image = frame.to_ndarray(format="rgb24")
    quarter = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter))


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
