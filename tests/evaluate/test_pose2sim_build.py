"""tools/assets/build_pose2sim.py on a wheel in the real layout: joints and images from videos and calibration."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dpmesh.errors import InputError
from tools.assets import build_pose2sim
from tools.assets.build_pose2sim import build, summary
from tools.assets.pose2sim_videos import read_cameras
from tools.assets.triangulate import View, project, smooth, triangulate
from tools.fixtures import pose2sim_twin as twin


def discs(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The joints that can be seen as discs: the middle of the pixels of each colour."""
    found, near = np.zeros((17, 3)), np.zeros(256, np.uint8)
    levels = (0, 128, 255)
    for level in levels:
        near[max(level - 45, 0) : level + 46] = level
    near[[*range(46, 83), *range(174, 210)]] = 1  # no level
    codes = near[image] @ np.array([1, 256, 65536])
    for joint, colour in enumerate(twin.COLOURS):
        y, x = np.nonzero(codes == colour @ np.array([1, 256, 65536]))
        if len(x) > 0.7 * np.pi * twin.RADIUS**2:
            found[joint] = np.median(x), np.median(y), 0.9
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, np.ndarray]:
    folder = tmp_path_factory.mktemp("pose2sim")
    joints = twin.write_wheel(folder / "pose2sim-0-py3-none-any.whl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_pose2sim, "man_in", lambda image, detector: np.array([0.0, 0.0, 1.0, 1.0]))
        content = build(folder / "pose2sim-0-py3-none-any.whl", folder / "out", [("discs", discs)], every=3)
    return folder / "out", content, joints


@pytest.mark.slow
def test_joints_are_the_worlds(built: tuple[Path, dict, np.ndarray]) -> None:
    _, content, joints = built
    assert content["frames"] == [0, 3, 6, 9]
    got = np.array(content["joints"])
    measured = got[..., 3] > 0
    assert measured.mean() > 0.8
    off = np.linalg.norm(got[..., :3] - joints[content["frames"]], axis=-1)[measured]
    assert np.median(off) < 0.008 and off.max() < 0.03  # a pixel is 12 mm
    assert "measured" in summary(content)


@pytest.mark.slow
@pytest.mark.parametrize("images", ["clean", "occluded"])
def test_images_are_the_pinhole_cameras(built: tuple[Path, dict, np.ndarray], images: str) -> None:
    """Distortion, bars and the shift are gone: the joints project to their discs, with the written K."""
    folder, content, joints = built
    off: list[float] = []
    for name, camera in content["cameras"].items():
        K, R, t = (np.array(camera[key]) for key in "KRt")
        assert K[0, 0] == K[1, 1] and tuple(K[:2, 2] * 2) == camera["size"] == (twin.WIDTH, twin.HEIGHT)
        for frame in content["frames"]:
            image = cv2.imread(str(folder / images / name / f"{frame:03d}.jpg"))
            assert image is not None and image.shape == (twin.HEIGHT, twin.WIDTH, 3)
            found = discs(image[..., ::-1], np.zeros(4))
            true = project(joints[frame], K @ np.column_stack([R, t]))
            off += list(np.linalg.norm(found[:, :2] - true, axis=1)[found[:, 2] > 0])
    assert len(off) > 150 and np.median(off) < 0.8 and np.percentile(off, 90) < 1.5


def test_cameras_of_the_calibration() -> None:
    for lens, camera in zip(twin.lenses(), read_cameras(twin.calibration(twin.lenses())), strict=True):
        np.testing.assert_allclose(camera.R, lens.R, atol=1e-9)
        np.testing.assert_allclose(camera.t, lens.t, atol=1e-9)
        np.testing.assert_allclose(camera.lens, lens.K, atol=1e-9)
        assert camera.size == (twin.WIDTH, twin.HEIGHT)


def test_a_camera_that_is_wrong_is_left_out() -> None:
    """A joint that one camera mistakes is triangulated from the others; one that two mistake is not measured."""
    joints, cameras = twin.motion(), read_cameras(twin.calibration(twin.lenses()))
    flat = [np.concatenate([project(joints, c.P), np.full((*joints.shape[:2], 1), 0.8)], 2) for c in cameras]
    flat[0][:, 4, :2] += 90
    flat[1][:, 9, :2] -= 70
    flat[2][:, 9, 2] = 0.0
    got = smooth(
        triangulate([View(i, c.P, points) for i, (c, points) in enumerate(zip(cameras, flat, strict=True))])
    )
    assert not got.measured[:, 9].any() and got.measured[:, np.arange(17) != 9].all()
    off = np.linalg.norm(got.joints - joints, axis=-1)
    assert np.delete(off, 9, 1).max() < 1e-3


def test_a_foreign_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"a\.whl"):
        build(tmp_path / "a.whl", tmp_path / "out", [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="pip download"):
        build(tmp_path / "empty", tmp_path / "out", [])
    assert not (tmp_path / "out").exists()
