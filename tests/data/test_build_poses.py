"""tools/assets/build_poses.py: from AMASS's folders to a pose file that a prior can be trained on."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dpmesh.data.poses import PoseBank, held_out, is_test
from tools.assets.build_poses import main


def motion(path: Path, key: str, width: int, **more: object) -> np.ndarray:
    """A clip of two seconds at 120 frames a second, in AMASS's layout; returns its body joints."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n = 240
    poses = np.random.default_rng(len(path.name)).normal(size=(n, width)) * 0.2
    common = {
        "trans": np.zeros((n, 3)),
        "gender": np.array("female"),
        key: np.array(120.0),
        "betas": np.zeros(16),
    }
    np.savez(path, poses=poses, **common, **more)
    return poses[:, 3:66]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["build_poses.py", *map(str, words)])
    main()


def test_amass_as_it_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """SMPL+H and SMPL-X files in one folder, shapes without motion, a torn file, and an archive left packed."""
    root, dmpls = tmp_path / "amass", {"dmpls": np.zeros((240, 8))}
    body = motion(root / "ACCAD/Female1_c3d/A1 - Stand_poses.npz", "mocap_framerate", 156, **dmpls)
    motion(root / "CMU/03/03_01_poses.npz", "mocap_framerate", 156, **dmpls)
    motion(root / "CMU/01/01_01_poses.npz", "mocap_framerate", 156, **dmpls)
    whole = np.random.default_rng(5).normal(size=(240, 66))
    smplx = {"root_orient": whole[:, :3], "pose_body": whole[:, 3:], "surface_model_type": np.array("smplx")}
    (root / "SFU/0005").mkdir(parents=True)
    np.savez(root / "SFU/0005/0005_Walking001_stageii.npz", mocap_frame_rate=np.array(60.0), **smplx)
    np.savez(root / "CMU/01/shape.npz", gender=np.array("male"), betas=np.zeros(16))
    (root / "CMU/01/01_02_poses.npz").write_bytes((root / "CMU/01/01_01_poses.npz").read_bytes()[:5000])
    (root / "KIT.tar.bz2").write_bytes(b"")
    run(monkeypatch, root, "--out", tmp_path / "poses.npz")
    printed = capsys.readouterr().out
    assert printed.count("left out") == 2 and "shape.npz" in printed and "01_02_poses" in printed
    assert "unpack it" in printed and "amass:CMU 2" in printed
    bank = PoseBank.read(tmp_path / "poses.npz")
    assert bank.names == (
        "amass:ACCAD/Female1_c3d/A1 - Stand_poses",
        "amass:CMU/01/01_01_poses",
        "amass:CMU/03/03_01_poses",
        "amass:SFU/0005/0005_Walking001_stageii",
    )
    assert bank.lens == (20, 20, 20, 40)  # ten a second
    assert np.allclose(bank.poses[:20, 1:22].reshape(20, -1), body[::12], atol=2e-3)
    assert np.allclose(bank.poses[60:, 1:22].reshape(40, -1), whole[::6, 3:], atol=2e-3)
    assert [is_test(name) for name in bank.names] == [False, False, True, False]
    assert held_out(bank.names, ["amass:SFU/"]) == (False, False, False, True)


def test_no_motion_is_one_line_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match="no motion was found"):
        run(monkeypatch, tmp_path / "absent", "--out", tmp_path / "poses.npz")
    assert not list(tmp_path.iterdir())
