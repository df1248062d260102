"""Frames of videos that FFmpeg wrote: order, times, rotation, damage; and of folders."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dpmesh.errors import ConfigError, InputError
from dpmesh.video.decode import Span, open_frames


def write_video(path: Path, times: list[int], rate: int = 30, size: tuple[int, int] = (48, 64)) -> Path:
    """A video whose frame i is grey of level 20 + 8 i but for a white upper left corner, shown at times[i] / 1000 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
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


def test_damage_in_the_middle_loses_only_itself(tmp_path: Path) -> None:
    """Frames of MJPEG stand alone; one whose start is overwritten cannot be decoded."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for i in range(12):
            image = np.full((48, 64, 3), 20 + 8 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    starts = [i for i in range(len(content) - 1) if content[i : i + 3] == b"\xff\xd8\xff"]
    gone = slice(starts[5], starts[6] - 8)  # up to the next chunk's header
    content[gone] = bytes(gone.stop - gone.start)
    path.write_bytes(content)
    source = open_frames(path)
    assert [round((float(f.image.mean()) - 20) / 8) for f in source.frames(Span())] == [
        0,
        1,
        2,
        3,
        4,
        *range(6, 12),
    ]
    assert source.notes[0].startswith("damaged after frame 4: 11 frames could be decoded")


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into the track header (tkhd, version 0) of an MP4 file."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 36  # after version, flags, and 36 bytes of times and numbers
    assert struct.unpack(">9i", content[at : at + 36])[0::4] == (65536, 65536, 2**30)
    one = 65536
    content[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 2**30)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "degrees", "corner"),
    [
        ((0, 1, -1, 0), -90, "upper right"),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), 180, "lower right"),
        ((0, -1, 1, 0), 90, "lower left"),
        ((-1, 0, 0, 1), None, "upper right"),  # mirrored
    ],
)
def test_the_display_matrix_is_obeyed(
    tmp_path: Path, matrix: tuple[int, int, int, int], degrees: int | None, corner: str
) -> None:
    """The corners are those of FFmpeg 7's own output (ffmpeg -i a.mp4 -frames:v 1 a.png)."""
    path = write_video(tmp_path / "a.mp4", [0, 33, 66])
    set_matrix(path, *matrix)
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
        assert degrees is None or (first.rotation - degrees) % 360 == 0
    image = next(iter(open_frames(path).frames(Span()))).image
    assert image.shape[:2] == ((64, 48) if degrees in (90, -90) else (48, 64))
    rows, columns = slice(0, 10) if "upper" in corner else slice(-10, None), slice(-10, None)
    part = image[rows, slice(0, 10) if "left" in corner else columns]
    assert part.mean() > 230 and image.mean() < 90


def test_pixels_become_square(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
        )
        container.mux(stream.encode())
    assert next(iter(open_frames(path).frames(Span()))).image.shape == (48, 96, 3)


@pytest.mark.parametrize("pq", [False, True])
def test_ten_bits_and_hdr(tmp_path: Path, pq: bool) -> None:
    """Grey of 58 % in PQ is diffuse white (203 cd/m², ITU-R BT.2408), which is bright, not grey."""
    path = tmp_path / "a.mkv"
    levels_10 = [64 + round(0.58 * 876), 64]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
        if pq:
            stream.codec_context.color_trc = 16
        for level in levels_10:
            frame = av.VideoFrame(64, 48, "yuv420p10le")
            for plane, value in zip(frame.planes, (level, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
            if pq:
                frame.color_trc = 16
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    bright, dark = (f.image for f in open_frames(path).frames(Span()))
    assert bright.dtype == np.uint8 and dark.max() <= 2
    if pq:
        assert 180 < bright.mean() < 200
    else:
        assert abs(bright.mean() - 0.58 * 255) < 3


def test_a_gif(tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (20 + 80 * i, 0, 0)) for i in range(3)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100, 300, 100])
    frames = list(open_frames(tmp_path / "a.gif").frames(Span()))
    assert [round((int(frame.image[0, 0, 0]) - 20) / 80) for frame in frames] == [0, 1, 2]
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.4], atol=0.011)


def test_fps_replaces_the_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [500, 533, 600, 700])
    source = open_frames(path, fps=10.0)
    assert [frame.time for frame in source.frames(Span())] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert source.fps == 10


def test_a_change_of_size_ends_the_video(tmp_path: Path) -> None:
    """Two MPEG-TS files, one after the other, are a stream that changes."""
    parts = [
        write_video(tmp_path / f"{i}.ts", [0, 33, 66], size=size)
        for i, size in enumerate([(48, 64), (32, 64)])
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = open_frames(path)
    frames = list(source.frames(Span()))
    assert len(frames) >= 2 and {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert any("the image size changes" in note for note in source.notes)


class FakeCamera:
    """OpenCV's VideoCapture of a camera with two frames."""

    def __init__(self, number: int) -> None:
        self.number, self.left = number, 2

    def isOpened(self) -> bool:
        return self.number == 0

    def set(self, *_: object) -> bool:
        return True

    def get(self, _: int) -> float:
        return 25.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((4, 6, 3), (0, 0, 9), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.left = 0


def test_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.VideoCapture", FakeCamera)
    source = open_frames("camera:0")
    frames = list(source.frames(Span()))
    assert source.live and source.fps == 25 and [frame.index for frame in frames] == [0, 1]
    assert frames[0].image[0, 0].tolist() == [9, 0, 0] and frames[1].time >= frames[0].time
    assert source.notes == ["the camera stopped after frame 1"]
    with pytest.raises(InputError, match="no such camera"):
        open_frames("camera:7")


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
