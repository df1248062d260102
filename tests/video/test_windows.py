"""Tracks solved in windows, and the memory that a long video takes."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from video_tracks import K, two_people

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.inference.scene import Person, Scene
from dpmesh.video import windows
from dpmesh.video.frames import Frame
from dpmesh.video.ground import NO_FLOOR
from dpmesh.video.recording import Recording
from dpmesh.video.solve import pixels_of, solve_tracks, staying, without_strays
from dpmesh.video.tracks import ROW_SHAPES, Tracks
from dpmesh.video.windows import raw_tracks, solved_tracks


def recorded(tracks: Tracks, folder: Path) -> Recording:
    """A recording of these rows, frame by frame."""
    recording = Recording(folder)
    image = np.zeros((4, 4, 3), np.uint8)
    for frame in range(tracks.frames):
        rows = tracks.in_frame(frame)
        people = tuple(
            Person(
                vertices=np.zeros((1, 3), np.float32),
                betas=tracks.betas_of(rows[i : i + 1])[0],
                **{
                    name: float(tracks.score[row]) if name == "score" else getattr(tracks, name)[row]
                    for name in ROW_SHAPES
                    if name not in ("frame", "time", "track", "interpolated", "contacts")
                },
            )
            for i, row in enumerate(rows)
        )
        scene = Scene(K, tracks.image_size, (), np.zeros((1, 3), np.int32), people, fallbacks={"turned": 1})
        recording.add(Frame(frame, frame / tracks.fps, image), scene, tracks.track[rows].tolist())
    return recording


def test_windows_give_what_one_solution_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of two seconds, of eight seconds with a gap across an edge between two windows."""
    body = BodyModel(free_body())
    tracks = two_people(body, 200, gap=range(92, 110))
    shaken = np.random.default_rng(0).normal(scale=0.02, size=(len(tracks.frame), 3)).astype(np.float32)
    tracks = replace(tracks, transl=tracks.transl + shaken)
    monkeypatch.setattr(windows, "WINDOW", 2.0)
    with closing(recorded(tracks, tmp_path)) as recording:
        whole = solve_tracks(raw_tracks(recording, tracks.fps), body)
        parts = solved_tracks(recording, tracks.fps, body)
    np.testing.assert_array_equal(parts.frame, whole.frame)
    np.testing.assert_array_equal(parts.track, whole.track)
    np.testing.assert_array_equal(parts.interpolated, whole.interpolated)
    assert parts.interpolated.sum() == 18 and parts.fallbacks == {"turned": 200}
    assert np.abs(parts.joints3d - whole.joints3d).max() < 1e-4
    assert np.abs(parts.joints3d[:, 0] - tracks.joints3d[:1, 0]).max() > 0.1  # they move


def test_a_video_without_people(tmp_path: Path) -> None:
    body = BodyModel(free_body())
    tracks = two_people(body, 2, gap=range(0))
    with closing(recorded(tracks.with_rows(tracks.frame < 0), tmp_path)) as recording:
        assert len(solved_tracks(recording, 25.0, body)) == 0


GROWTH = """
import json, resource, sys, tempfile
from contextlib import closing
from pathlib import Path
import fakes, numpy as np
from dpmesh.body.layer import BodyModel
from dpmesh.video.exports import animated_glb, csv_lines, write_lines, write_motions
from dpmesh.video.files import save_tables
from dpmesh.video.frames import Frame
from dpmesh.video.ground import NO_FLOOR
from dpmesh.video.recording import RECORD, Recording
from dpmesh.inference.scene import Person, Scene
from dpmesh.video.windows import solved_tracks
frames, out = int(sys.argv[1]), Path(sys.argv[2])
body, rng = BodyModel(fakes.stick_body()), np.random.default_rng(0)
K, empty = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]]), np.zeros((4, 4, 3), np.uint8)
with closing(Recording(out)) as recording:
    for i in range(frames):
        turned = rng.normal(scale=0.1, size=72).astype(np.float32)
        joints = rng.normal(scale=0.3, size=(30, 3)).astype(np.float32) + np.float32([0, 0, 4])
        person = Person(np.float32([0, 0, 9, 9]), np.ones((17, 3), np.float32), turned[:3], turned[3:],
            np.zeros(10, np.float32), np.float32([0, 0, 4]), np.zeros((1, 3), np.float32), joints,
            np.ones((30, 2), np.float32), 0.9)
        scene = Scene(K, (480, 640), (), np.zeros((1, 3), np.int32), (person,))
        recording.add(Frame(i, i / 30, empty), scene, [0])
    tracks = solved_tracks(recording, 30.0, body)
assert len(tracks.frame) == frames
write_motions(tracks, body, out, ["bvh", "trc", "amass"])
write_lines(out / "joints.csv", csv_lines(tracks))
with (out / "scene.glb").open("wb") as file:
    file.writelines(animated_glb(tracks, body, body.faces.numpy().astype(np.int32)))
save_tables(tracks, out, {})
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


@pytest.mark.slow
def test_ten_minutes_take_at_most_sixty_megabytes_more_than_one(tmp_path: Path) -> None:
    """One person at 30 frames a second, everything but detection, network and drawing; peak resident memory."""
    support = Path(__file__).parents[1] / "support"
    peaks: list[float] = []
    for minutes in (1, 10):
        folder = tmp_path / str(minutes)
        folder.mkdir()
        script = f"import sys; sys.path.insert(0, {str(support)!r})\n{GROWTH}"
        command = [sys.executable, "-c", script, str(1800 * minutes), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        peaks.append(json.loads(done.stdout))
    assert peaks[1] - peaks[0] < 60, peaks


def test_strays_at_the_ends_of_a_track_are_left_out() -> None:
    """One detection after a gap of 0.8 s, and two before one of 0.3 s; a gap of 0.2 s sets nothing apart."""
    frames = np.array([0, 1, 10, 11, 12, 17, 18, 19, 20, 21, 45])
    own = np.arange(100, 100 + len(frames))
    assert (without_strays(own, frames / 25) - 100).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert len(without_strays(own[:2], frames[:2] / 25)) == 2
    assert len(without_strays(own[[0, 10]], frames[[0, 10]] / 25)) == 1


def test_rows_in_which_a_person_leaves_the_image_are_left_out() -> None:
    """At the edge and hardly in sight; those who are hidden elsewhere, or come back, stay."""
    share = np.array([0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.7, 0.5, 0.25, 0.4])
    confidence = np.repeat(share[:, None], 17, 1)
    box, time = np.tile([0.0, 20, 60, 90], (len(share), 1)), np.arange(len(share)) / 5
    assert staying(confidence, box, time, (100, 200)).tolist() == [True] * 7 + [False] * 3
    assert staying(confidence[::-1], box, time, (100, 200)).tolist() == [False] * 3 + [True] * 7
    assert staying(confidence, box + np.array([10, 0, 10, 0]), time, (100, 200)).all()  # behind something
    assert (
        staying(confidence, box + np.array([140, 0, 140, 0]), time, (100, 200)).sum() == 7
    )  # the right edge
    assert staying(confidence[:8], box[:8], time[:8], (100, 200)).all()  # half of them is in sight
    assert staying(confidence[8:], box[8:], time[8:], (100, 200)).all()  # nothing else is known
    assert staying(confidence, box, 6 * time, (100, 200)).all()  # for 2.4 s: hardly in sight, but there


def test_who_has_no_floor_is_told_so() -> None:
    """They float away: their feet stand nowhere."""
    body = BodyModel(free_body())
    tracks = two_people(body)
    away = (0.1 * tracks.frame[:, None] * [1.0, -0.5, 0]).astype(np.float32)
    joints3d = tracks.joints3d + away[:, None]
    flying = replace(
        tracks, transl=tracks.transl + away, joints3d=joints3d, joints2d=pixels_of(joints3d, tracks.K)
    )
    solved = solve_tracks(flying, body, static_camera=True)
    assert solved.ground is None and NO_FLOOR in solved.notes
    assert not solve_tracks(flying, body).notes
