"""Animations, tables and drawings of tracks, read by other programs; and all of them in the world frame."""

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from fakes import stick_body
from gltf_programs import run_node
from PIL import Image
from video_tracks import FPS, two_people

from dpmesh.body.layer import BodyModel
from dpmesh.skeletons import JOINTS30
from dpmesh.video.exports import absences, animated_glb, placed, write_motions
from dpmesh.video.frames import Span
from dpmesh.video.overlay import write_overlay
from dpmesh.video.plot import heights, plot_png, speeds
from dpmesh.video.stills import FolderFrames
from dpmesh.video.tracks import Ground, Tracks

TILT = np.deg2rad(20)
"""The camera looks down by so much, from 1.5 m above the floor."""
GROUND = Ground(
    np.array([[1.0, 0, 0], [0, -np.cos(TILT), -np.sin(TILT)], [0, np.sin(TILT), -np.cos(TILT)]]),
    np.array([0, 1.5, 0]),
)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(stick_body())


@pytest.fixture(scope="module")
def tracks(body: BodyModel) -> Tracks:
    return two_people(body)


def read_trc(path: Path) -> tuple[dict[str, str], list[str], np.ndarray]:
    """Header, names and numbers (rows of frame, time, X1, Y1, Z1, ...), by the format's description."""
    lines = path.read_text().split("\n")
    assert lines[0].split("\t")[:3] == ["PathFileType", "4", "(X/Y/Z)"] and lines[5] == ""
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    names = [name for name in lines[3].split("\t")[2:] if name]
    assert lines[4].split("\t")[2:5] == ["X1", "Y1", "Z1"]
    return header, names, np.array([line.split("\t") for line in lines[6:] if line], float)


def test_trc(tracks: Tracks, body: BodyModel, tmp_path: Path) -> None:
    """y is up; the gap of five frames stands still, so that the rate is the same throughout."""
    write_motions(tracks, body, tmp_path, ["trc"])
    header, names, rows = read_trc(tmp_path / "person_03.trc")
    assert names == list(JOINTS30.joints) and header["Units"] == "m" and header["NumMarkers"] == "30"
    assert float(header["DataRate"]) == FPS and int(header["NumFrames"]) == len(rows) == 25
    np.testing.assert_allclose(rows[:, 1], np.arange(25) / FPS, atol=1e-6)
    own = tracks.of(3)
    np.testing.assert_allclose(rows[20, 2:].reshape(30, 3), tracks.joints3d[own[15]] * [1, -1, -1], atol=1e-5)
    assert (rows[8:13, 2:] == rows[7, 2:]).all()


def test_files_are_in_the_world_where_the_floor_is_known(
    tracks: Tracks, body: BodyModel, tmp_path: Path
) -> None:
    """A pelvis a metre above the floor has y = 1 in each of them."""
    world = replace(tracks, ground=GROUND)
    wanted = GROUND.to_world(tracks.joints3d[tracks.of(0)])
    write_motions(world, body, tmp_path, ["trc", "bvh", "amass"])
    _, _, rows = read_trc(tmp_path / "person_00.trc")
    np.testing.assert_allclose(rows[:, 2:].reshape(-1, 30, 3), wanted, atol=1e-5)
    text = (tmp_path / "person_00.bvh").read_text().splitlines()
    first = np.array(text[text.index("Frames: 25") + 2].split()[:3], float) / 100
    np.testing.assert_allclose(first, wanted[0, 0], atol=1e-4)
    with np.load(tmp_path / "person_00_amass.npz") as amass:
        identity = torch.eye(3).expand(1, 24, 3, 3)
        rest = body.bind_pose(torch.from_numpy(tracks.betas[:1]), identity)[1][0, 0].numpy()
        x, y, z = rest + amass["trans"][0]  # z is up, y away from the camera
    np.testing.assert_allclose([x, z, -y], wanted[0, 0], atol=1e-4)


def test_the_world_keeps_the_distance_to_the_floor(tracks: Tracks) -> None:
    pelvis = np.array([0.0, 0.2, 0.0])
    own = tracks.of(0)
    orient, transl = placed(replace(tracks, ground=GROUND), own, pelvis)
    np.testing.assert_allclose(
        -(pelvis + transl)[:, 1], GROUND.heights(pelvis + tracks.transl[own]), atol=1e-6
    )
    assert orient.shape == (25, 3)


def test_absences_are_gaps_of_frames_not_of_time(tracks: Tracks) -> None:
    """Frames of a variable rate, half a second apart, are no gap; the five missing ones are."""
    slow = replace(tracks, time=tracks.frame * 0.5)
    assert absences(slow, slow.of(0)) == []
    assert absences(slow, slow.of(3)) == [(3.5 + 1 / FPS, 6.5)]
    late = replace(tracks, time=tracks.time + 2)
    assert absences(late, late.of(0))[0] == (0.0, 2.0)


@pytest.mark.parametrize("ground", [None, GROUND])
def test_khronos_validator_reports_nothing(
    tracks: Tracks, body: BodyModel, tmp_path: Path, ground: Ground | None
) -> None:
    faces = body.faces.numpy().astype(np.int32)
    path = tmp_path / "a.glb"
    path.write_bytes(b"".join(animated_glb(replace(tracks, ground=ground), body, faces)))
    (report,) = run_node("validate.mjs", path)
    assert report["issues"]["messages"] == []
    info = report["info"]
    assert info["animationCount"] == 1 and info["hasSkins"] and info["drawCallCount"] == 2


def test_the_plot(tracks: Tracks) -> None:
    own = tracks.of(0)
    np.testing.assert_allclose(
        speeds(tracks, own), 0.02 * FPS, atol=0.35
    )  # 2 cm a frame, and the pelvis turns
    tops = GROUND.heights(tracks.joints3d[own, JOINTS30.index("Head_top")])
    np.testing.assert_allclose(heights(replace(tracks, ground=GROUND), own), tops)
    assert np.isnan(speeds(tracks, own[:1])).all()
    png = plot_png(tracks)
    assert png.startswith(b"\x89PNG") and plot_png(tracks.with_rows(np.zeros(0, np.int64))).startswith(
        b"\x89PNG"
    )


@pytest.mark.parametrize("side", [False, True])
def test_the_overlay_is_read_by_another_decoder(
    tracks: Tracks, body: BodyModel, tmp_path: Path, side: bool
) -> None:
    """OpenCV's FFmpeg; PyAV gives the times of the frames."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 48), (0, 0, 80 * i)).save(frames / f"{i}.png")
    source = FolderFrames(frames, FPS)
    small = replace(
        tracks.with_rows(tracks.frame < 6), K=np.diag([0.1, 0.1, 1]) @ tracks.K, image_size=(48, 64)
    )
    path = tmp_path / "overlay.mp4"
    assert write_overlay(small, source, Span(), body, path, side) == []
    capture = cv2.VideoCapture(str(path))
    read = []
    while (got := capture.read())[0]:
        read.append(got[1])
    assert len(read) == 3 and read[0].shape == (48, 128 if side else 64, 3)
    assert abs(int(read[2][2, 2, 0]) - 160) < 25  # blue: OpenCV's order
    with av.open(str(path)) as container:
        np.testing.assert_allclose([f.time for f in container.decode(video=0)], np.arange(3) / FPS, atol=1e-3)


def test_an_interrupted_overlay_is_whole(tracks: Tracks, body: BodyModel, tmp_path: Path) -> None:
    class Interrupted(FolderFrames):
        def frames(self, span: Span):
            for frame in super().frames(span):
                if frame.index == 3:
                    raise KeyboardInterrupt
                yield frame

    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(6):
        Image.new("RGB", (64, 48)).save(frames / f"{i}.png")
    none = tracks.with_rows(np.zeros(0, np.int64))
    path = tmp_path / "overlay.mp4"
    notes = write_overlay(none, Interrupted(frames, FPS), Span(), body, path)
    assert notes == ["overlay.mp4 was interrupted after 3 frames"]
    with av.open(str(path)) as container:
        assert len([*container.decode(video=0)]) == 3
