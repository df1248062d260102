"""The crop rule against its description, step by step."""

import numpy as np
import pytest

from dpmesh.evaluate.protocol import BOX_FALLBACK, IMAGE_FALLBACK, CropRule
from dpmesh.evaluate.sources import pixels
from dpmesh.geometry.crop import Crop

RULE, SIZE = CropRule(), (240, 320)
NOWHERE = np.array([0.0, 0.0, 0.0, 0.0])


def around(
    points: list[tuple[float, float]], annotated: np.ndarray = NOWHERE, rule: CropRule = RULE
) -> tuple[Crop, str]:
    array = np.array(points, float).reshape(-1, 2)
    return rule.window(array, np.ones(len(array), bool), annotated, SIZE)


def test_the_published_numbers():
    """x 100..200, y 50..200: 1.2 times is 90..210 and 35..215; less one pixel 119 and 179; square 179 × 1.1."""
    crop, fallback = around([(100, 50), (200, 200), (150, 60)])
    assert not fallback
    assert crop.side == pytest.approx(179 * 1.1)
    assert crop.x1 + crop.side / 2 == pytest.approx(90 + 119 / 2)
    assert crop.y1 + crop.side / 2 == pytest.approx(35 + 179 / 2)


def test_a_box_that_begins_outside_is_shifted_not_cut():
    """x -20..80 → -30..90: the far corner is measured from the clamped near one, 0 + 119."""
    crop, _ = around([(-20, 100), (80, 120)])
    assert crop.side == pytest.approx(119 * 1.1) and crop.x1 + crop.side / 2 == pytest.approx(119 / 2)


def test_the_far_corner_stops_at_the_last_pixel():
    crop, _ = around([(280, 100), (340, 110)])  # 274..346 → 274..319
    assert crop.side == pytest.approx(45 * 1.1) and crop.x1 + crop.side / 2 == pytest.approx((274 + 319) / 2)


def test_without_a_usable_box_the_annotated_one_is_used_and_reported():
    box = np.array([100.0, 60.0, 181.0, 221.0])
    for points in ([], [(50, 50)], [(400, 10), (500, 20)], [(60, 60), (60, 60)]):
        crop, fallback = around(points, box)
        assert fallback == BOX_FALLBACK and crop.side == pytest.approx(160 * 1.1)
        assert (crop.x1 + crop.side / 2, crop.y1 + crop.side / 2) == pytest.approx((140, 140))


def test_as_run_takes_corners_for_width_and_height():
    box = np.array([10.0, 20.0, 101.0, 121.0])
    rule = CropRule(fallback="annotated corners taken for x y w h")
    assert around([], box, rule)[0].side == pytest.approx(120 * 1.1)
    assert around([], box)[0].side == pytest.approx(100 * 1.1)


def test_every_person_gets_a_window():
    for box in (NOWHERE, np.array([900.0, 900.0, 950.0, 950.0]), np.array([np.nan, 0, 1, 1])):
        crop, fallback = around([], box)
        assert fallback == IMAGE_FALLBACK and crop.side == pytest.approx(319 * 1.1)


def test_unobserved_points_do_not_matter():
    observed = np.array([True, True, False])
    points = np.array([(100.0, 50.0), (200.0, 200.0), (0.0, 0.0)])
    crop, _ = RULE.window(points, observed, NOWHERE, SIZE)
    assert crop == around([(100, 50), (200, 200)])[0]


def test_pixels_match_the_crops_transform():
    image = np.zeros((240, 320, 3), np.uint8)
    image[90:110, 190:210] = (255, 0, 0)
    crop = Crop(100.0, 40.0, 128.0)
    out = pixels(crop, image)
    ys, xs = np.nonzero(out[..., 0] > 127)
    middle = crop.to_crop(np.array([199.5, 99.5]))
    assert (xs.mean(), ys.mean()) == pytest.approx(tuple(middle), abs=0.51)
    assert pixels(Crop(-500.0, -500.0, 100.0), image).max() == 0
