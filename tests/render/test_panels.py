"""Panels of a figure: regions of an image, keypoints, side views and lines of text."""

import numpy as np

from dpmesh.geometry.camera import project
from dpmesh.render import side
from dpmesh.render.overlay import Layer, draw_side, palette
from dpmesh.render.panels import Region, draw_keypoints, write_lines
from dpmesh.skeletons import JOINTS30


def test_drawing_is_the_image_enlarged() -> None:
    K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    region = Region.of((480, 640), 600, np.array([100.2, -50, 300, 220]))
    assert (region.left, region.top, region.width, region.height) == (100, 0, 200, 220)
    points = np.array([[0.3, -0.2, 3.0], [-0.4, 0.1, 2.0]])
    np.testing.assert_allclose(
        project(points, region.camera(K)), region.points(project(points, K)), atol=1e-9
    )
    image = np.zeros((480, 640, 3), np.uint8)
    image[50:60, 150:160] = 255
    drawn = region.cut(image)
    assert drawn.shape[:2] == region.size
    y, x = (float(v.mean()) for v in np.nonzero(drawn[..., 0] > 128))
    np.testing.assert_allclose([x, y], region.points(np.array([154.5, 54.5])), atol=0.6)


def test_only_observed_joints_are_drawn() -> None:
    points = np.stack([np.linspace(20, 280, 30), np.full(30, 150.0)], 1)
    points[JOINTS30.index("L_Wrist")] = np.nan  # where it is does not matter
    sure = np.zeros(30)
    canvas = np.full((300, 300, 3), 128, np.uint8)
    draw_keypoints(canvas, points, sure, (1.0, 0.0, 0.0))
    assert (canvas == 128).all()
    for name, confidence in (("Nose", 0.3), ("L_Hip", 1.0)):
        sure[JOINTS30.index(name)] = confidence
    draw_keypoints(canvas, points, sure, (1.0, 0.0, 0.0))
    changed = (canvas != 128).any(-1)
    faint, strong = (
        changed[:, round(points[JOINTS30.index(n), 0]) + np.arange(-6, 7)] for n in ("Nose", "L_Hip")
    )
    assert (
        0 < faint.sum() < strong.sum() and changed.sum() == faint.sum() + strong.sum()
    )  # no limb between them


def test_side_views_share_one_camera() -> None:
    triangle = np.array([[0, 0, 4], [0.4, 0, 4], [0, 0.9, 4.3]], np.float32)
    far = np.concatenate([triangle, triangle + np.float32([0, 0, 5])])
    faces, colour = np.array([[0, 1, 2]]), palette(1)[0]
    alone, framed = (draw_side([Layer(triangle, colour)], faces, around) for around in (None, far))
    again = draw_side([Layer(triangle, colour)], faces, far)
    assert (framed == again).all() and (alone != framed).any()


def test_each_side_view_has_its_own_floor() -> None:
    """A column whose body is too low does not lift the bodies of another off their floor."""
    body = np.array([[-0.3, -0.9, 4], [0.3, -0.9, 4.2], [0, 0.9, 4], [0.2, 0.9, 4.3]], np.float32)
    below = body + np.float32([0, 2, 3])
    faces, colour = np.array([[0, 1, 2], [1, 3, 2]]), palette(1)[0]
    around = np.concatenate([body, below])
    camera = side.side_camera(around.astype(np.float64))

    def darkened(vertices: np.ndarray, floor: float) -> np.ndarray:
        """Where a shadow on this floor is, in the camera of both."""
        canvas = side.backdrop().copy()
        side.draw_shadow(canvas, vertices, faces, floor, *camera)
        return (side.backdrop() - canvas).mean(-1) > 0.03

    drawn = draw_side([Layer(body, colour)], faces, around) / 255.0
    dark = (side.backdrop() - drawn).mean(-1) > 0.02
    own, others = darkened(body, 0.9), darkened(body, 2.9)
    assert own.sum() > 100 and others.sum() > 100
    assert dark[own].mean() > 0.95 and dark[others].mean() < 0.3


def test_long_words_are_broken() -> None:
    canvas = np.full((400, 100, 3), 255, np.uint8)
    below = write_lines(
        canvas, [("a_very_long_name_without_a_single_space_in_it", 12.0, False)], (0.0, 0.0), 100.0
    )
    assert 3 * 12 < below < 100 and (canvas[: int(below)] < 255).any()
