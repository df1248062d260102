"""A result's page opens only the video that it was made of, never an address or a camera that a file names."""

import json
from pathlib import Path

import pytest

from dpmesh.video.tables import SCHEMA, TEXT
from dpmesh.video.unfinished import input_record
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
