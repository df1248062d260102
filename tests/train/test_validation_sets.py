"""Validation on a data set is the evaluation's: a perfect pose has no error, and the protocol is named."""

import csv
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from dpmesh.assets import FOLDER_VARIABLE
from dpmesh.body.files import load_body
from dpmesh.body.layer import BodyModel
from dpmesh.checkpoint import read_config
from dpmesh.data.pack import PackConfig, pack
from dpmesh.data.sources import read_folder
from dpmesh.errors import AssetError, ConfigError, OutputError
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.registry import entry
from dpmesh.train import trainer as loop
from dpmesh.train.checkpoints import replace_weights
from dpmesh.train.config import Data, Settings, TrainingSource
from dpmesh.train.config_file import read_settings
from dpmesh.train.validate import Benchmark, benchmarks
from dpmesh.types import Inputs, Prediction
from tools.fixtures import evaluation_twin_3dpw as files
from tools.fixtures import evaluation_twin_people as people

CONFIGS = Path(__file__).parents[2] / "configs"
MEASURES = ("MPJPE", "PA-MPJPE", "MPVE")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """3DPW's validation split in both layouts, a man and a woman in three frames, and a benchmark's sequence."""
    root = tmp_path_factory.mktemp("twin")
    world = people.World(people.smpl_files(root / "assets"))
    made = [
        world.sequence("courtyard_jumpBench_01", "validation", "mf", 3, range(3)),
        world.sequence("courtyard_hug_00", "validation", "m", 1, range(1)),
        world.sequence("courtyard_relaxOnBench_00", "train", "mf", 1, range(1)),
    ]
    files.write_3dpw_images(root / "official", world, [made[0], made[2]])
    files.write_3dpw_images(root / "json", world, made[:1])
    files.write_3dpw_official(root / "official", made)
    files.write_3dpw_json(root / "json", world, made)
    truth: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for s in made:
        for p, line in enumerate(s.persons):
            for f, m in enumerate(line):
                R, t = s.cam_poses[f, :3, :3], s.cam_poses[f, :3, 3]
                truth[f"{s.name}/{f:05d}/{p}"] = (s.vertices(p, f), R @ m.trans + t)
    return SimpleNamespace(root=root, world=world, truth=truth)


@pytest.fixture(autouse=True)
def imported(twin: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(twin.root / "assets"))
    benchmarks.cache_clear()


class Perfect:
    """A model that predicts the true mesh of the people of its last input."""

    camera = "crop"
    provenance: ClassVar[dict[str, Any]] = {}

    def __init__(self, twin: SimpleNamespace, on: Benchmark) -> None:
        assets = twin.root / "assets"
        self.body = BodyModel(
            load_body(
                assets / "smpl/SMPL_NEUTRAL.npz", h36m=assets / "regressors/J_regressor_h36m_correct.npy"
            )
        )
        self.truth, self.left = twin.truth, [persons for _, persons in on.batches()]

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        persons: Persons = self.left.pop(0)
        pairs = [self.truth[name] for name in persons.ids]
        back = [turn.T for turn in persons.turn]
        meshes = np.stack([v @ b.T for (v, _), b in zip(pairs, back, strict=True)])
        places = np.stack([b @ at for (_, at), b in zip(pairs, back, strict=True)])
        vertices, transl = torch.from_numpy(meshes).float(), torch.from_numpy(places).float()
        n, joints = len(vertices), self.body.regress(vertices, "joints30")
        rest = torch.eye(3).expand(n, 24, 3, 3)
        return Prediction(
            root_6d=torch.zeros(n, 6), pose_latent=torch.zeros(n, 1), body_rotations=rest[:, 1:],
            betas=torch.zeros(n, 10), camera=torch.zeros(n, 3), joints_img=torch.zeros(n, 15, 3),
            global_orient=rest[:, 0], transl=transl, vertices=vertices, joints3d=joints,
            joints2d=joints[..., :2], focal=inputs.focal,
        )  # fmt: skip


def validated(root: Path) -> Data:
    return Data(validation=(TrainingSource(dataset="3dpw", root=str(root), split="validation"),))


@pytest.mark.parametrize("layout", ["official", "json"])
@pytest.mark.parametrize("annotated", [False, True])
def test_a_perfect_pose_errs_by_nothing(twin: SimpleNamespace, layout: str, annotated: bool):
    (one,) = benchmarks(validated(twin.root / layout), 100, annotated=annotated)
    row = one.figures(Perfect(twin, one), torch.device("cpu"))
    assert [row[name] for name in MEASURES] == [0, 0, 0]
    name = "3dpw-validation@annotated" if annotated else "3dpw-validation"
    assert (row["protocol"], row["hash"]) == (name, entry(name).protocol.hash)
    assert row["people"] == 6 and row["failures"] == 0  # no person of the benchmark's sequence
    shown = one.batches()[0][1]
    assert (shown.visible[:, 1:24].mean() > 0.9) == annotated  # a teacher's input is what no detector reports


def test_training_s_targets_would_have_erred_by_centimetres(twin: SimpleNamespace):
    """What validation compared with before: the neutral body of mean shape in the annotated pose."""
    (one,) = benchmarks(validated(twin.root / "json"), 100)
    perfect = Perfect(twin, one)
    people = read_folder("3dpw", twin.root / "json", "validation", "none").people
    errors = []
    for person in people:
        gendered, place = twin.truth[person.record_id.removeprefix("3dpw/").replace("image_", "")]
        mean = twin.world.pose("neutral", person.pose.reshape(-1).astype(float), np.zeros(10))[0]
        pair = [torch.from_numpy(v).float()[None] for v in (gendered - place, mean)]
        a, b = (perfect.body.regress(v, "h36m17")[0].numpy() for v in pair)
        errors.append(np.linalg.norm((a - a[0]) - (b - b[0]), axis=1).mean() * 1000)
    assert np.mean(errors) > 10


def test_packed_people_are_measured_by_what_is_packed(twin: SimpleNamespace, tmp_path: Path):
    people = read_folder("3dpw", twin.root / "json", "validation", "none").people
    pack(people, tmp_path, "3dpw-validation", PackConfig())
    (one,) = benchmarks(validated(tmp_path), 4)
    (measured,) = benchmarks(validated(tmp_path), 4, annotated=True)
    assert one.protocol.hash != measured.protocol.hash and measured.protocol.keypoints.source == "annotated"
    for benchmark in (one, measured):
        perfect = Perfect(twin, benchmark)
        perfect.truth = {f"3dpw/{k[:-8]}/image_{k[-7:]}": v for k, v in twin.truth.items()}
        row = benchmark.figures(perfect, torch.device("cpu"))
        # 3DPW's joints are the skeleton's, the prediction's are regressed from the mesh: some millimetres apart
        assert row["people"] == 4 and row["MPJPE"] < 6 and row["hash"] == benchmark.protocol.hash
        assert "MPVE" not in row and row["protocol"].startswith(
            "packed:3dpw-validation"
        )  # no frozen protocol's name


SHIPPED = [p for p in sorted(CONFIGS.rglob("*.toml")) if "3dpw" in p.read_text()]


def test_shipped_configs_validate_under_the_frozen_protocol(
    twin: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the folders of docs/guide/training.md, step 3: the packed set next to the one that it was packed from."""
    (tmp_path / "sets").symlink_to(twin.root / "json")
    people = read_folder("3dpw", twin.root / "json", "validation", "none").people
    pack(people, tmp_path / "data", "3dpw-validation", PackConfig())
    monkeypatch.chdir(tmp_path)
    assert len(SHIPPED) >= 16
    by_config = {path.name: benchmarks(read_settings(path).data, 2) for path in SHIPPED}
    hashes = {name: [one.protocol.hash for one in ones] for name, ones in by_config.items()}
    assert all(h == [entry("3dpw-validation").protocol.hash] for h in hashes.values()), hashes
    assert all(one.protocol.truth.gender == "annotated" for ones in by_config.values() for one in ones)


def run_settings(child: ModuleType, out: Path, twin: SimpleNamespace, **more: Any) -> Settings:
    """Trains and validates on the twin of 3DPW, with its SMPL fits."""
    source = {"dataset": "3dpw", "root": str(twin.root / "official")}
    data = {"validation": [{**source, "split": "validation"}], "group3d": [source]}
    stages: Sequence[dict[str, Any]] = more.pop("stages", [child.stage("teacher")])
    return child.settings(out, *stages, data=data, body="smpl", validate_every=1, **more)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_run_names_the_protocol_and_keeps_the_best(
    child: ModuleType, twin: SimpleNamespace, tmp_path: Path
):
    out = tmp_path / "run"
    stages = [child.stage("teacher", batch=2), child.stage("keypoints", batch=2)]
    settings = run_settings(child, out, twin, stages=stages, keep_best=True, model="reading")
    weights = loop.train(settings)
    rows = read(out / "validation.csv")
    names = {"teacher": "3dpw-validation@annotated", "keypoints": "3dpw-validation"}
    assert [(r["stage"], r["step"], r["people"], r["protocol"], r["hash"]) for r in rows] == [
        (stage, str(step), "2", name, entry(name).protocol.hash)
        for stage, name in names.items()
        for step in (1, 2, 3)
    ]
    for stage, folder in (("teacher", "weights_teacher_best"), ("keypoints", "weights_best")):
        best = min((r for r in rows if r["stage"] == stage), key=lambda r: float(r["MPJPE"]))
        record = read_config(out / folder)[1]
        assert record["steps"] == int(best["step"])
        assert record["best"]["MPJPE"] == float(best["MPJPE"]) and record["best"]["hash"] == best["hash"]
    assert weights == out / "weights" and (weights / "model.safetensors").is_file()
    assert not list(out.glob(".*best*"))


def test_only_better_weights_of_one_protocol_replace_the_best(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from dpmesh.train.context import TrainingContext, make_objective
    from dpmesh.train.distributed import make_fabric
    from dpmesh.train.stage_run import StageRun

    settings = child.settings(tmp_path / "run", child.stage("teacher"))
    run = StageRun(
        make_fabric(settings),
        make_objective(TrainingContext.resolve(settings), 0),
        TrainingContext.resolve(settings),
        0,
    )
    kept = []
    for step, (value, digest) in enumerate(
        [(90.0, "a"), (95.0, "a"), (float("nan"), "a"), (80.0, "a"), (99.0, "b"), (None, "b")]
    ):
        run.step = step
        loop.keep_best(run, [{"MPJPE": value, "hash": digest}])
        kept.append(read_config(tmp_path / "run/weights_best")[1]["steps"])
    assert kept == [0, 0, 0, 3, 4, 4]
    (tmp_path / "run/weights_best/config.json").write_text("{")  # damaged: as if there were none
    loop.keep_best(run, [{"MPJPE": 200.0, "hash": "b"}])
    assert read_config(tmp_path / "run/weights_best")[1]["best"]["MPJPE"] == 200


@pytest.mark.parametrize("dataset", ["coco", "crowdpose"])
def test_a_set_without_a_true_pose_is_refused(child: ModuleType, tmp_path: Path, dataset: str):
    data = {"validation": [{"dataset": dataset, "root": "data", "split": "validation", "fits": "none"}]}
    with pytest.raises(ConfigError, match=r"has no true pose to validate against\. Name 3dpw"):
        child.settings(tmp_path / "run", child.stage("teacher"), data=data)


def test_keep_best_needs_figures(child: ModuleType, tmp_path: Path):
    with pytest.raises(ConfigError, match="Set validate_every above 0"):
        child.settings(tmp_path / "run", child.stage("teacher"), keep_best=True)
    with pytest.raises(ConfigError, match="no stage here regresses bodies"):
        child.settings(tmp_path / "run", child.stage("prior"), keep_best=True, validate_every=1)


def test_what_validation_lacks_is_said_before_the_first_step(
    child: ModuleType, twin: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = run_settings(child, tmp_path / "run", twin)
    bare = tmp_path / "assets"
    bare.mkdir()
    for folder in ("smpl", "regressors"):
        (bare / folder).mkdir()
        for file in (twin.root / "assets" / folder).iterdir():
            if "FEMALE" not in file.name:
                (bare / folder / file.name).symlink_to(file)
    monkeypatch.setenv(FOLDER_VARIABLE, str(bare))
    with pytest.raises(AssetError, match="smpl_female has not been imported"):
        loop.train(settings)
    assert not (tmp_path / "run/log_teacher.csv").exists()


def test_the_users_files_next_to_older_weights_are_kept(tmp_path: Path):
    """Of the weights that were the best before only their two files go."""
    new, kept, before = tmp_path / ".w.part", tmp_path / "w", tmp_path / ".w.before"
    for folder in (new, kept, before):
        folder.mkdir()
        (folder / "config.json").write_text(folder.name)
    (before / ".model.safetensors.0a1b2c3d.part").write_bytes(b"half")
    replace_weights(new, kept)
    assert [p.name for p in tmp_path.iterdir()] == ["w"] and (kept / "config.json").read_text() == ".w.part"
    for folder in (new, before):
        folder.mkdir()
    (before / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        replace_weights(new, kept)
    assert (before / "notes.txt").read_text() == "mine" and (kept / "config.json").exists()
