"""Frames of videos that FFmpeg wrote: order, times, rotation, damage; and of folders."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dpmesh.errors import ConfigError, InputError
from dpmesh.video.decode import Span, open_frames


def write_video(
    path: Path, times: list[int], rate: int = 30, size: tuple[int, int] = (48, 64), rotation: int = 0
) -> Path:
    """A video whose frame i is grey of level 20 + 8 i but for a white upper left corner, shown at times[i] / 1000 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation) if hasattr(stream, "set_display_rotation") else None
        for i, time in enumerate(times):
            image = np.full((*size, 3), 20 + 8 * i, np.uint8)
            image[: size[0] // 3, : size[1] // 3] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def levels(path: Path, **span: float) -> list[int]:
    return [
        round((float(frame.image[-8:, -8:].mean()) - 20) / 8)
        for frame in open_frames(path).frames(Span(**span))
    ]  # pyright: ignore


def test_frames_come_in_order_with_their_own_times(tmp_path: Path) -> None:
    times = [500, 533, 600, 700, 900, 1000]  # a variable rate, and a start that is not zero
    path = write_video(tmp_path / "a.mp4", times)
    frames = list(open_frames(path).frames(Span()))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose([frame.time for frame in frames], (np.array(times) - 500) / 1000, atol=0.002)
    assert levels(path) == [0, 1, 2, 3, 4, 5]


def test_a_span(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [100 * i for i in range(10)], rate=10)
    assert levels(path, start=0.25, end=0.65) == [3, 4, 5, 6]
    assert levels(path, every=4) == [0, 4, 8]
    with pytest.raises(ConfigError, match="leave no time"):
        Span(start=2.0, end=1.0)


def test_a_damaged_end_loses_only_itself(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", [33 * i for i in range(24)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 5])
    source = open_frames(path)
    frames = list(source.frames(Span()))
    assert 8 < len(frames) < 24
    assert source.notes and "decoded" in source.notes[0]


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100, b"<!DOCTYPE html><html>"])
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable video"):
        open_frames(path)


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        Image.new("RGB", (8, 6), (i, i, i)).save(tmp_path / f"frame_{i}.png")
    (tmp_path / "notes.txt").write_text("x")
    source = open_frames(tmp_path, fps=10.0)
    frames = list(source.frames(Span()))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10] and source.length == 3
    assert [frame.time for frame in frames] == [0, 0.1, 0.2]
    Image.new("RGB", (9, 6)).save(tmp_path / "frame_11.png")
    with pytest.raises(InputError, match=r"9×6 px, the frames before have 8×6"):
        list(open_frames(tmp_path).frames(Span()))
    Image.new("RGB", (8, 6)).save(tmp_path / "cover.png")
    with pytest.raises(InputError, match=r"cover\.png has no frame number"):
        open_frames(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_frames(tmp_path / "missing.mp4")
    with pytest.raises(InputError, match="no images"):
        open_frames(tmp_path)
    with pytest.raises(ConfigError, match="fps"):
        open_frames(tmp_path, fps=0.0)
