"""Videos predicted frame by frame: order, batches, tracks, threads, going on after an interruption."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from dpmesh.errors import InputError
from dpmesh.inference.detections import Detection
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.video.ahead import ahead, batches
from dpmesh.video.frames import Frame, Span
from dpmesh.video.recording import ROWS, STATE, Recording
from dpmesh.video.video import Video

BOXES = [(0.1, 0.1, 0.4, 0.9), (0.6, 0.1, 0.9, 0.9)]


def predictor() -> Predictor:
    return Predictor(fakes.FakeModel(), fakes.FakeDetector(BOXES))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """36 frames of noise."""
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for i in range(36):
        image = rng.integers(0, 256, (48, 64, 3), np.uint8)
        image[0, 0] = i
        Image.fromarray(image).save(frames / f"{i:03d}.png")
    return frames


class Leaving(fakes.FakeDetector):
    """Of `folder`: the person at the left is there in the first twelve frames only."""

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]:
        people = super().keypoints_in_boxes(image, boxes)
        return tuple(one for one in people if image[0, 0, 0] < 12 or one.box[0] > 30)


def test_items_come_in_order_and_errors_where_they_happen() -> None:
    def items() -> Iterator[int]:
        yield from range(50)
        raise InputError("the end is damaged", where="here")

    got: list[int] = []
    with pytest.raises(InputError, match="the end is damaged"):
        for item in ahead(items(), 3):
            got.append(item)
    assert got == [*range(50)]


def test_a_closed_iterator_ends_its_thread_and_the_source() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    before = threading.active_count()
    stream = ahead(items(), 2)
    with closing(stream):
        assert [next(stream), next(stream)] == [0, 1]
    assert closed.wait(2) and threading.active_count() == before


def test_the_newest_items_are_kept_where_old_ones_would_wait() -> None:
    def items() -> Iterator[int]:
        for i in range(40):
            yield i
            time.sleep(0.002)

    got: list[int] = []
    for item in ahead(items(), 1, latest=True):
        got.append(item)
        time.sleep(0.02)
    assert got == sorted(got) and got[-1] == 39 and len(got) < 20


def test_batches() -> None:
    assert [*batches(iter(range(7)), lambda waiting: len(waiting) == 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_frames_share_batches_and_people_keep_their_tracks(folder: Path) -> None:
    fake = predictor()
    scenes = list(Video(folder, fake, end=0.5))
    assert len(scenes) == 15
    numbers = [[person.track for person in scene] for scene in scenes]
    assert numbers == [[0, 1]] * 15 or numbers[3:] == [[0, 1]] * 12
    assert (
        isinstance(fake.model, fakes.FakeModel) and max(fake.model.calls) == 8 and sum(fake.model.calls) == 30
    )
    assert sum(scene.fallbacks.get("carried_boxes", 0) for scene in scenes) in (
        9,
        10,
        11,
    )  # of 15; full every sixth
    alone = fake(scenes[4].image)
    np.testing.assert_allclose(scenes[4][0].transl, alone[0].transl, atol=1e-5)


class Timed:
    """A source that counts the frames it was asked for."""

    name, fps, length, notes = "timed", 30.0, 20, list[str]()

    def __init__(self, live: bool = False) -> None:
        self.live, self.read = live, 0

    def frames(self, span: Span) -> Iterator[Frame]:
        image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        for i in range(20):
            self.read += 1
            yield Frame(i, i / 30, image)


def test_live_waits_for_no_later_frame(folder: Path) -> None:
    """A frame comes out before the third one after it is read; without live a batch is filled first."""
    behind: dict[bool, int] = {}
    for live in (True, False):
        video = Video(folder, predictor(), live=live)
        source = video.source = Timed()
        late: list[int] = []
        for i, _ in enumerate(video):
            late.append(source.read - 1 - i)
            time.sleep(0.01)
        assert i == 19
        behind[live] = max(late[:-8])
    assert behind[True] <= 3 < behind[False]


def test_a_slow_program_gets_a_cameras_newest_frames(folder: Path) -> None:
    """Frames that come while the one before is predicted are dropped, and counted in the index."""
    video = Video(folder, predictor(), live=True)
    video.source = Timed(live=True)
    seen = 0
    for _ in video:
        seen += 1
        time.sleep(0.05)
    assert seen < 12


def same(a: np.ndarray, b: np.ndarray) -> None:
    for name in a.dtype.names or ():
        np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=name)


def test_a_recording_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    """An interruption in frame 33 loses what came after the checkpoint at 30; the rest is as in one run."""
    whole, part = (tmp_path / name for name in ("whole", "part"))
    whole.mkdir()
    part.mkdir()
    with closing(Recording(whole)) as recording:
        assert Video(folder, Predictor(fakes.FakeModel(), Leaving(BOXES))).record(recording) == []
        wanted = recording.read()
    assert len(wanted) == 48 and wanted["track"][-1] == 1

    def stop(frames: int, people: int) -> None:
        if frames == 33:
            raise KeyboardInterrupt

    with closing(Recording(part)) as recording:
        assert Video(folder, Predictor(fakes.FakeModel(), Leaving(BOXES))).record(recording, stop) == [
            "interrupted after 33 frames"
        ]
    with (part / ROWS).open("ab") as file:
        file.write(b"half a row")
    with closing(Recording(part, resume=True)) as recording:
        assert recording.frames == 30 and recording.last_frame == 29
        fake = Predictor(fakes.FakeModel(), Leaving(BOXES))
        assert Video(folder, fake).record(recording) == []
        same(recording.read(), wanted)
        assert (
            recording.frames == 36 and isinstance(fake.model, fakes.FakeModel) and sum(fake.model.calls) == 6
        )


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "dpmesh.recording/1"}', '{"schema": "other"}'])
def test_a_damaged_recording_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE).write_text(content)
    with pytest.raises(InputError):
        Recording(tmp_path, resume=True)


def test_fewer_rows_than_the_state_says(tmp_path: Path) -> None:
    with closing(Recording(tmp_path)) as recording:
        recording.count = 5
        recording.checkpoint({})
    with pytest.raises(InputError, match="shorter than it says"):
        Recording(tmp_path, resume=True)


def test_live_smooths_what_trembles(folder: Path) -> None:
    """The same images with trembling boxes: the pelvis of the filtered people moves less from frame to frame."""

    class Trembling(fakes.FakeDetector):
        calls = 0

        def keypoints_in_boxes(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None):
            self.calls += 1
            shift = np.float32(1.5 * (-1) ** self.calls)
            return tuple(
                replace(
                    one,
                    box=one.box + shift,
                    keypoints=one.keypoints + np.array([shift, shift, 0], np.float32),
                )
                for one in super().keypoints_in_boxes(image, boxes)
            )

    def steps(scenes: list[Scene]) -> float:
        pelvis = np.array([scene[0].joints3d[0] for scene in scenes[5:]])
        return float(np.linalg.norm(np.diff(pelvis, axis=0), axis=1).mean())

    moved = {}
    for live in (False, True):
        detector = Trembling(BOXES[:1])
        moved[live] = steps(list(Video(folder, Predictor(fakes.FakeModel(), detector), live=live, end=1.0)))
    assert moved[False] > 0 and moved[True] < 0.5 * moved[False]


def test_a_loop_that_is_left_ends_its_threads(folder: Path) -> None:
    before = threading.active_count()
    for _ in Video(folder, predictor()):
        break
    limit = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < limit:
        time.sleep(0.01)
    assert threading.active_count() == before
