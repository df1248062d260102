"""Frames of a video file, a folder of numbered images, a camera or a stream, one at a time.

Videos are decoded by PyAV (FFmpeg), cameras read by OpenCV. Times are the frames' own timestamps, so a variable frame
rate and a start other than zero are right; damage loses only the frames that cannot be decoded, and is noted.
"""

import math
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpmesh.errors import ConfigError, InputError
from dpmesh.video.frames import DEFAULT_FPS, Frame, FrameSource, Span
from dpmesh.video.stills import CameraFrames, FolderFrames
from dpmesh.video.upright import rgb_of

__all__ = ["Frame", "FrameSource", "Span", "VideoFrames", "import_av", "open_frames"]

_CAMERA = re.compile(r"camera:(\d+)")
_STREAM = re.compile(r"(rtsp|rtmp|https?|udp|tcp|srt)://", re.IGNORECASE)


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


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
