"""The sets in miniature (tools/fixtures/evaluation_twin.py), and a model with predictions chosen by the test."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_people import SMALL, Crowd, people

from dpmesh.assets import FOLDER_VARIABLE
from dpmesh.body.files import load_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.pack import pack
from dpmesh.evaluate import report
from dpmesh.evaluate.evaluation import Evaluation, EvaluationConfig
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.registry import entry, open_source, register
from dpmesh.evaluate.report import figures
from dpmesh.evaluate.results import Rows, save
from dpmesh.types import Inputs, Prediction
from tools.fixtures import evaluation_twin as tool


@dataclass
class Twin:
    """root: data and assets. truth: id -> (vertices, where the rest frame's origin is), camera frame, metres."""

    root: Path
    world: Any
    sequences: list[Any]
    truth: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    doh: dict[str, np.ndarray] = field(default_factory=dict)
    panoptic: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.root / "data"


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Twin:
    root = tmp_path_factory.mktemp("twin")
    world = tool.World(tool.smpl_files(root / "assets"))
    made = Twin(root, world, tool.make_sequences(world))
    tool.write_3dpw_official(made.data, made.sequences)
    tool.write_3dpw_images(made.data, world, made.sequences)
    tool.write_3dpw_json(made.data, world, made.sequences)
    made.doh = tool.write_3doh(made.data, world)
    made.panoptic = tool.write_panoptic(made.data, world)
    for s in made.sequences:
        for p, line in enumerate(s.persons):
            for f, m in enumerate(line):
                R, t = s.cam_poses[f, :3, :3], s.cam_poses[f, :3, 3]
                made.truth[f"{s.name}/{f:05d}/{p}"] = (s.vertices(p, f), R @ m.trans + t)
    return made


@pytest.fixture(autouse=True)
def assets(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own asset folder: the stand-ins."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(twin.root / "assets"))
    return twin.root / "assets"


@pytest.fixture
def official(twin: Twin, tmp_path: Path) -> Path:
    """A data root with 3DPW's official pickles only."""
    (tmp_path / "official" / "3DPW").mkdir(parents=True)
    for name in ("sequenceFiles", "imageFiles"):
        (tmp_path / "official" / "3DPW" / name).symlink_to(twin.data / "3DPW" / name)
    return tmp_path / "official"


class RecordingSource:
    """A source that keeps the last persons read: the model under test gets images only."""

    def __init__(self, source: Any) -> None:
        self.source, self.census, self.faces = source, source.census, source.faces
        self.last: Persons | None = None

    def __len__(self) -> int:
        return len(self.source)

    def persons(self, indices: Sequence[int]) -> Persons:
        self.last = self.source.persons(indices)
        return self.last


Predict = Callable[[str], tuple[np.ndarray, np.ndarray]]
"""id -> vertices and the rest frame's origin, camera frame, metres."""


class FixedModel:
    """A model whose prediction is `predict(id)`, rotated into the crop camera's frame as real models do."""

    def __init__(
        self, source: RecordingSource, predict: Predict, camera: str = "crop", body: Path | None = None
    ) -> None:
        assets = TOOL_ASSETS[0]
        self.arrays = load_body(
            body or assets / "smpl" / "SMPL_NEUTRAL.npz",
            h36m=assets / "regressors" / "J_regressor_h36m_correct.npy",
        )
        self.body = BodyModel(self.arrays)
        self.source, self.predict, self.camera, self.provenance = source, predict, camera, {}

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        persons = self.source.last
        assert persons is not None and len(persons.ids) == len(inputs.crop)
        meshes, origins = [], []
        for turn, name in zip(persons.turn, persons.ids, strict=True):
            back = turn.T if self.camera == "crop" else np.eye(3)
            vertices, origin = self.predict(name)
            meshes.append(vertices @ back.T)
            origins.append(back @ origin)
        vertices, transl = (torch.from_numpy(np.stack(rows)).float() for rows in (meshes, origins))
        n = len(vertices)
        rest = torch.eye(3).expand(n, 24, 3, 3)
        joints = self.body.regress(vertices, "joints30")
        return Prediction(
            root_6d=torch.zeros(n, 6), pose_latent=torch.zeros(n, 1), body_rotations=rest[:, 1:],
            betas=torch.zeros(n, 10), camera=torch.zeros(n, 3), joints_img=torch.zeros(n, 15, 3),
            global_orient=rest[:, 0], transl=transl, vertices=vertices, joints3d=joints,
            joints2d=joints[..., :2], focal=inputs.focal,
        )  # fmt: skip


TOOL_ASSETS: list[Path] = []


@pytest.fixture
def opened(twin: Twin, tmp_path: Path) -> Callable[..., Evaluation]:
    """opened(protocol, predict, data=..., camera=..., **config): an evaluation of a `FixedModel`."""
    TOOL_ASSETS[:] = [twin.root / "assets"]

    def make(
        name: str,
        predict: Predict,
        data: Path | None = None,
        camera: str = "crop",
        body: Path | None = None,
        **config: Any,
    ) -> Evaluation:
        source = RecordingSource(open_source(name, data or twin.data))
        settings = EvaluationConfig(protocol=name, out=tmp_path / "out", **config)
        model = FixedModel(source, predict, camera, body)
        record = {"name": "says", "sha256": "0" * 64, "provenance": {}, "body": "a twin", "notes": []}
        return Evaluation(settings, entry(name).protocol, source, model, record, torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., Rows]:
    """make_rows(values, sequences=8, mpve=True, joints=14): rows whose MPJPE are `values`, NaN for failures."""

    def build(values: np.ndarray, sequences: int = 8, mpve: bool = True, joints: int = 14) -> Rows:
        n = len(values)
        joint = np.repeat(values[:, None], joints, 1)
        return Rows(
            index=np.arange(n),
            ids=np.array([f"s{i % sequences:02d}/{i:05d}/0" for i in range(n)]),
            sequences=np.array([f"s{i % sequences:02d}" for i in range(n)]),
            mpjpe=values,
            pa_mpjpe=values / 2,
            mpve=values * 2 if mpve else np.full(n, np.nan),
            joint=joint,
            joint_pa=joint / 2,
            joint_visible=np.ones((n, joints)),
            failed=np.isnan(values),
        )

    return build


@pytest.fixture(scope="session")
def write_result() -> Callable[..., Path]:
    """write_result(folder, rows, name="3dpw", weights="w", partial=False): a result folder as a run writes it."""

    def write(
        folder: Path, rows: Rows, name: str = "3dpw", weights: str = "w", partial: bool = False
    ) -> Path:
        protocol = register()[name].protocol
        content = {
            "format": report.FORMAT,
            "protocol": {"name": name, "title": protocol.title, "hash": protocol.hash, "notes": list(protocol.notes),
                         "definition": protocol.definition()},
            "package": "0.1.0",
            "weights": {"name": weights, "sha256": "ab" * 32, "provenance": {}, "body": "x", "notes": []},
            "run": {},
            "persons": {"evaluated": len(rows), "failures": int(rows.failed.sum()), "partial": partial,
                        "found": 35515, "published": 35515, "difference": 0},
            "data": {"layout": "JSON", "files": {}, "left_out": {}, "notes": []},
            "fallbacks": {"box: the annotated one": 3},
            "figures": figures(protocol.measure, rows),
        }  # fmt: skip
        folder.mkdir(parents=True)
        save(folder / report.ROWS, rows, {})
        (folder / report.RESULT).write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture(scope="session")
def crowd() -> Crowd:
    return Crowd()


@pytest.fixture
def records(crowd: Crowd, tmp_path: Path) -> Path:
    pack(people(crowd, tmp_path), tmp_path / "mine", "walk-test", SMALL)
    return tmp_path / "mine"
