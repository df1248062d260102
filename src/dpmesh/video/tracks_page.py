"""Tracks as one HTML page with their animation, over the video where it is at hand."""

import io
from contextlib import closing
from fractions import Fraction

import cv2
import numpy as np

from dpmesh.page.page import PageContent, PagePerson, html_page
from dpmesh.video.decode import FrameSource, Span, import_av
from dpmesh.video.overlay import CODECS
from dpmesh.video.tracks import Tracks

_LONGEST = 640
"""Longest side of the page's video, px."""
_TICK = Fraction(1, 90000)


def tracks_page(tracks: Tracks, glb: bytes, title: str, mp4: bytes | None = None, start: float = 0.0) -> str:
    """The page. glb: the animated bodies (files.animated_glb). mp4: `page_video` of a span from `start` on, seconds."""
    people: list[PagePerson] = []
    for number in tracks.numbers:
        own = tracks.of(int(number))
        people.append(
            PagePerson(
                name=f"person_{number:02d}",
                label=f"person {number}",
                times=tracks.time[own],
                joints3d=tracks.joints3d[own],
                joint_sigma=tracks.joint_sigma[own],
                keypoints2d=tracks.keypoints2d[own],
                interpolated=tracks.interpolated[own],
            )
        )
    floor = None
    if tracks.ground is not None:
        floor = tracks.ground.floor
    content = PageContent(
        title=title,
        K=tracks.K,
        image_size=tracks.image_size,
        people=people,
        mp4=mp4,
        step=_step(tracks),
        start=start,
        floor=floor,
    )
    return html_page(content, glb)


def page_video(source: FrameSource, span: Span) -> bytes:
    """The span as a small MP4 without sound that browsers play. Raises InputError, ConfigError."""
    av = import_av()
    codec = next(name for name in CODECS if name in av.codecs_available)
    file = io.BytesIO()
    with closing(av.open(file, "w", format="mp4")) as container:
        stream = container.add_stream(codec, rate=Fraction(source.fps / span.every).limit_denominator(1001))
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TICK
        if codec == "libx264":
            stream.options = {"crf": "28", "preset": "veryfast", "g": "12"}  # seldom far from a whole frame
        else:
            stream.bit_rate = 1_000_000
        first = True
        for frame in source.frames(span):
            height, width = frame.image.shape[:2]
            zoom = min(1.0, _LONGEST / max(height, width))
            size = (2 * max(1, round(width * zoom / 2)), 2 * max(1, round(height * zoom / 2)))
            if first:
                stream.width, stream.height = size
                first = False
            small = av.VideoFrame.from_ndarray(
                cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), format="rgb24"
            )
            small.pts, small.time_base = round((frame.time - span.start) / _TICK), _TICK
            container.mux(stream.encode(small))
        container.mux(stream.encode(None))
    return file.getvalue()


def _step(tracks: Tracks) -> float:
    """Seconds between two frames that were read; with --every, several frames of the video."""
    apart = np.diff(np.unique(tracks.frame))
    return float(apart.min() if len(apart) else 1) / tracks.fps
