"""Colours by how sure: the surface takes those of the joints beside it, the legend stays in its corner."""

import numpy as np
import pytest

from dpmesh.geometry.camera import intrinsics
from dpmesh.render.overlay import Layer, draw_overlay, draw_side
from dpmesh.render.sigma import UNSURE, draw_legend, sigma_colours, surface_sigma


def test_a_vertex_at_a_joint_has_its_sigma_and_between_two_their_mean() -> None:
    joints = np.zeros((30, 3))
    joints[:, 0] = np.arange(30) * 10.0
    sigma = np.linspace(0.01, 0.3, 30)
    found = surface_sigma(np.array([[40.0, 0, 0], [45, 0, 0], [41, 0.0, 0]]), joints, sigma)
    assert found[0] == pytest.approx(sigma[4], abs=1e-6)
    assert found[1] == pytest.approx((sigma[4] + sigma[5]) / 2, rel=1e-3)
    assert found[0] < found[2] < found[1]
    np.testing.assert_allclose(
        surface_sigma(np.random.default_rng(0).normal(size=(9, 3)), joints, sigma * 0 + 0.1), 0.1
    )


def test_colours_go_from_dark_blue_to_yellow_and_no_further() -> None:
    sure, middle, unsure, beyond = sigma_colours(np.array([0, UNSURE / 2, UNSURE, 5.0]))
    assert sure[2] > sure[1] and unsure[0] > 0.9 and unsure[1] > 0.8 and unsure[2] < 0.3
    np.testing.assert_array_equal(unsure, beyond)
    luminance = [float(np.dot(c, [0.2, 0.7, 0.1])) for c in (sure, middle, unsure)]
    assert luminance == sorted(luminance)
    assert sigma_colours(np.zeros((2, 3))).shape == (2, 3, 3)


def test_each_vertex_has_its_colour_in_both_pictures() -> None:
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
    picture = draw_overlay(image, [Layer(vertices, (0.0, 1.0, 0.0), colours)], faces, K).astype(int)
    left, right = picture[100, 60], picture[100, 140]
    assert left[0] > left[2] + 80 and right[2] > right[0] + 80
    turned = draw_side([Layer(vertices, (0.0, 1.0, 0.0), colours)], faces)
    green = draw_side([Layer(vertices, (0.0, 1.0, 0.0))], faces)
    assert (turned != green).any()


@pytest.mark.parametrize("size", [(300, 400), (1200, 1600), (1600, 700)])
def test_the_legend_lies_in_the_lower_left_corner(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 200, np.uint8)
    drawn = draw_legend(picture)
    rows, columns = np.nonzero((drawn != picture).any(-1))
    assert rows.min() > size[0] * 0.6 and columns.max() < size[1] * 0.75
    assert (picture == 200).all()  # a copy
    assert (
        np.abs(drawn.astype(int) - np.rint(255 * sigma_colours(np.zeros(1))[0])).max(-1) <= 3
    ).any()  # its first colour


def test_a_tiny_picture_has_no_room_for_it() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    np.testing.assert_array_equal(draw_legend(picture), picture)
