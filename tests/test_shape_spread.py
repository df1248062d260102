"""The measures of shapes, and the figures that compare them."""

import numpy as np

from benchmarks.accuracy.shape_spread import compared, measures
from dpmesh.body.files import population_body


def test_stature_and_waist_follow_the_mesh():
    body = population_body()
    betas = np.zeros((3, 10))
    betas[1, 0], betas[2, 3] = 2.0, 2.0  # taller; more girth
    found = measures(body, betas)
    assert np.isclose(found["stature"][0], 1000 * np.ptp(body.v_template[:, 1]), atol=0.1)
    assert found["stature"][1] - found["stature"][0] > 50
    mean, _, heavy = found["waist"]
    assert 700 < mean < 1000 and heavy > 1.1 * mean


def test_pulling_to_the_mean_shows():
    true = np.random.default_rng(0).normal(900, 100, 500)
    exact = compared(true, true, ("heavy", "thin"))
    assert np.isclose(exact["slope"], 1) and np.isclose(exact["spread"], 1) and exact["error"] == 0
    pulled = compared(900 + 0.2 * (true - 900), true, ("heavy", "thin"))
    assert (
        np.isclose(pulled["r"], 1) and np.isclose(pulled["slope"], 0.2) and np.isclose(pulled["spread"], 0.2)
    )
    assert pulled["heavy"] < -100 and pulled["thin"] > 100
