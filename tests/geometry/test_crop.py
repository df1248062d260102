"""The crop: its two maps are inverse, the resampled image agrees with them, and shrinking averages."""

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.geometry.crop import Crop


def test_maps_are_inverse() -> None:
    crop = Crop.around(np.array([10.0, 20.0, 110.0, 420.0]), 1.25)
    points = np.random.default_rng(0).uniform(-500, 900, (7, 3, 2))
    np.testing.assert_allclose(crop.to_image(crop.to_crop(points)), points, atol=1e-9)
    assert crop.to_crop(points.astype(np.float32)).dtype == np.float32


def test_around_is_the_square_with_the_same_middle() -> None:
    crop = Crop.around(np.array([10.0, 20.0, 110.0, 420.0]), 1.5)
    assert (crop.x1 + crop.side / 2, crop.y1 + crop.side / 2, crop.side) == (60, 220, 600)
    np.testing.assert_allclose(crop.to_crop(np.array([60.0, 220.0])), [128, 128])
    np.testing.assert_allclose(crop.to_crop(np.array([crop.x1 + crop.side, crop.y1])), [256, 0])


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 9], [5, 5, 9, 5], [9, 5, 5, 9], [0, 0, np.nan, 9], [0, 0, np.inf, 9]]
)
def test_degenerate_box_is_refused(box: list[float]) -> None:
    with pytest.raises(InputError, match="box"):
        Crop.around(np.array(box, float))


@pytest.mark.parametrize("side", [128.0, 256.0, 700.0, 3000.0])
def test_the_crop_agrees_with_the_maps(side: float) -> None:
    """A soft spot in the image has its centre of mass where `to_crop` puts it, at every scale."""
    crop = Crop(150.3 - side / 10, 40.7 - side / 10, side)
    spot = crop.to_image(np.array([90.0, 140.0]))
    height, width = int(spot[1] + side / 3), int(spot[0] + side / 3)
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-(((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * (side / 40) ** 2)))
    window = crop.warp(np.repeat((blob * 255).astype(np.uint8)[..., None], 3, axis=2))[..., 0].astype(float)
    v, u = np.mgrid[:256, :256]
    centre = [(window * u).sum() / window.sum(), (window * v).sum() / window.sum()]
    np.testing.assert_allclose(centre, [90, 140], atol=0.1)


def test_identity_window_copies_the_image() -> None:
    image = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    np.testing.assert_array_equal(Crop(0.0, 0.0, 256.0).warp(image), image)


def test_outside_is_black_and_shrinking_averages() -> None:
    checks = np.indices((1024, 1024)).sum(0) % 2 * 255
    window = Crop(-512.0, 0.0, 2048.0).warp(np.repeat(checks.astype(np.uint8)[..., None], 3, axis=2))
    assert (window[:, :60] == 0).all()
    assert (window[132:] == 0).all()
    assert (
        np.abs(window[5:120, 70:185].astype(int) - 127).max() <= 3
    )  # a plain bilinear warp would show 0 or 255


def test_what_leans_by_the_roll_is_upright_in_the_crop() -> None:
    crop = Crop(30.0, 20.0, 160.0, roll=35.0)
    points = np.random.default_rng(0).uniform(-500, 900, (7, 3, 2))
    np.testing.assert_allclose(crop.to_image(crop.to_crop(points)), points, atol=1e-9)
    middle, above = crop.to_image(np.array([[128.0, 128.0], [128.0, 28.0]]))
    np.testing.assert_allclose(middle, [110, 100])
    up = (above - middle) * crop.scale / 100
    np.testing.assert_allclose(up, [np.sin(np.deg2rad(35)), -np.cos(np.deg2rad(35))], atol=1e-12)
    image = np.zeros((200, 200, 3), np.uint8)
    x, y = np.rint(crop.to_image(np.array([60.0, 90.0]))).astype(int)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    row, column = np.unravel_index(crop.warp(image)[..., 0].argmax(), (256, 256))
    assert abs(row - 90) <= 3 and abs(column - 60) <= 3
    assert Crop.around(np.array([0.0, 0, 9, 9]), 1.2, 35.0).roll == 35.0
