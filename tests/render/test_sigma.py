"""Colours by sigma: the surface takes those of the joints near it, the legend is outside the image."""

import numpy as np
import pytest

from dpmesh.geometry.camera import intrinsics
from dpmesh.render.overlay import Layer, draw_overlay, draw_side
from dpmesh.render.sigma import UNSURE, add_legend, sigma_colours, surface_sigma


def test_a_vertex_at_a_joint_has_its_sigma_and_between_two_their_mean() -> None:
    joints = np.zeros((30, 3))
    joints[:, 0] = np.arange(30) * 10.0
    sigma = np.linspace(0.01, 0.3, 30)
    values = surface_sigma(np.array([[40.0, 0, 0], [45, 0, 0], [41, 0.0, 0]]), joints, sigma)
    assert values[0] == pytest.approx(sigma[4], abs=1e-6)
    assert values[1] == pytest.approx((sigma[4] + sigma[5]) / 2, rel=1e-3)
    assert values[0] < values[2] < values[1]
    np.testing.assert_allclose(
        surface_sigma(np.random.default_rng(0).normal(size=(9, 3)), joints, sigma * 0 + 0.1), 0.1
    )


def test_colours_go_from_dark_blue_to_yellow_and_saturate() -> None:
    sure, middle, unsure, beyond = sigma_colours(np.array([0, UNSURE / 2, UNSURE, 5.0]))
    assert sure[2] > sure[1] and unsure[0] > 0.9 and unsure[1] > 0.8 and unsure[2] < 0.3
    np.testing.assert_array_equal(unsure, beyond)
    luminance = [float(np.dot(c, [0.2, 0.7, 0.1])) for c in (sure, middle, unsure)]
    assert luminance == sorted(luminance)
    assert sigma_colours(np.zeros((2, 3))).shape == (2, 3, 3)


def test_each_vertex_has_its_colour_in_both_images() -> None:
    """A square, turned a little, whose left half is red, whose right half is blue."""
    corners = np.array(
        [(-1, -1, 3.5), (0, -1, 4), (1, -1, 4.5), (-1, 1, 3.5), (0, 1, 4), (1, 1, 4.5)], np.float32
    )
    vertices = np.concatenate([corners, corners[[1, 4]]])
    faces = np.array([(0, 1, 3), (1, 4, 3), (6, 2, 7), (2, 5, 7)])
    red, blue = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)
    colours = np.array([red, red, blue, red, red, blue, blue, blue], np.float32)
    image = np.full((200, 200, 3), 90, np.uint8)
    K = intrinsics(300.0, (200, 200))
    overlay = draw_overlay(image, [Layer(vertices, (0.0, 1.0, 0.0), colours)], faces, K, 0.93).astype(int)
    left, right = overlay[100, 60], overlay[100, 140]
    assert left[0] > left[2] + 80 and right[2] > right[0] + 80
    turned = draw_side([Layer(vertices, (0.0, 1.0, 0.0), colours)], faces)
    green = draw_side([Layer(vertices, (0.0, 1.0, 0.0))], faces)
    assert (turned != green).any()


@pytest.mark.parametrize("size", [(120, 90), (300, 400), (1200, 1600), (1600, 700)])
def test_the_legend_is_outside_the_image(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    drawn = add_legend(image)
    assert drawn.shape[0] == size[0] and drawn.shape[1] > size[1]
    np.testing.assert_array_equal(drawn[:, : size[1]], image)
    strip = drawn[:, size[1] :].astype(int)
    rows = [np.flatnonzero((np.abs(strip - c).max(-1) <= 2).any(1)) for c in (LAST, MIDDLE, FIRST)]
    assert all(len(row) for row in rows)  # from large at the top to 0 at the bottom, inside the strip
    assert rows[0].min() < rows[1].min() < rows[2].min() and rows[2].max() < size[0] - 1


def test_a_low_image_has_no_room_for_it() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    np.testing.assert_array_equal(add_legend(image), image)


FIRST, MIDDLE, LAST = np.rint(255 * sigma_colours(np.array([0, UNSURE / 2, UNSURE]))).astype(int)
