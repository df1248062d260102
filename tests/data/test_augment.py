"""One geometry for image, 2D, 3D, pose, translation and camera."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.annotation import Annotation
from dpmesh.data.augment import AugmentConfig, View, draw_view
from dpmesh.data.crops import make_sample
from dpmesh.data.fits import FitBodies
from dpmesh.data.occlusion import draw_rectangle
from dpmesh.data.sample import Sample
from dpmesh.data.synthetic.body import matrices
from dpmesh.errors import ConfigError
from dpmesh.geometry.camera import project
from dpmesh.geometry.crop import Crop
from dpmesh.skeletons import JOINTS30, SMPL24

RNG = np.random.default_rng(5)
VIEWS = [(False, 0.0), (True, 0.0), (False, 37.0), (True, -52.0)]
QUIET = AugmentConfig(colour=0.0, p_rectangle=0.0, noise=False, p_drop_joint=0.0)


@pytest.fixture(scope="module")
def bodies() -> FitBodies:
    return FitBodies(free_body(), foreign=True)


def person(bodies: FitBodies, off_axis: bool) -> Annotation:
    """A person with one arm up, posed at random else; off_axis: at the image's border."""
    pose = np.random.default_rng(1).normal(0, 0.15, (24, 3)).astype(np.float32)
    pose[0] = [np.pi, 0.1, 0.2]
    pose[SMPL24.index("L_Shoulder")] = [0, 0, 1.3]
    K = np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]])
    transl = np.array([1.1 if off_axis else 0.0, 0.1, 4.0], np.float32)
    betas = np.random.default_rng(2).normal(0, 1, 10).astype(np.float32)
    ones = np.ones(30, np.float32)
    blank = Annotation(
        "test/1", Path(), (640, 480), np.array([1.0, 1, 2, 2]), K, np.zeros((30, 2), np.float32), ones
    )
    fitted = bodies.attach(blank, pose, betas, transl)
    joints2d = project(fitted.fit_joints3d, K).astype(np.float32)
    box = np.concatenate([joints2d.min(0), joints2d.max(0)]).astype(np.float64)
    return replace(fitted, box=box, joints2d=joints2d, joints3d=fitted.fit_joints3d, joints3d_valid=ones)


def seen_by_crop_camera(points: np.ndarray, focal: float) -> np.ndarray:
    return points[:, :2] / points[:, 2:] * focal + 128


@pytest.mark.parametrize(("flip", "rotation"), VIEWS)
@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_projecting_the_augmented_is_augmenting_the_projected(
    bodies: FitBodies, flip: bool, rotation: float, scale: float
) -> None:
    for off_axis in (False, True):
        someone = person(bodies, off_axis)
        crop = Crop.around(someone.box, scale)
        if not off_axis:  # a window about the image's axis: its camera is the image's own, and all is exact
            crop = Crop(320 - crop.side / 2, 240 - crop.side / 2, crop.side)
        plain, view = View(crop, someone.K), View(crop, someone.K, flip, rotation)
        after = seen_by_crop_camera(view.places(someone.joints3d), view.focal)
        if not off_axis:
            assert np.abs(after - view.pixels(someone.joints2d)).max() < 1e-3
        # Off the axis the crop camera's image is the crop's to first order alone, by an error that turns along.
        before = seen_by_crop_camera(plain.places(someone.joints3d), plain.focal)
        assert plain.focal == view.focal
        about = view.pixels(plain.crop.to_image(before.astype(np.float64)))
        assert np.abs(after - about).max() < 1e-3
        error = np.linalg.norm(after - view.pixels(someone.joints2d), axis=1)
        assert error.max() < 6.0, error.max()
        plain_error = np.linalg.norm(before - plain.pixels(someone.joints2d), axis=1)
        assert np.abs(error - plain_error).max() < 1e-3


@pytest.mark.parametrize(("flip", "rotation"), VIEWS)
def test_the_turned_pose_poses_the_turned_body(bodies: FitBodies, flip: bool, rotation: float) -> None:
    model = BodyModel(free_body())
    for off_axis in (False, True):
        someone = person(bodies, off_axis)
        view = View(Crop.around(someone.box, 1.1), someone.K, flip, rotation)
        posed = model.joints30_only(
            torch.from_numpy(someone.betas)[None],
            torch.from_numpy(matrices(view.pose(someone.pose)))[None],
            torch.from_numpy(view.transl(someone.transl, someone.rest_root))[None],
        )[0].numpy()
        wanted = view.swap(view.places(someone.fit_joints3d), JOINTS30)
        # The free body's two sides are mirror images to within a millimetre or two.
        assert np.abs(posed - wanted).max() < (4e-3 if flip else 1e-5)


def dotted(someone: Annotation) -> np.ndarray:
    """A black image with a bright spot at every joint, each of its own colour."""
    y, x = np.mgrid[: someone.size[1], : someone.size[0]]
    image = np.zeros((someone.size[1], someone.size[0], 3))
    for joint, (u, v) in enumerate(someone.joints2d):
        spot = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 1.5**2))
        image = np.maximum(image, spot[..., None] * _colour(joint))
    return np.round(image).astype(np.uint8)


def _colour(joint: int) -> np.ndarray:
    return np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]][joint % 3], np.float64)


@pytest.mark.parametrize(("flip", "rotation"), VIEWS)
def test_the_image_follows_the_joints(bodies: FitBodies, flip: bool, rotation: float) -> None:
    someone = person(bodies, off_axis=True)
    shown = ("L_Wrist", "R_Wrist", "L_Knee", "R_Ankle", "Head_top")  # far from the others
    rows = [JOINTS30.index(name) for name in shown]
    only = np.full((30, 2), -99, np.float32)
    only[rows] = someone.joints2d[rows]
    image = dotted(replace(someone, joints2d=only))
    view = View(Crop.around(someone.box, 1.15), someone.K, flip, rotation)
    crop, pixels = view.image(image).astype(np.float64), view.pixels(someone.joints2d)
    y, x = np.mgrid[:256, :256]
    for row in rows:
        near = ((x - pixels[row, 0]) ** 2 + (y - pixels[row, 1]) ** 2 < 64) * crop[..., row % 3]
        assert near.max() > 100, JOINTS30.joints[row]
        centre = np.array([(near * x).sum(), (near * y).sum()]) / near.sum()
        assert np.linalg.norm(centre - pixels[row]) < 0.25, JOINTS30.joints[row]
    # Under its name is the other side's spot, when mirrored.
    swapped = view.swap(pixels, JOINTS30)
    left = JOINTS30.index("L_Wrist")
    assert np.array_equal(swapped[left], pixels[JOINTS30.index("R_Wrist") if flip else left])


def again(sample: Sample, someone: Annotation) -> Annotation:
    """A sample as a person of a 256×256 image, whose camera is the crop's."""
    return replace(
        someone, size=(256, 256), box=np.array([0.0, 0, 256, 256]),
        K=np.array([[sample.focal, 0, 128], [0, sample.focal, 128], [0, 0, 1]]),
        joints2d=sample.joints2d, joints3d=sample.joints3d, pose=sample.pose, transl=sample.transl,
        fit_joints3d=sample.fit_joints3d, pose_valid=sample.pose_valid, betas=sample.betas,
        joint_clear=sample.joint_visible,
    )  # fmt: skip


def test_flipping_twice_is_the_identity(bodies: FitBodies) -> None:
    someone = replace(person(bodies, off_axis=True), pose_valid=(np.arange(24) % 3 > 0).astype(np.float32))
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    once = replace(QUIET, expand=(1.0, 1.0), scale=0.0, p_rotate=0.0, p_flip=1.0)
    never = replace(once, p_flip=0.0)
    rng = np.random.default_rng(0)
    plain = make_sample(rng, someone, image, never)
    flipped = make_sample(rng, someone, image, once)
    twice = make_sample(rng, again(flipped, someone), flipped.crop, once)
    assert not np.allclose(flipped.joints2d, plain.joints2d, atol=20)
    for name in ("joints2d", "joints3d", "pose", "transl", "fit_joints3d", "betas", "pose_valid", "joints"):
        assert np.abs(getattr(twice, name) - getattr(plain, name)).max() < 2e-4, name
    assert abs(twice.focal - plain.focal) < 1e-3
    off = np.abs(twice.crop.astype(int) - plain.crop)[:, 1:]  # column 0 comes from 256, beyond a crop
    assert off.max() <= 1 and (off > 0).mean() < 2.5e-3  # bilinear rounding
    wrist = JOINTS30.index("L_Wrist")  # who raises the left hand, raises the right one in the mirror
    assert plain.joints3d[wrist, 1] < plain.joints3d[wrist + 1, 1]
    assert flipped.joints3d[wrist, 1] > flipped.joints3d[wrist + 1, 1]


def test_a_sample_holds_together(bodies: FitBodies) -> None:
    someone = replace(person(bodies, off_axis=False), betas_valid=1.0)
    image = np.full((480, 640, 3), 90, np.uint8)
    for seed in range(12):
        sample = make_sample(np.random.default_rng(seed), someone, image, replace(QUIET, p_rectangle=1.0))
        assert np.abs(sample.fit_joints3d - sample.joints3d).max() < 1e-6
        assert np.abs(seen_by_crop_camera(sample.joints3d, sample.focal) - sample.joints2d).max() < 4
        assert np.abs(sample.fit_joints2d - sample.joints2d).max() < 1e-2
        covered = (sample.crop != 90).any(-1) & (sample.crop != 0).any(-1)
        for x, y, clear in zip(*sample.joints2d.T, sample.joint_visible, strict=True):
            if 1 <= x < 255 and 1 <= y < 255 and sample.crop[int(y), int(x)].any():
                assert clear == (not covered[int(y), int(x)])
    big = replace(someone, betas=someone.betas + np.float32(4))
    sample = make_sample(np.random.default_rng(0), big, image)
    assert (sample.betas == 0).all() and sample.betas_valid == 1 and sample.record_id == "test/1"
    bare = replace(someone, fit_valid=0.0, betas_valid=0.0, pose_valid=np.zeros(24, np.float32))
    sample = make_sample(np.random.default_rng(0), bare, image)
    for name in ("pose", "betas", "transl", "fit_joints2d", "fit_joints3d"):
        assert not getattr(sample, name).any(), name


def test_ranges_are_those_of_the_published_loaders() -> None:
    rng, box, K = np.random.default_rng(0), np.array([0.0, 0, 100, 50]), np.diag([500.0, 500, 1])
    views = [draw_view(rng, AugmentConfig(), box, K) for _ in range(8000)]
    side = np.array([v.crop.side for v in views]) / 100
    assert side.min() > 0.75 and side.max() < 1.5 and abs(side.mean() - 1.1) < 0.01
    rotation = np.array([v.rotation for v in views])
    assert abs((rotation != 0).mean() - 0.6) < 0.02 and np.abs(rotation).max() == 60
    assert abs((np.abs(rotation[rotation != 0]) == 60).mean() - 0.0455) < 0.009  # beyond two sigma
    assert abs(rotation[np.abs(rotation) < 60].std() - 30 * 0.88 * np.sqrt(0.6)) < 1.5
    assert abs(np.mean([v.flip for v in views]) - 0.5) < 0.02


def drawn(box: list[float], many: int = 4000) -> tuple[np.ndarray, np.ndarray, float]:
    """x y w h of what was placed, share of the box under each, and the share of tries that placed something."""
    rng = np.random.default_rng(0)
    places = [draw_rectangle(rng, np.array(box)) for _ in range(many)]
    rectangles = np.array([place for place in places if place is not None])
    shares = rectangles[:, 2] * rectangles[:, 3] / ((box[2] - box[0]) * (box[3] - box[1]))
    return rectangles, shares, len(rectangles) / many


@pytest.mark.parametrize(
    "box", [[28.0, 28.0, 228.0, 228.0], [40.0, 12.0, 215.0, 244.0], [100.4, 20.7, 150.2, 240.9]]
)
def test_the_whole_rectangle_lies_in_the_box_without_a_bias(box: list[float]) -> None:
    """15 % of the box on average. With its corner alone in the box it would be 11 %, too low and
    too far right by up to a tenth of the box."""
    rectangles, shares, placed = drawn(box)
    x, y, w, h = rectangles.T
    assert placed > 0.99
    assert (
        x.min() >= box[0] - 1
        and y.min() >= box[1] - 1
        and (x + w - 1).max() <= box[2]
        and (y + h - 1).max() <= box[3]
    )
    wide = (
        box[2] - box[0] > 60
    )  # of a narrow box the largest rectangles that are wider than it are drawn again
    assert shares.max() <= 0.3 and abs(shares.mean() - (0.148 if wide else 0.128)) < 0.006
    off = np.array([x + (w - 1) / 2 - (box[0] + box[2]) / 2, y + (h - 1) / 2 - (box[1] + box[3]) / 2])
    assert (
        np.abs(off.mean(1)) < 3
    ).all()  # px: whole ones, a pixel from the far edges; with the corner alone 12
    ratio = h[w > 20] / w[w > 20]
    assert ratio.min() > 0.45 and ratio.max() < 2.1


def test_a_rectangle_that_does_not_fit_into_the_crop_is_left_out() -> None:
    """The box 100 120 300 320 reaches beyond the crop: 86 % of the rectangles are placed (six tries each)."""
    rectangles, _, placed = drawn([100.0, 120.0, 300.0, 320.0])
    x, y, w, h = rectangles.T
    assert abs(placed - 0.864) < 0.015
    assert (x + w).max() < 256 and (y + h).max() < 256


@pytest.mark.parametrize(
    "wrong",
    [{"p_flip": 1.5}, {"expand": (1.2, 1.0)}, {"scale": 1.0}, {"rotation": 120.0}, {"p_drop_joint": -0.1}],
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        AugmentConfig(**wrong)  # pyright: ignore[reportArgumentType]
