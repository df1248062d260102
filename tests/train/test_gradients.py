"""benchmarks/accuracy/gradients.py separates signal from noise, and measures a real stage's terms."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.accuracy.gradients import Moments, figures, measure
from dpmesh.errors import ConfigError
from dpmesh.losses import TERMS, LossWeights
from dpmesh.train.config_file import read_settings

ROOT = Path(__file__).parents[2]


def test_signal_and_noise_that_are_known():
    """Two terms in two matrices: one the same in every batch, one a third signal and, in one matrix, alone."""
    draw = torch.Generator().manual_seed(0)
    matrices = [torch.empty(60, 50), torch.empty(40, 50)]
    steady, noisy = Moments(matrices), Moments(matrices)
    always = [torch.randn(m.shape, generator=draw) for m in matrices]
    for _ in range(8):
        steady.add([always[0], torch.zeros(40, 50)])
        noisy.add([a + 2**0.5 * torch.randn(a.shape, generator=draw) for a in always])
    result = figures({"steady": steady, "noisy": noisy})
    assert result["steady"]["signal"] == pytest.approx(1, abs=1e-4)
    assert result["noisy"]["signal"] == pytest.approx(1 / 3, abs=0.02)
    assert result["steady"]["share"] == pytest.approx((1 / 4 + 0) / 2, abs=0.01)
    assert result["noisy"]["share"] == pytest.approx((3 / 4 + 1) / 2, abs=0.01)


@pytest.mark.slow
def test_a_stage():
    settings = read_settings(
        ROOT / "configs/embedded_more.toml", {"workers": 0, "precision": "32-true", "images.batch": 2}
    )
    result = measure(settings, 2)
    assert result["people"] == 4 and result["matrices"] > 200
    terms = result["terms"]
    weights = LossWeights()
    # The uncertainty head's gradients stop at its inputs.
    wanted = {name for name in TERMS if getattr(weights, name)} - {"uncertainty", "nkr_contrast", "nkr_mse"}
    assert set(terms) == wanted
    assert sum(one["share"] for one in terms.values()) == pytest.approx(1, abs=0.01)
    assert all(one["share"] > 0 for one in terms.values())
    other = measure(replace(settings, losses=replace(weights, read_cells=2.0, joints3d=0.0)), 2)["terms"]
    assert set(other) == wanted - {"joints3d"}  # a term counts times its factor
    assert other["read_cells"]["share"] > 10 * terms["read_cells"]["share"]


def test_a_stage_without_images_is_refused():
    settings = read_settings(ROOT / "configs/embedded.toml", {"workers": 0})
    keypoints = [stage for stage in settings.stages if stage.kind == "keypoints"]
    assert keypoints
    with pytest.raises(ConfigError, match="nothing of the backbone"):
        measure(replace(settings, stages=(keypoints[0],)), 2)
