"""The baselines predict as a model does, use only their own inputs, and have results of their own."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from dpmesh.cli import eval as command
from dpmesh.cli.main import main
from dpmesh.errors import ConfigError
from dpmesh.evaluate.baselines import METHODS, OF_CLIPS, KeypointFit, Method, method_of
from dpmesh.evaluate.report import read
from dpmesh.inference.flip_test import FlipTest
from dpmesh.inference.predictor import MeshModel
from dpmesh.inference.refine import Refiner
from dpmesh.inference.smplify import FIT
from dpmesh.model import DPMesh
from dpmesh.skeletons import COCO17, JOINTS30
from dpmesh.types import Inputs


@pytest.fixture(scope="module")
def model() -> DPMesh:
    return DPMesh.from_pretrained("embedded")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    torch.manual_seed(0)
    visible = torch.zeros(2, 30)
    visible[:, [i for i in COCO17.indices_in(JOINTS30) if i >= 0]] = 1
    return Inputs(
        torch.rand(2, 3, 256, 256), torch.rand(2, 30, 2) * 160 + 48, visible, torch.tensor([500.0, 900.0])
    )


def test_the_t_pose_faces_the_camera(model: DPMesh, inputs: Inputs) -> None:
    prediction = method_of("t-pose", model)(inputs)
    joints = prediction.joints3d - prediction.transl[:, None]
    x, y = (joints[0, JOINTS30.index(name)] for name in ("L_Wrist", "Head_top"))
    assert x[0] > 0.5 and y[1] < -0.3  # its left on the image's right, its head up
    assert (joints[0] - joints[1]).abs().max() < 1e-5
    assert joints[0, JOINTS30.index("Nose"), 2] < joints[0, JOINTS30.index("L_Ear"), 2]
    assert (prediction.joints3d[..., 2] > 1).all()  # before the camera, and about as large as the crop
    assert 180 < np.ptp(prediction.joints2d[0, :, 1].numpy()) < 256 and prediction.joints2d.min() > 0


def test_only_the_lifter_and_the_blank_image_ignore_the_crop(model: DPMesh, inputs: Inputs) -> None:
    other = Inputs(inputs.crop.flip(-1), inputs.joints, inputs.visible, inputs.focal)
    for name in ("lifter", "blank", "network", "refine", "flip"):
        method = method_of(name, model)
        assert isinstance(method, MeshModel)
        with torch.inference_mode():
            same = torch.equal(method(inputs).vertices, method(other).vertices)
        assert same == (name in ("lifter", "blank"))
    with torch.inference_mode():
        prediction = model.decode_parameters(model.regress(None, inputs.joints, inputs.visible), inputs.focal)
        lifted = method_of("lifter", model)(inputs)
        assert torch.equal(lifted.body_rotations, prediction.rotations[:, 1:])
        refined = Refiner(model.body)(FlipTest(model)(inputs), inputs)
        assert torch.equal(refined.vertices, method_of("refine", model)(inputs).vertices)


def test_fitting_receives_the_visible_keypoints(
    model: DPMesh, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = Inputs(inputs.crop, inputs.joints, inputs.visible * (torch.rand(2, 30) < 0.6), inputs.focal)
    received: list[tuple[torch.Tensor, ...]] = []
    method = method_of("fit", model)
    assert isinstance(method, KeypointFit)
    plain = method.fitter.fit

    def quick(*words: torch.Tensor):
        received.append(words)
        return plain(*words, replace(FIT, steps=1))

    monkeypatch.setattr(method.fitter, "fit", quick)
    with torch.inference_mode():
        prediction = method(partial)
    assert torch.isfinite(prediction.vertices).all() and prediction.vertices.shape == (2, 6904, 3)
    given = (partial.joints, partial.visible, partial.focal)
    assert all(a is b for a, b in zip(received[0], given, strict=True))


def test_a_model_without_lifter_has_no_such_method(model: DPMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.regressor, "lifter", None)
    with pytest.raises(ConfigError, match=r"has no lifter.*Measure another method"):
        method_of("lifter", model)


def test_every_method_is_described() -> None:
    assert set(METHODS) == set(get_args(Method))
    assert {*command.METHODS, *OF_CLIPS} == set(
        METHODS
    )  # repeated there so that --help imports nothing heavy


def test_a_method_has_a_result_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "eval",
        "run",
        "synthocc",
        "--out",
        str(tmp_path),
        "--people",
        "2",
        "--data",
        str(tmp_path / "cache"),
    ]
    for method, name in (("t-pose", "t-pose"), ("lifter", "embedded: lifter")):
        assert main([*words, "--method", method]) == 0
        record = read(tmp_path / f"synthocc+{method}")
        assert record["weights"]["name"] == name and record["persons"]["partial"]
        assert record["persons"]["evaluated"] == 2 and record["figures"]["mean"]["MPJPE"]["mean"] > 50
    assert main(["eval", "table", str(tmp_path / "synthocc+lifter"), str(tmp_path / "synthocc+t-pose")]) == 0
    assert "embedded: lifter" in capsys.readouterr().out
