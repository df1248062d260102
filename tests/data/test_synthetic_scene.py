"""The scene around synthetic people: light, surroundings, shadows, and the camera's effects."""

import numpy as np
import pytest

from dpmesh.body.files import population_body
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.data.synthetic.camera_effects import motion_blur, photograph
from dpmesh.data.synthetic.environment import draw_behind, draw_surroundings
from dpmesh.data.synthetic.lighting import KINDS, Light
from dpmesh.data.synthetic.shading import corners, lit
from dpmesh.skeletons import JOINTS30

UPRIGHT = np.diag([1.0, -1.0, -1.0]).astype(np.float32)  # world, y up, to a level camera
K = np.array([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]])


def test_soft_light_is_near_the_clamped_cosine() -> None:
    light = Light(np.random.default_rng(0), UPRIGHT)
    light.harmonics[:] = 0
    light.cast = np.ones(3)
    d = np.array([0.6, 0.0, -0.8])
    light.add_lobe(d, np.array([1.0, 2, 3]))
    normals = np.random.default_rng(1).standard_normal((300, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for n, colour in zip(normals, light.on(normals), strict=True):
        assert np.abs(colour - max(n @ d, 0) * np.array([1, 2, 3])).max() < 3 * 0.1
        assert lit(light.harmonics, 1, *n) == pytest.approx(colour[1], abs=1e-4)
    kinds = {Light(np.random.default_rng(seed), UPRIGHT).kind for seed in range(80)}
    assert kinds == set(KINDS)


def test_corners_are_dark_and_planes_are_not() -> None:
    flat = np.full((256, 256), 2.0, np.float32)
    assert (corners(flat) == 1).all()
    flat[:, 128:] = 2.06
    dark = corners(flat)
    assert (
        dark.min() < 0.95 and dark[:, :100].min() == 1 and dark[:, 128:140].mean() < dark[:, 116:128].mean()
    )


def test_places_hold_camera_and_people_and_fill_the_image() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        light = Light(rng, UPRIGHT)
        people = np.float32([[0, -1.2, -4], [0.3, 0.5, -4.2]])
        around = draw_surroundings(rng, light, -1.3, people)
        inside_ = np.concatenate([people, np.zeros((1, 3), np.float32)]) @ around.turn.T
        assert (
            (inside_ > around.low).all()
            and (inside_ < around.high).all()
            and around.low[1] == np.float32(-1.3)
        )
        image = np.full((256, 256, 3), np.nan, np.float32)
        balls = np.float32([[0, -1.2, -4, 0.1]])
        draw_behind(image, around, light, UPRIGHT, 300.0, balls, np.full((256, 256), -1, np.int32))
        assert np.isfinite(image).all() and image.min() >= 0 and image.std() > 0.005


def test_a_person_darkens_the_floor() -> None:
    rng = np.random.default_rng(2)
    light = Light(rng, UPRIGHT)
    around = draw_surroundings(rng, light, -1.3, np.float32([[0, -1.2, -4]]))
    around.paints[:, 16] = 0  # no grain
    images = []
    for radius in (1e-4, 0.15):
        image = np.zeros((256, 256, 3), np.float32)
        balls = np.float32([[0, -1.15, -4, radius]])
        draw_behind(image, around, light, UPRIGHT, 300.0, balls, np.full((256, 256), -1, np.int32))
        images.append(image)
    row = round(128 + 300 * 1.3 / 4)
    assert images[1][row, 128].sum() < 0.85 * images[0][row, 128].sum()
    assert np.allclose(images[0][-1, 0], images[1][-1, 0], rtol=0.05)


def test_photographs() -> None:
    image = np.random.default_rng(0).random((256, 256, 3)).astype(np.float32)
    frame = np.float32([10, 20, 200, 230])
    for seed in range(20):
        out = photograph(np.random.default_rng(seed), image.copy(), frame, 0.3 * (seed % 2))
        assert (
            out.shape == image.shape
            and not out[:20].any()
            and not out[:, 200:].any()
            and not out[:, :10].any()
        )
        assert out[20:230, 10:200].mean() > 20
    dim = photograph(np.random.default_rng(3), 0.1 * image, np.float32([0, 0, 256, 256]))
    lit_ = photograph(np.random.default_rng(3), image, np.float32([0, 0, 256, 256]))
    assert abs(float(dim.mean()) - float(lit_.mean())) < 12  # the camera exposes for the scene


def test_the_keypoint_stream_hides_about_as_much_as_the_images() -> None:
    people = SyntheticPeople(3, PoseBank.load("train"), population_body())
    main = [
        JOINTS30.index(name)
        for name in ("Neck", "L_Hip", "R_Knee", "L_Ankle", "L_Elbow", "R_Wrist", "L_Shoulder")
    ]
    rendered, guessed = people.batch(0, 60), people.keypoints_only(np.random.default_rng(0), 3000)
    shares = []
    for batch in (rendered, guessed):
        inside_ = ((batch["joints2d"] >= 0) & (batch["joints2d"] <= 255)).all(-1)[:, main]
        shares.append(1 - batch["joint_visible"][:, main][inside_].mean())
    assert abs(shares[0] - shares[1]) < 0.1


def test_a_shaken_image_keeps_its_position() -> None:
    """A dot becomes a line of as much light about the same place: kernels lose their empty rows, not their middle."""
    dot = np.zeros((65, 65, 3), np.uint8)
    dot[32, 32] = 255
    for seed in range(60):
        line = motion_blur(np.random.default_rng(seed), dot)[..., 0].astype(float)
        assert line.sum() == pytest.approx(255, rel=0.05) and line.max() < 130
        rows, columns = np.nonzero(line)
        assert abs(rows.mean() - 32) <= 0.75 and abs(columns.mean() - 32) <= 0.75
