"""Videos: accepted, predicted in a process of their own, fetched, removed, whatever becomes of that process."""

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from service import Reply, ask, fake_predictor, image_form, running, until

from dpmesh.inference.options import ModelOptions
from dpmesh.serve.limits import Limits
from dpmesh.serve.service import Service
from dpmesh.serve.temporary import TemporaryRoot
from dpmesh.serve.video_job import command

WORKS = """
import json, pathlib, sys, tempfile
say = lambda **m: print(json.dumps(m), flush=True)
say(frames=1, total=2)
out, options = pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])
tempfile.NamedTemporaryFile(delete=False).write(b"left behind")
content = pathlib.Path(sys.argv[1]).read_bytes()[12:]
if content == b"crash": import os; os.kill(os.getpid(), 11)
if content == b"error": say(error="video: it is no good."); sys.exit(1)
if content == b"hang": import time; say(frames=7); time.sleep(60)
if content == b"noise": print("no JSON", flush=True); print("[1]", flush=True)
(out / "tracks.json").write_text(json.dumps(options))
say(frames=2, done=True)
"""


HEAD = b"\0\0\0\x18ftypmp42"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files: what is left there is counted."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def light(source: Path, out: Path, options: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", WORKS, str(source), str(out), json.dumps(options)]


@contextmanager
def serving(**limits: float) -> Iterator[tuple[int, Service]]:
    service = Service(fake_predictor(), Limits(**limits), videos=light)  # type: ignore[arg-type]
    with running(service) as (port, _):
        yield port, service


def post(port: int, content: bytes = b"fine", **fields: str) -> Reply:
    """content: what follows a video's first bytes; empty for an empty file."""
    content = HEAD + content if content else b""
    return send(port, content, **fields)


def send(port: int, content: bytes, **fields: str) -> Reply:
    return ask(port, "POST", "/v1/video", [("video", ("my clip.mp4", content)), *fields.items()])


def ended(port: int, job: Reply) -> dict[str, Any]:
    path = job.headers["location"]
    until(lambda: ask(port, "GET", path).json["state"] not in ("queued", "running"))
    return ask(port, "GET", path).json


def test_a_video_and_its_results(temporary: Path) -> None:
    with serving() as (port, service):
        job = post(port, every="2", max_people="3", static_camera="true")
        assert (job.status, job.json["state"]) == (202, "queued")
        state = ended(port, job)
        assert (state["state"], state["frames"], state["total"]) == ("done", 2, 2)
        (link,) = state["results"].values()
        result = ask(port, "GET", link)
        expected = {"start": 0.0, "every": 2, "static_camera": True, "max_people": 3, "name": "my clip.mp4"}
        assert result.json == expected
        assert "attachment" in result.headers["content-disposition"]
        assert not list(temporary.rglob("video"))  # the client's file is not kept
        assert ask(port, "GET", f"{job.headers['location']}/video").status == 404
        assert ask(port, "DELETE", job.headers["location"]).status == 204
        assert ask(port, "GET", job.headers["location"]).status == 404
        assert ask(port, "GET", link).status == 404
        assert not list(temporary.rglob("tracks.json"))
        assert service.jobs.unfinished == 0
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"crash", "ended early (status -11)"),
        (b"error", "video: it is no good."),
        (b"hang", "not done within 1.5 seconds"),
    ],
)
def test_what_fails_leaves_nothing(content: bytes, sentence: str, temporary: Path) -> None:
    with serving(video_timeout=1.5 if content == b"hang" else 60.0) as (port, _):
        state = ended(port, post(port, content))
        assert state["state"] == "failed"
        assert sentence in state["error"]
        assert "results" not in state
        until(
            lambda: not [path for path in temporary.rglob("*") if path.is_file() and path.suffix != ".lock"]
        )
        if content != b"hang":
            assert ended(port, post(port))["state"] == "done"
    assert not list(temporary.iterdir())


def test_lines_that_are_no_messages(temporary: Path) -> None:
    with serving() as (port, _):
        assert ended(port, post(port, b"noise"))["state"] == "done"


def test_the_queue_is_bounded_and_a_job_can_be_ended(temporary: Path) -> None:
    with serving(video_queue=1) as (port, service):
        running_one = post(port, b"hang")
        until(lambda: ask(port, "GET", running_one.headers["location"]).json["frames"] == 7)
        waiting = post(port)
        full = post(port)
        assert (full.status, full.headers["retry-after"]) == (429, "30")
        assert ask(port, "DELETE", running_one.headers["location"]).status == 204
        assert ended(port, waiting)["state"] == "done"
        assert service.jobs.unfinished == 0
        assert len(list(temporary.rglob("dpmesh-serve-*"))) == 2  # the root, and the job that is done


def test_results_are_removed_after_a_while(temporary: Path) -> None:
    with serving(keep_results=0.3) as (port, _):
        job = post(port)
        until(lambda: ask(port, "GET", job.headers["location"]).status == 404)
        assert not list(temporary.rglob("tracks.json"))


def test_a_shutdown_ends_jobs(temporary: Path) -> None:
    with serving(grace=0.3) as (port, service):
        job = post(port, b"hang")
        until(lambda: ask(port, "GET", job.headers["location"]).json["state"] == "running")
        assert not service.idle
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "fields",
    [
        {"every": "0"},
        {"end": "-1"},
        {"fov": "190"},
        {"focal": "9", "fov": "40"},
        {"max_people": "99"},
        {"x": "1"},
    ],
)
def test_wrong_fields(fields: dict[str, str], temporary: Path) -> None:
    with serving() as (port, _):
        reply = post(port, **fields)
        assert reply.status == 422
        assert post(port, b"").status == 422
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
def test_an_image_is_not_taken_for_a_video(kind: str, temporary: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, kind)
    with serving() as (port, service):
        reply = send(port, file.getvalue())
        assert reply.status == 422 and "images go to /v1/predict" in reply.json["error"]
        assert service.jobs.unfinished == 0
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\0\x18ftypheic\0\0\0\0mif1",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile a.mp4\n",
        b"text",
    ],
)
def test_what_is_no_video(content: bytes) -> None:
    with serving() as (port, _):
        reply = send(port, content)
        assert reply.status == 422 and "no MP4, MOV, WebM, AVI or GIF" in reply.json["error"]


def test_a_video_is_not_taken_for_an_image(tmp_path: Path) -> None:
    with serving() as (port, _):
        for content in (
            clip(tmp_path / "a.mp4", 2),
            b"\x1aE\xdf\xa3\x9fB\x86\x81\1",
            b"RIFF\0\0\0\0AVI LIST",
        ):
            reply = ask(port, "POST", "/v1/predict", image_form(content))
            assert (reply.status, reply.json["error"]) == (422, "image: is a video; videos go to /v1/video.")


def test_a_still_gif_is_both() -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "GIF")
    with serving() as (port, _):
        assert send(port, file.getvalue()).status == 202
        assert ask(port, "POST", "/v1/predict", image_form(file.getvalue())).status == 200


def test_a_service_without_videos() -> None:
    with running(Service(fake_predictor())) as (port, _):
        assert post(port).status == 501


def test_what_a_killed_service_left_is_removed(temporary: Path) -> None:
    living = TemporaryRoot()
    kept = living.folder()
    code = (
        "import sys, time, tempfile; from dpmesh.serve.temporary import TemporaryRoot\n"
        "tempfile.tempdir = sys.argv[1]; (TemporaryRoot().folder() / 'video').write_text('x')\n"
        "print('made', flush=True); time.sleep(60)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(temporary)], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"made\n"
    assert len(list(temporary.rglob("video"))) == 1
    killed.kill()
    killed.wait()
    (temporary / "dpmesh-serve-file").write_text("not a folder")
    TemporaryRoot()
    assert not list(temporary.rglob("video"))
    assert kept.is_dir()
    living.close()
    assert [path.name for path in temporary.iterdir()] == ["dpmesh-serve-file"]


def clip(path: Path, frames: int) -> bytes:
    """A video of an example: its camera pans."""
    image = cv2.imread("examples/balance.jpg")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 320))
    for i in range(frames):
        writer.write(np.ascontiguousarray(cv2.resize(image, (340, 320))[:, i : i + 320]))
    writer.release()
    return path.read_bytes()


def real(source: Path, out: Path, options: dict[str, Any]) -> list[str]:
    return command(source, out, options, ModelOptions(), 1.0)


@pytest.mark.slow
def test_a_real_video(tmp_path: Path, temporary: Path) -> None:
    with running(Service(fake_predictor(), videos=real)) as (port, _):
        good = send(port, clip(tmp_path / "a.mp4", 6))
        long = send(port, clip(tmp_path / "b.mp4", 20))
        wait = {"seconds": 120.0}
        for job in (good, long):
            path = job.headers["location"]
            until(lambda path=path: ask(port, "GET", path).json["state"] in ("done", "failed"), **wait)
        state = ask(port, "GET", good.headers["location"]).json
        assert state["state"] == "done", state
        assert {"tracks.npz", "overlay.mp4", "scene.glb", "joints.csv"} <= set(state["results"])
        assert ask(port, "GET", state["results"]["scene.glb"]).body[:4] == b"glTF"
        tracks = ask(port, "GET", state["results"]["tracks.json"]).json
        assert (tracks["source"], tracks["frames"], len(tracks["people"])) == ("my clip.mp4", 6, 1)
        assert "at most 1 seconds" in ask(port, "GET", long.headers["location"]).json["error"]
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_the_process_ends_with_its_service(tmp_path: Path) -> None:
    words = real(tmp_path / "nothing.mp4", tmp_path, {"name": "x"})
    (tmp_path / "nothing.mp4").write_bytes(clip(tmp_path / "c.mp4", 9))
    pipe = subprocess.PIPE
    child = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdin and child.stdout and child.stderr
    time.sleep(0.5)
    assert child.poll() is None
    child.stdin.close()  # as when the service is killed
    assert child.wait(20) == 1
    assert (child.stdout.read(), child.stderr.read()) == (b"", b"")
