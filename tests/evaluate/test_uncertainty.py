"""benchmarks/accuracy/uncertainty.py on a few persons, and its figures for known errors and sigmas."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import uncertainty as bench
from dpmesh.config import EMBEDDED
from dpmesh.model import DPMesh


def test_figures_of_known_numbers():
    rng = np.random.default_rng(0)
    sigma = np.exp(rng.normal(-2.5, 0.6, (400, 30)))
    sigma[:, 0] = 0
    lengths = (
        np.linalg.norm(rng.standard_normal((400, 30, 3)), axis=-1) * sigma
    )  # normal, where the model assumes Student's t
    result = bench.figures(lengths, sigma, {0.15: [0.1, 0.2, -0.1, 0.4], 0.3: [1.0]})
    assert 0.5 < result["rank"]["all"] < 0.95 and abs(result["rank"]["by_the_joint_alone"]) < 0.2
    assert result["calibration"]["error_over_sigma_rms"] == pytest.approx(1, abs=0.03)
    assert 0.02 < result["calibration"]["expected_calibration_error"] < 0.15  # it sees the other shape
    assert [(one["persons"], one["rises"]) for one in result["hiding"]] == [(4, 0.75), (1, 1.0)]
    assert result["hiding"][1]["median_factor"] == pytest.approx(np.e)
    assert len(result["joints"]) == 29 and result["joints"][0]["joint"] == "L_Hip"
    assert bench.figures(lengths, 1 / np.maximum(sigma, 1e-9), {0.3: [1.0]})["rank"]["all"] < -0.5


def test_a_few_persons_of_synthocc(tmp_path: Path):
    torch.manual_seed(0)
    model = DPMesh(EMBEDDED)
    assert model.regressor.uncertainty is not None
    torch.nn.init.normal_(model.regressor.uncertainty.out, std=0.05)
    model.save_pretrained(tmp_path / "w", {})
    words = [
        "--weights",
        tmp_path / "w",
        "--data",
        tmp_path / "cache",
        "--people",
        6,
        "--json",
        tmp_path / "r.json",
    ]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy.uncertainty", *map(str, words)],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["persons"] == 6 and report["targets"] == {"rank": 0.5, "hiding": 0.9}
    assert 0 < report["calibration"]["expected_calibration_error"] < 1
    assert all(0 < one["persons"] <= 6 and 0 <= one["rises"] <= 1 for one in report["hiding"])
