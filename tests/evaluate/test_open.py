"""The register is open: a set made in memory, without files and without SMPL, is one more entry (SynthOcc will be)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.evaluate import registry as opening
from dpmesh.evaluate.evaluation import EvaluationConfig
from dpmesh.evaluate.interfaces import Census, EvaluationSource, Persons
from dpmesh.evaluate.protocol import KeypointRule, Protocol, Selection, Truth
from dpmesh.evaluate.report import read
from dpmesh.evaluate.runner import run_evaluation
from dpmesh.geometry.rotations import rotation_matrix

TOY = Protocol(
    name="toy",
    title="Toy",
    persons=3,
    selection=Selection(dataset="toy"),
    keypoints=KeypointRule(source="annotated"),
    truth=Truth(gender="neutral"),
)


class Toy:
    """Three people of the free body on grey."""

    census = Census(3, 3, "made in memory")

    def __init__(self) -> None:
        body = BodyModel(free_body())
        self.faces = body.faces.numpy()
        pose = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (3, 24, 3))).float()
        pose[:, 0] = torch.tensor([np.pi, 0, 0])
        out = body(torch.zeros(3, 10), rotation_matrix(pose))
        self.vertices = out.vertices.numpy()
        self.joints = body.regress(out.vertices, "h36m17").double().numpy()
        self.joints30 = out.joints30.numpy()

    def __len__(self) -> int:
        return 3

    def persons(self, indices: Sequence[int]) -> Persons:
        at = list(indices)
        n, focal = len(at), np.full(len(at), 400.0, np.float32)
        places = self.joints30[at] + np.array([0, 0, 4], np.float32)
        return Persons(
            ids=tuple(f"toy/{i}" for i in at), sequences=("toy",) * n, crops=np.full((n, 256, 256, 3), 90, np.uint8),
            joints=(places[..., :2] / places[..., 2:] * 400 + 128).astype(np.float32),
            visible=np.ones((n, 30), np.float32), focal_crop=focal, focal_image=focal,
            turn=np.tile(np.eye(3), (n, 1, 1)),
            truth_joints=self.joints[at], measured=np.ones((n, 17)), truth_vertices=self.vertices[at],
            truth_pelvis=self.joints30[at, 0].astype(np.float64), joint_visible=np.ones((n, 17)),
        )  # fmt: skip


def test_a_set_without_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DPMESH_ASSETS", str(tmp_path / "none"))
    there = opening.register() | {"toy": opening.Entry(TOY, lambda protocol, data: Toy(), needs_data=False)}
    monkeypatch.setattr(opening, "register", lambda: there)
    assert isinstance(Toy(), EvaluationSource)
    path = run_evaluation(EvaluationConfig(protocol="toy", out=tmp_path), say=lambda _: None)
    assert path is not None
    record = read(path)
    assert record["protocol"]["hash"] == TOY.hash and record["persons"]["difference"] == 0
    means = {name: m["mean"] for name, m in record["figures"]["mean"].items()}
    assert (
        0 < means["PA-MPJPE"] < means["MPJPE"] < 400 and 0 < means["MPVE"] < 400
    )  # one mesh: it has an MPVE
    assert record["fallbacks"] == {} and len(list((path.parent / "worst").iterdir())) == 3
    with pytest.raises(InputError, match="needs its data set"):
        opening.open_source("3dpw", None)
