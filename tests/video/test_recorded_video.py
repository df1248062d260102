"""A result's page opens only the video that it was made of, never an address or a camera that a file names."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from video_tracks import two_people

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.video.files import save_tables
from dpmesh.video.tables import SCHEMA, TEXT, given_fps, read_text
from dpmesh.video.unfinished import input_record
from dpmesh.viewer.pages import write_page
from dpmesh.viewer.results import recorded_video


def result(folder: Path, source: str, recorded: object) -> Path:
    content = {"schema": SCHEMA, "source": source, "options": {"input": recorded}}
    (folder / TEXT).write_text(json.dumps(content))
    return folder


def test_the_unchanged_video_alone(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"one")
    folder = result(tmp_path, str(video), input_record(str(video)))
    assert recorded_video(folder) == str(video)
    video.write_bytes(b"another")
    assert recorded_video(folder) == ""
    video.unlink()
    assert recorded_video(folder) == ""


@pytest.mark.parametrize("source", ["camera:0", "http://127.0.0.1:9/x", "rtsp://127.0.0.1/x"])
def test_no_camera_and_no_address(tmp_path: Path, source: str) -> None:
    assert recorded_video(result(tmp_path, source, input_record(source))) == ""


def film(path: Path, frames: int, rate: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(frames):
            image = np.full((48, 64, 3), 20 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("given", [None, 5.0])
def test_a_page_plays_the_film_at_the_rate_it_was_read_with(tmp_path: Path, given: float | None) -> None:
    """Ten frames of a file of 20 frames a second: half a second, or two."""
    video = film(tmp_path / "clip.mp4", 10, 20)
    tracks, rate = two_people(BodyModel(free_body()), 10, range(0)), given or 20.0
    tracks = replace(tracks, fps=rate, time=tracks.frame / rate, image_size=(48, 64))
    options = {"input": input_record(str(video)), "fps": given}
    folder = tmp_path / "result"
    folder.mkdir()
    save_tables(tracks, folder, {"source": str(video), "options": options})
    assert given_fps(read_text(folder)) == given
    write_page(folder, tmp_path / "page.html")
    found = re.search(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", (tmp_path / "page.html").read_text())
    assert found is not None
    with av.open(io.BytesIO(base64.b64decode(found[1]))) as container:
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(10) / rate, atol=0.01)
