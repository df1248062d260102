"""Corrections of tracks: exact in their frame, fading over time, more where sigma is high; nothing else moves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.camera import project
from dpmesh.geometry.floor import FEET, SOLE
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.corrections import Correction
from dpmesh.skeletons import COCO17, JOINTS30
from dpmesh.video.correct import correct_tracks
from dpmesh.video.files import save_tables
from dpmesh.video.tracks import Tracks

FPS, FRAMES = 25.0, 40
K = np.array([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]])
WRIST, ELBOW = JOINTS30.index("L_Wrist"), JOINTS30.index("L_Elbow")


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(free_body())


@pytest.fixture(scope="module")
def tracks(body: BodyModel) -> Tracks:
    """Two people, tracks 2 and 5, who sway and walk to the right."""
    frames = np.repeat(np.arange(FRAMES), 2)
    numbers = np.tile([2, 5], FRAMES)
    time, other = frames / FPS, numbers == 5
    sway = np.sin(2 * np.pi * time)
    orient = Rotation.from_euler(
        "xy", np.stack([np.full(len(time), np.pi), 0.3 * sway + other], 1)
    ).as_rotvec()
    pose = np.zeros((len(time), 23, 3))
    pose[:, 17, 1] = -0.7 + 0.2 * sway
    transl = np.stack([other - 0.5 + 0.1 * time, np.full(len(time), 0.1), 5.0 + other], 1)
    turns = np.concatenate([orient[:, None], pose], 1)
    with torch.no_grad():
        matrices = rotation_matrix(torch.from_numpy(turns).float())
        joints = body.joints30_only(
            torch.zeros(len(time), 10), matrices, torch.from_numpy(transl).float()
        ).numpy()
    pixels = project(joints, K)
    keypoints = pixels[:, list(COCO17.indices_in(JOINTS30))]
    low, high = pixels.min(1), pixels.max(1)
    return Tracks(
        frame=frames, time=time, track=numbers, interpolated=np.zeros(len(time), bool),
        box=np.concatenate([low, high], 1).astype(np.float32), score=np.full(len(time), 0.9, np.float32),
        keypoints2d=np.concatenate([keypoints, np.full((len(time), 17, 1), 0.8)], 2).astype(np.float32),
        global_orient=orient.astype(np.float32), body_pose=pose.reshape(-1, 69).astype(np.float32),
        transl=transl.astype(np.float32), joints3d=joints, joints2d=pixels.astype(np.float32),
        joint_sigma=np.full((len(time), 30), 0.1, np.float32), contacts=np.zeros((len(time), 4), bool),
        numbers=np.array([2, 5]), betas=np.zeros((2, 10), np.float32), K=K, fps=FPS, image_size=(480, 640),
        frames=FRAMES,
    )  # fmt: skip


def _moved(tracks: Tracks, frame: int, by: tuple[float, float] = (0.0, 40.0)) -> Correction:
    row = tracks.in_frame(frame)[0]
    x, y = tracks.joints2d[row, WRIST].astype(float) + by
    return Correction("move", 2, "L_Wrist", pixel=(float(x), float(y)), frame=frame)


def _off(tracks: Tracks, step: Correction) -> float:
    row = tracks.in_frame(step.frame or 0)[0]
    return float(np.linalg.norm(tracks.joints2d[row, WRIST] - np.array(step.pixel)))


def test_a_correction_is_exact_in_its_frame_and_fades(tracks: Tracks, body: BodyModel) -> None:
    step = _moved(tracks, 20)
    result = correct_tracks(tracks, [step], body)
    assert _off(result, step) < 2.0 < 30 < _off(tracks, step)
    own, other = tracks.of(2), tracks.of(5)
    change = np.linalg.norm(result.joints3d - tracks.joints3d, axis=-1)[own, WRIST]
    assert (
        change.argmax() == 20
        and (np.diff(change[:21]) >= -2e-3).all()
        and (np.diff(change[20:]) <= 2e-3).all()
    )
    assert 0.7 < change[23] / change[20] < 0.99 and change[0] < 0.02 * change[20]
    np.testing.assert_array_equal(result.joints3d[other], tracks.joints3d[other])
    assert result.keypoints2d[own[20], COCO17.index("L_Wrist"), 2] == 1
    vectors = np.concatenate([result.global_orient, result.body_pose], 1).reshape(-1, 24, 3)
    with torch.no_grad():
        turns = rotation_matrix(torch.from_numpy(vectors).float())
        posed = body.joints30_only(torch.zeros(len(turns), 10), turns, torch.from_numpy(result.transl))
    np.testing.assert_allclose(posed.numpy(), result.joints3d, atol=1e-4)


def test_two_corrections_are_both_exact(tracks: Tracks, body: BodyModel) -> None:
    steps = [_moved(tracks, 18), _moved(tracks, 22, (10.0, -25.0))]
    result = correct_tracks(tracks, steps, body)
    assert max(_off(result, step) for step in steps) < 2.0
    one = correct_tracks(tracks, steps[:1], body)  # a shorter list undoes
    np.testing.assert_array_equal(correct_tracks(tracks, steps[:1], body).joints3d, one.joints3d)
    assert one.corrections == (steps[0].as_json(),)


def test_frames_of_lower_sigma_take_less(tracks: Tracks, body: BodyModel) -> None:
    sigma = tracks.joint_sigma.copy()
    sigma[tracks.frame == 22] = 0.03
    sure = correct_tracks(replace(tracks, joint_sigma=sigma), [_moved(tracks, 20)], body)
    usual = correct_tracks(tracks, [_moved(tracks, 20)], body)
    row = tracks.in_frame(22)[0]
    a, b = (np.abs(t.body_pose[row] - tracks.body_pose[row]).max() for t in (sure, usual))
    assert a < 0.3 * b
    assert _off(sure, _moved(tracks, 20)) < 2.0


def test_deleting_and_files(tracks: Tracks, body: BodyModel, tmp_path: Path) -> None:
    result = correct_tracks(tracks, [_moved(tracks, 20), Correction("delete", 5)], body)
    assert list(result.numbers) == [2] and len(result.frame) == FRAMES
    save_tables(result, tmp_path, {})
    loaded = Tracks.load(tmp_path)
    assert loaded.corrections == result.corrections
    np.testing.assert_array_equal(loaded.joints3d, result.joints3d)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Correction("hide", 7, "Nose", frame=3), "no track 7"),
        (Correction("hide", 2, "Nose", frame=99), "no frame 99"),
        (Correction("hide", 2, "Nose"), "needs its frame"),
        (Correction("floor", pixels=((3.0, 4.0),)), "need their frame"),
        (Correction("floor", people=(4,)), "no track 4"),
        (Correction("floor", normal=(0.0, -1.0, 0.0), height=3.0), "cannot stand on this floor"),
        (Correction("swap", 2, frame=3), "needs the image"),
        (Correction("add", box=(1.0, 2.0, 3.0, 4.0)), "needs the image"),
    ],
)
def test_what_tracks_do_not_allow(tracks: Tracks, body: BodyModel, step: Correction, message: str) -> None:
    with pytest.raises(InputError, match=message):
        correct_tracks(tracks, [step], body)


def _above(tracks: Tracks, number: int, height: float) -> np.ndarray:
    """Lowest sole of each frame above a level floor, metres."""
    feet = tracks.joints3d[tracks.of(number)][:, FEET]
    return (height - feet[..., 1] - np.array(SOLE)).min(1)


def test_the_floor_lifts_a_track(tracks: Tracks, body: BodyModel) -> None:
    level = float((tracks.joints3d[:, FEET, 1] + np.array(SOLE)).max()) - 0.06  # 6 cm above their feet
    step = Correction("floor", normal=(0.0, -1.0, 0.0), height=level, people=(2,))
    result = correct_tracks(tracks, [step], body)
    assert np.abs(_above(tracks, 2, level)).min() > 0.03
    assert np.median(np.abs(_above(result, 2, level))) < 0.025  # heel and toes share what a flat foot leaves
    assert result.contacts[result.of(2)].any(1).mean() > 0.9
    assert result.ground is not None and result.ground.translation[1] == pytest.approx(level)
    np.testing.assert_array_equal(result.joints3d[result.of(5)], tracks.joints3d[tracks.of(5)])
    moved = np.linalg.norm(result.joints2d - tracks.joints2d, axis=-1)[tracks.of(2)]
    assert np.median(moved) < 20  # of 350
    pinned = correct_tracks(tracks, [move := _moved(tracks, 20), step], body)
    assert _off(pinned, move) < 2.0
    assert np.median(np.abs(_above(pinned, 2, level))) < 0.025
    gone = correct_tracks(tracks, [Correction("delete", 2), Correction("floor")], body)
    assert gone.ground is not None
    feet = gone.joints3d[gone.of(5)][:, FEET]
    assert np.abs((gone.ground.heights(feet) - SOLE).min(1)).max() < 0.03


def test_points_of_a_frame_give_the_floor(tracks: Tracks, body: BodyModel) -> None:
    rows = tracks.in_frame(7)
    soles = tracks.joints3d[rows][:, FEET[1]] + np.array([0.0, SOLE[1], 0.0])
    pixels = tuple((float(x), float(y)) for x, y in project(soles, K))
    ground = correct_tracks(tracks, [Correction("floor", pixels=pixels, frame=7)], body).ground
    assert ground is not None
    assert ground.translation[1] == pytest.approx(soles[:, 1].mean(), abs=0.03)
