"""AMASS clips: the body and its upright frame, damaged clips, and the bound on their size."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpmesh.data import motion_files
from dpmesh.data.motion_files import (
    read_amass,
)
from dpmesh.errors import InputError


@pytest.mark.parametrize(
    ("width", "key"), [(156, "mocap_framerate"), (165, "mocap_frame_rate"), (72, "mocap_framerate")]
)
def test_amass_keeps_the_body_and_stands_up(tmp_path: Path, width: int, key: str) -> None:
    poses = np.random.default_rng(1).normal(size=(5, width)) * 0.3
    extra = {key: np.array(120.0), "trans": np.zeros((5, 3)), "betas": np.zeros(16)}
    np.savez(tmp_path / "a_poses.npz", poses=poses, **extra)
    read, fps = read_amass(tmp_path / "a_poses.npz")
    assert read.shape == (5, 24, 3) and fps == 120
    assert np.array_equal(read[:, 1:22].reshape(5, -1), poses[:, 3:66]) and not read[:, 22:].any()
    up = Rotation.from_rotvec(read[:, 0]).as_matrix()
    z_up = Rotation.from_rotvec(poses[:, :3]).as_matrix()
    assert np.allclose(up[:, 1], z_up[:, 2]) and np.allclose(up[:, 2], -z_up[:, 1])  # z becomes y
    apart = {"root_orient": poses[:, :3], "pose_body": poses[:, 3:66]}
    np.savez(tmp_path / "b_poses.npz", **apart, **extra)
    assert np.array_equal(read_amass(tmp_path / "b_poses.npz")[0], read)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"trans": np.zeros((5, 3))}, "AMASS"),
        ({"poses": np.zeros((5, 156))}, "no frame rate"),
        ({"poses": np.zeros((5, 100)), "mocap_framerate": 60.0}, "156"),
        ({"poses": np.full((5, 72), np.nan), "mocap_framerate": 60.0}, "finite"),
        ({"poses": np.zeros((5, 72)), "mocap_framerate": 0.0}, "0.0 frames a second"),
        ({"poses": np.zeros((5, 72)), "mocap_framerate": np.nan}, "nan frames a second"),
        (
            {"root_orient": np.zeros((5, 3)), "pose_body": np.zeros((4, 63)), "mocap_frame_rate": 60.0},
            "AMASS",
        ),
        ({"root_orient": np.zeros((5, 3)), "pose_body": np.zeros((5, 60)), "mocap_frame_rate": 60.0}, "66"),
    ],
)
def test_what_is_no_amass_clip_is_one_line(tmp_path: Path, arrays: dict[str, object], said: str) -> None:
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(InputError, match=said):
        read_amass(tmp_path / "b.npz")
    data = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="AMASS"):
        read_amass(tmp_path / "b.npz")


def test_an_amass_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive that unpacks to more than is read, a damaged one, and one with pickles."""
    path = tmp_path / "a.npz"
    monkeypatch.setattr(motion_files, "LARGEST_ARRAY", 2**20)
    np.savez_compressed(path, poses=np.zeros(2**18), mocap_framerate=120.0)
    assert path.stat().st_size < 2**13
    with pytest.raises(InputError, match="more than"):
        read_amass(path)
    path.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(InputError, match="not an AMASS file"):
        read_amass(path)
    for poses in (np.array([{}]), np.full((2, 72), np.nan), np.zeros((2, 72), complex)):
        np.savez(path, poses=poses, mocap_framerate=120.0)
        with pytest.raises(InputError, match=r"a\.npz"):
            read_amass(path)
