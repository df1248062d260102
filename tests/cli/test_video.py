"""`dpmesh video`: results, errors, and what an interruption or a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
from PIL import Image

from dpmesh import Tracks
from dpmesh.cli.main import main
from dpmesh.inference.corrections import Correction, Corrections, Entry
from dpmesh.inference.predictor import Predictor
from dpmesh.video.recording import STATE

BOXES = [(0.1, 0.1, 0.4, 0.9)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(**_: object) -> Predictor:
        return Predictor(fakes.FakeModel(), fakes.FakeDetector(BOXES))

    monkeypatch.setattr(Predictor, "from_pretrained", load)


def frames(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def video(*words: object) -> int:
    return main(["video", *map(str, words)])


def line(capsys: pytest.CaptureFixture[str]) -> str:
    out = capsys.readouterr()
    text = (out.out + out.err).strip()
    assert "\n" not in text, text
    return text


def test_corrections_are_replayed(fake: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = frames(tmp_path / "clip", 6), tmp_path / "out"
    assert video(source, "--out", out, "--fps", 10, "--save", "npz") == 0
    tracks = Tracks.load(out / "clip")
    x, y = tracks.joints2d[3, 20].astype(float)
    step = Correction("move", 0, "L_Wrist", pixel=(x + 2, y), frame=3)
    file = tmp_path / "c.json"
    Corrections((Entry("clip", "", (step,)),)).write(file)
    again = [source, "--out", tmp_path / "again", "--fps", 10, "--save", "npz", "--corrections", file]
    assert video(*again) == 0
    result = Tracks.load(tmp_path / "again/clip")
    assert result.corrections == (step.as_json(),)
    assert np.linalg.norm(result.joints2d[3, 20] - [x + 2, y]) < 0.5
    people = json.loads((tmp_path / "again/clip/tracks.json").read_text())["people"]
    assert people[0]["corrected"] == ["move L_Wrist in frame 3"]
    capsys.readouterr()
    assert video(*again[:-2], "--resume") == 1
    assert "--corrections was 1 correction, is not set" in line(capsys)
    Corrections((Entry("other.mp4", "", (step,)),)).write(file)
    assert video(*again, "--overwrite") == 1
    assert "no corrections of clip" in line(capsys)


def test_a_result(fake: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = frames(tmp_path / "clip", 8), tmp_path / "out"
    assert video(source, "--out", out, "--fps", 10) == 0
    assert "8 frames, 1 person" in line(capsys)
    assert {path.name for path in out.iterdir()} == {"clip"}
    assert {path.name for path in (out / "clip").iterdir()} == {
        "tracks.npz", "tracks.json", "overlay.mp4", "scene.glb", "person_00.bvh", "person_00.trc",
        "person_00_amass.npz", "joints.csv", "tracks.png",
    }  # fmt: skip
    assert repr(Tracks.load(out / "clip")) == "Tracks(1 person, 8 frames, 10 fps, 64×48)"
    content = json.loads((out / "clip" / "tracks.json").read_text())
    assert content["options"]["input"]["file"] == "clip" and content["focal_source"] == "diagonal"
    # Kept, refused, replaced.
    assert video(source, "--out", out, "--fps", 10) == 1 and "holds a result already" in line(capsys)
    assert video(source, "--out", out, "--fps", 10, "--resume") == 0 and "done before, kept" in line(capsys)
    assert video(source, "--out", out, "--fps", 20, "--resume") == 1
    assert "--fps was 10, is 20" in line(capsys)
    assert video(source, "--out", out, "--fps", 10, "--resume", "--static-camera") == 1
    assert "--static-camera was off, is on" in line(capsys)
    assert video(source, "--out", out, "--overwrite", "--save", "csv", "--live") == 0
    assert {path.name for path in (out / "clip").iterdir()} == {"tracks.npz", "tracks.json", "joints.csv"}
    (out / "clip" / "mine.txt").touch()
    assert video(source, "--out", out, "--overwrite") == 1 and (out / "clip" / "mine.txt").exists()


def test_an_interruption_leaves_what_was_done_and_resume_goes_on(
    fake: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpmesh.cli.video import Progress

    source, out = frames(tmp_path / "clip", 40), tmp_path / "out"
    calls: list[int] = []

    def stop(self: object, done: int, people: int) -> None:
        calls.append(done)
        if done == 35:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "__call__", stop)
    words = (source, "--out", out, "--save", "csv")
    assert video(*words) == 130
    assert "interrupted after 35 frames; --resume goes on" in line(capsys)
    assert Tracks.load(out / "clip").frames == 35 and (out / ".clip.dpmesh-part" / STATE).is_file()
    assert video(*words) == 1 and "--resume if it was interrupted" in line(capsys)
    assert video(*words, "--every", 2, "--resume") == 1 and "--every was 1, is 2" in line(capsys)
    calls.clear()
    monkeypatch.setattr(Progress, "__call__", lambda self, done, people: calls.append(done))
    assert video(*words, "--resume") == 0 and calls == [*range(31, 41)]
    assert Tracks.load(out / "clip").frames == 40 and not (out / ".clip.dpmesh-part").exists()
    assert "interrupted" not in line(capsys)


RUN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path.insert(0, {support!r})
import fakes
from dpmesh.cli.main import main
from dpmesh.inference.predictor import Predictor
class Slow(fakes.FakeDetector):
    def __call__(self, *args, **options):
        time.sleep({wait})
        return super().__call__(*args, **options)
    def keypoints_in_boxes(self, *args, **options):
        time.sleep({wait} / 2)
        return super().keypoints_in_boxes(*args, **options)
Predictor.from_pretrained = staticmethod(lambda **_: Predictor(fakes.FakeModel(), Slow({boxes})))
sys.exit(main(sys.argv[1:]))
"""


def process(wait: float, *words: object) -> "subprocess.Popen[str]":
    support = str(Path(__file__).parents[1] / "support")
    script = RUN.format(support=support, wait=wait, boxes=BOXES)
    command = [sys.executable, "-c", script, "video", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_process_leaves_a_result_or_none(tmp_path: Path, how: signal.Signals) -> None:
    """And the resumed run has what one run has, with the same numbers."""
    source, out, once = frames(tmp_path / "clip", 90), tmp_path / "out", tmp_path / "once"
    running = process(0.05, source, "--out", out, "--save", "bvh,csv")
    state = out / ".clip.dpmesh-part" / STATE
    limit = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(running.pid, how)
    running.communicate(timeout=60)
    if how == signal.SIGKILL:
        assert running.returncode == -how and {path.name for path in out.iterdir()} == {".clip.dpmesh-part"}
    else:
        assert running.returncode == 130 and 30 <= Tracks.load(out / "clip").frames < 90
    for target, words in ((out, ["--resume"]), (once, [])):
        done = process(0, source, "--out", target, "--save", "bvh,csv", *words)
        assert done.wait(120) == 0, done.communicate()
    a, b = (Tracks.load(folder / "clip") for folder in (out, once))
    assert a.frames == b.frames == 90 and a.numbers.tolist() == b.numbers.tolist()
    np.testing.assert_allclose(a.joints3d, b.joints3d, atol=1e-4)
    assert {path.name for path in out.iterdir()} == {"clip"}


def test_a_camera_cannot_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Camera:
        """Twelve frames; each after the one before has been detected."""

        def __init__(self, number: int) -> None:
            self.count = 0

        isOpened = set = lambda self, *_: True
        get = lambda self, _: 10.0  # noqa: E731

        def read(self) -> tuple[bool, np.ndarray]:
            limit = time.monotonic() + 10
            while detected < self.count and time.monotonic() < limit:
                time.sleep(0.002)
            self.count += 1
            return self.count <= 12, np.full((48, 64, 3), 7, np.uint8)

        def release(self) -> None: ...

    class Counting(fakes.FakeDetector):
        def keypoints_in_boxes(self, *args: Any, **options: Any) -> Any:
            nonlocal detected
            detected += 1
            return super().keypoints_in_boxes(*args, **options)

    detected = 0
    monkeypatch.setattr(
        Predictor, "from_pretrained", lambda **_: Predictor(fakes.FakeModel(), Counting(BOXES))
    )
    monkeypatch.setattr("cv2.VideoCapture", Camera)
    assert video("camera:0", "--out", tmp_path, "--resume") == 1 and "cannot be resumed" in line(capsys)
    assert video("camera:0", "--out", tmp_path, "--live") == 0
    text = line(capsys)
    assert "1 person" in text and "no overlay.mp4" in text and "the camera stopped" in text
    assert len(Tracks.load(tmp_path / "camera_0")) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.mp4"], "no such file"),
        (["clip", "--start", "3", "--end", "1"], "leave no time"),
        (["clip", "clip"], "called clip"),
        (["clip", "--fps", "0"], "fps"),
    ],
)
def test_mistakes_are_one_line(
    fake: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    frames(tmp_path / "clip", 2)
    assert video(*words, "--out", "out") == 1
    assert message in line(capsys)
    assert not (tmp_path / "out" / "clip").exists()
