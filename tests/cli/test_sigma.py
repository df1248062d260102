"""`dpmesh predict --colour sigma` with weights that predict their error, and without."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.cli.main import main
from dpmesh.config import EMBEDDED
from dpmesh.model import DPMesh

PHOTO = Path(__file__).parents[2] / "examples" / "two_people.jpg"


def predict(*words: object) -> int:
    return main(["predict", str(PHOTO), "--fast", *map(str, words)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of a random model with the head, and without."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = DPMesh(EMBEDDED)
    assert model.regressor.uncertainty is not None
    torch.nn.init.normal_(model.regressor.uncertainty.out, std=0.05)
    model.save_pretrained(folder / "with", {})
    DPMesh(replace(EMBEDDED, regressor=replace(EMBEDDED.regressor, uncertainty=0))).save_pretrained(
        folder / "without", {}
    )
    return folder / "with", folder / "without"


def test_coloured_by_sigma(weights: tuple[Path, Path], tmp_path: Path) -> None:
    assert predict("--weights", weights[0], "--out", tmp_path / "a", "--colour", "sigma") == 0
    folder = tmp_path / "a" / "two_people"
    with np.load(folder / "scene.npz", allow_pickle=False) as file:
        sigma = file["joint_sigma"]
    assert sigma.shape == (2, 30) and (sigma[:, 0] == 0).all() and (sigma[:, 1:] > 0).all()
    people = json.loads((folder / "scene.json").read_text())["people"]
    np.testing.assert_allclose([p["joint_sigma"] for p in people], sigma, atol=1e-6)
    assert predict("--weights", weights[0], "--out", tmp_path / "b", "--save", "overlay,npz") == 0
    with np.load(tmp_path / "b" / "two_people" / "scene.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["joint_sigma"], sigma)
    one, other = ((tmp_path / name / "two_people" / "overlay.png").read_bytes() for name in "ab")
    assert one != other


def test_without_a_sigma_one_line_is_printed(
    weights: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("--weights", weights[1], "--out", tmp_path / "o", "--colour", "sigma") == 1
    error = capsys.readouterr().err
    assert "do not predict their error" in error and len(error.splitlines()) == 1
    assert not list(tmp_path.glob("o/*"))
    assert predict("--weights", weights[1], "--out", tmp_path / "o", "--save", "npz,json") == 0
    folder = tmp_path / "o" / "two_people"
    with np.load(folder / "scene.npz", allow_pickle=False) as file:
        assert np.isnan(file["joint_sigma"]).all() and file["joint_sigma"].shape == (2, 30)
    assert all(p["joint_sigma"] is None for p in json.loads((folder / "scene.json").read_text())["people"])
