"""A folder of records is measured as a protocol: on whom, in which frame, by which hash; and the bench takes it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.cli.main import main
from dpmesh.data import pack as packing
from dpmesh.data import shards
from dpmesh.data.annotation import Annotation
from dpmesh.data.pack import PackConfig, pack
from dpmesh.errors import ConfigError, InputError
from dpmesh.evaluate.packed import PackedSource, open_packed
from dpmesh.evaluate.protocol import OWN_JOINTS, Measure
from dpmesh.evaluate.registry import entry, open_set
from dpmesh.evaluate.report import read
from dpmesh.evaluate.results import predicted, score
from dpmesh.evaluate.robustness.report import JSON
from dpmesh.geometry import CROP
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.skeletons import H36M17, JOINTS30
from dpmesh.types import Inputs, Prediction

AT = list(H36M17.indices_in(JOINTS30))
SIZE, FOCAL, COUNT = (300, 240), 310.0, 5
K = np.array([[FOCAL, 0, 150], [0, FOCAL, 120], [0, 0, 1.0]])
SMALL = PackConfig(side=300, per_shard=2, quality=95)


class Crowd:
    """Made-up people off the image centre; joints of the free body by the Human3.6M regressor, camera frame."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.body = BodyModel(free_body())
        pose = torch.from_numpy(rng.normal(0, 0.2, (COUNT, 24, 3))).float()
        pose[:, 0] = torch.tensor([np.pi, 0.0, 0.0])
        posed = self.body(torch.zeros(COUNT, 10), rotation_matrix(pose))
        places = np.stack([[x, 0.1, 4.0] for x in (-1.2, -0.6, 0.0, 0.6, 1.2)]).astype(np.float32)
        self.vertices = posed.vertices.numpy() + places[:, None]
        own = posed.joints30.numpy() + places[:, None]
        self.joints = own.copy()  # joints of Human3.6M's regressor where it has them
        self.joints[:, AT] = self.body.regress(posed.vertices, "h36m17").numpy() + places[:, None]
        self.own = own

    def person(self, i: int, folder: Path, **changed: object) -> Annotation:
        joints = self.joints[i]
        pixels = (joints @ K.T)[:, :2] / joints[:, 2:]
        low, high = np.maximum(pixels.min(0), 0), np.minimum(pixels.max(0), np.array(SIZE) - 1)
        valid = np.zeros(30, np.float32)
        valid[AT] = 1
        path = folder / f"{i}.jpg"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*SIZE[::-1], 3), np.uint8)).save(path)
        made = Annotation(
            record_id=f"mine/walk{i % 2}/{i}", image=path, size=SIZE, box=np.concatenate([low, high]), K=K,
            joints2d=(pixels * valid[:, None]).astype(np.float32), joints2d_valid=valid,
            joints3d=(joints * valid[:, None]).astype(np.float32), joints3d_valid=valid,
        )  # fmt: skip
        return replace(made, **changed)


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd()


def people(crowd: Crowd, folder: Path) -> list[Annotation]:
    """The second lacks a knee in 3D, the fourth everything."""
    persons = [crowd.person(i, folder) for i in range(COUNT)]
    some = persons[1].joints3d_valid.copy()
    some[JOINTS30.index("L_Knee")] = 0
    persons[1] = replace(persons[1], joints3d_valid=some)
    persons[3] = replace(persons[3], joints3d_valid=np.zeros(30, np.float32))
    return persons


@pytest.fixture
def records(crowd: Crowd, tmp_path: Path) -> Path:
    pack(people(crowd, tmp_path), tmp_path / "mine", "walk-test", SMALL)
    return tmp_path / "mine"


def true_prediction(crowd: Crowd, source: PackedSource, indices: Sequence[int], camera: str) -> Prediction:
    """The truth, in the frame of a model of that camera."""
    persons = source.persons(indices)
    rows = [int(name.rpartition("/")[2]) for name in persons.ids]
    mesh = crowd.vertices[rows]
    if camera == "crop":
        mesh = np.einsum("bji,bvj->bvi", persons.turn, mesh)
    vertices, n = torch.from_numpy(mesh).float(), len(rows)
    joints, zeros = crowd.body.regress(vertices, "joints30"), torch.zeros
    return Prediction(
        root_6d=zeros(n, 6), pose_latent=zeros(n, 1), body_rotations=torch.eye(3).expand(n, 23, 3, 3),
        betas=zeros(n, 10), camera=zeros(n, 3), joints_img=zeros(n, 15, 3),
        global_orient=torch.eye(3).expand(n, 3, 3), transl=zeros(n, 3), vertices=vertices, joints3d=joints,
        joints2d=joints[..., :2], focal=torch.ones(n),
    )  # fmt: skip


class Body:
    """The attributes of a model that `predicted` uses."""

    def __init__(self, crowd: Crowd, camera: str) -> None:
        self.body, self.camera, self.provenance = crowd.body, camera, {}

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        raise AssertionError("the test passes the prediction itself")


@pytest.mark.parametrize("camera", ["crop", "image"])
def test_the_true_body_has_no_error_and_the_unknown_are_not_counted(
    crowd: Crowd, records: Path, camera: str
) -> None:
    protocol, source = open_set(str(records), None)
    assert isinstance(source, PackedSource) and len(source) == 3  # without the second and the fourth
    assert dict(source.census.left_out) == {"3D joints not known, or not all": 2}
    assert len(source.census.files) == 3 and source.census.found == 3
    persons = source.persons([0, 1, 2])
    assert persons.ids == ("mine/walk0/0", "mine/walk0/2", "mine/walk0/4")
    assert protocol.selection.rule == "measured" and protocol.measure == Measure(
        metrics=("MPJPE", "PA-MPJPE")
    )
    predictions = predicted(
        protocol.measure, Body(crowd, camera), true_prediction(crowd, source, [0, 1, 2], camera), persons
    )
    rows = score(protocol.measure, [0, 1, 2], persons, predictions)
    assert rows.mpjpe.max() < 0.1 and rows.pa_mpjpe.max() < 0.1  # mm: the records keep micrometres
    turned = predicted(
        protocol.measure, Body(crowd, "image"), true_prediction(crowd, source, [0, 1, 2], "crop"), persons
    )
    assert score(protocol.measure, [0, 1, 2], persons, turned).mpjpe[[0, 2]].min() > 20  # it is no tautology


def test_inputs_are_those_of_the_crop_with_noise(records: Path) -> None:
    source = open_packed(records)
    whole, alone = source.persons([0, 1, 2]), source.persons([2])
    assert np.array_equal(whole.joints[2], alone.joints[0]) and np.array_equal(whole.crops[2], alone.crops[0])
    assert whole.crops.std() > 5 and whole.visible.sum(1).min() > 8
    sample = source._shards.sample(0, np.random.default_rng(0))  # true joints
    both = (whole.visible[0] > 0) & (sample.visible > 0)
    off = np.linalg.norm(whole.joints[0] - sample.joints, axis=1)[both]
    assert 0.5 < np.median(off) < 25 and whole.joints.max() < CROP
    assert np.isnan(whole.seen).sum() == 0 and whole.focal_crop[0] == pytest.approx(sample.focal)


def test_the_hash_is_of_what_was_measured(crowd: Crowd, records: Path, tmp_path: Path) -> None:
    first = open_packed(records).protocol
    assert first.name == "packed:walk-test" and first.hash == open_packed(records / "walk-test").protocol.hash
    pack(people(crowd, tmp_path), tmp_path / "again", "walk-test", SMALL)
    assert open_packed(tmp_path / "again").protocol.hash == first.hash  # the same people, packed again
    moved = people(crowd, tmp_path)
    moved[0] = replace(moved[0], joints3d=moved[0].joints3d + np.float32([0, 0, 0.001]))
    pack(moved, tmp_path / "other", "walk-test", SMALL)
    assert open_packed(tmp_path / "other").protocol.hash != first.hash


def test_fits_and_smpl_joints_have_protocols_of_their_own(crowd: Crowd, tmp_path: Path) -> None:
    """Both are compared with the predicted body's own joints, not with the Human3.6M regressor's."""
    nothing = {"joints3d_valid": np.zeros(30, np.float32), "joints3d": np.zeros((30, 3), np.float32)}
    everything = {"joints3d_valid": np.ones(30, np.float32)}
    for name, rule, changed in (
        ("fit", "fitted", lambda i: {**nothing, "fit_joints3d": crowd.own[i], "fit_valid": float(i != 2)}),
        ("smpl", "measured", lambda i: {**everything, "joints3d": crowd.own[i]}),
    ):
        made = [crowd.person(i, tmp_path, **changed(i)) for i in range(COUNT)]
        pack(made, tmp_path / name, f"{name}-test", SMALL)
        protocol, source = open_set(str(tmp_path / name), None)
        assert isinstance(source, PackedSource)
        assert protocol.selection.rule == rule and protocol.measure.regressor == OWN_JOINTS
        assert len(source) == COUNT - (name == "fit")
        persons = source.persons([0, 1])
        predictions = predicted(
            protocol.measure, Body(crowd, "crop"), true_prediction(crowd, source, [0, 1], "crop"), persons
        )
        assert score(protocol.measure, [0, 1], persons, predictions).mpjpe.max() < 0.1
        other = predicted(
            Measure(), Body(crowd, "crop"), true_prediction(crowd, source, [0, 1], "crop"), persons
        )
        assert score(protocol.measure, [0, 1], persons, other).mpjpe.min() > 5


def test_what_cannot_be_measured_is_refused(crowd: Crowd, records: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "not there" / "at all"):
        with pytest.raises(InputError, match=r"not a folder of packed people.*dpmesh data pack ROOT OUT"):
            entry(str(wrong))
    with pytest.raises(ConfigError, match=r"no protocol 'walk'.*folder that dpmesh data pack wrote"):
        entry("walk")
    with pytest.raises(ConfigError, match=r"has not been packed.*walk-test"):
        entry(str(records / "walk-train"))
    pack(people(crowd, tmp_path), records, "run-test", SMALL)
    with pytest.raises(ConfigError, match=r"several sets.*mine/run-test, .*mine/walk-test"):
        entry(str(records))
    blind = [crowd.person(i, tmp_path, joints3d_valid=np.zeros(30, np.float32)) for i in range(COUNT)]
    pack(blind, tmp_path / "blind", "walk-test", SMALL)
    with pytest.raises(InputError, match="too few joints of these people"):
        entry(str(tmp_path / "blind"))
    pack([people(crowd, tmp_path)[0]] * 2, tmp_path / "twice", "walk-test", SMALL)
    with pytest.raises(InputError, match="two people have the same name"):
        entry(str(tmp_path / "twice"))
    shard = records / "run-test-00000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(InputError, match=r"run-test-00000\.tar.*torn"):
        entry(str(records / "run-test"))


def test_the_commands_take_a_folder(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--people", "9", "--map-people", "0", "--only", "dropped"]
    assert (
        main(["bench", "robustness", "--protocol", str(records), "--out", str(tmp_path / "bench"), *words])
        == 0
    )
    record = json.loads((tmp_path / "bench" / JSON).read_text())
    assert record["protocol"]["hash"] == open_packed(records).protocol.hash
    assert record["persons"] == {
        "measured": 3, "found": 3, "left_out": {"3D joints not known, or not all": 2}, "map": 0,
    }  # fmt: skip
    assert record["corruptions"][0]["models"][0][0]["MPJPE"] > 20
    out = tmp_path / "results"
    assert main(["eval", "run", str(records), "--method", "t-pose", "--out", str(out)]) == 0
    result = read(out / "mine+t-pose")
    assert result["persons"]["evaluated"] == 3 and result["protocol"]["name"] == "packed:walk-test"
    assert list((out / "mine+t-pose" / "worst").glob("01_*.jpg"))
    assert set(result["figures"]["by_sequence"]) == {"mine/walk0"}
    capsys.readouterr()
    assert (
        main(["bench", "robustness", "--protocol", str(tmp_path / "bench"), "--out", str(tmp_path / "no")])
        != 0
    )
    printed = capsys.readouterr().err
    assert (
        printed.count("\n") == 1
        and "not a folder of packed people" in printed
        and "dpmesh data pack" in printed
    )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record_id": ["a"]}, ""),
        ({"record_id": "a\nb"}, "no printable text"),
        ({"fit_valid": None}, ""),
        ({"betas_valid": 0.5}, "betas_valid"),
        ({"K": [[1, 2, 3]]}, "cannot reshape"),
        ({"box": "x"}, "could not convert"),
    ],
)
def test_a_damaged_record_is_one_line(
    records: Path, change: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shards.from_plain
    monkeypatch.setattr(
        shards, "from_plain", lambda data, *rest, **more: plain({**data, **change}, *rest, **more)
    )
    with pytest.raises(InputError, match=rf"person 0: .*record.*{message}") as error:
        open_packed(records)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("count", [10**30, -1, 1.5, None, "x", True])
def test_a_damaged_manifest_is_one_line_and_does_not_hang(records: Path, count: object) -> None:
    manifest = json.loads((records / "pack.json").read_text())
    manifest["sets"]["walk-test"]["shards"] = count
    (records / "pack.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"pack\.json: the number of shards of walk-test is damaged"):
        open_packed(records)
    manifest["sets"]["walk-test"]["shards"] = 90_000
    (records / "pack.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r"pack\.json: walk-test has far fewer shards than the manifest's 90,000"
    ):
        open_packed(records)
    (records / "pack.json").write_text('{"sets": [1]}')
    with pytest.raises(InputError, match="no manifest of packed people"):
        open_packed(records)


def test_an_index_that_points_outside_is_one_line(records: Path) -> None:
    path = records / "walk-test-00000.json"
    table = json.loads(path.read_text())
    table["people"][0][0] = -1
    path.write_text(json.dumps(table))
    with pytest.raises(
        InputError, match=r"walk-test-00000\.tar: this shard is torn: its index is missing or damaged"
    ):
        open_packed(records)


@pytest.mark.parametrize("field", ["joints3d", "K", "box", "joints2d", "joints3d_valid"])
def test_a_record_with_nan_is_the_records_fault(
    crowd: Crowd, tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of shards that another hand wrote: packing leaves such a record out, training refuses it, the evaluation counts
    and names it."""
    packed = people(crowd, tmp_path)
    spoiled = getattr(packed[2], field).copy()
    spoiled.flat[AT[3] if field.startswith("joints") else 0] = np.nan
    whole, packed[2] = packed[2], replace(packed[2], **{field: spoiled})
    assert pack(packed, tmp_path / "ours", "walk-test", SMALL).skipped.keys() == {whole.record_id}
    census = open_packed(tmp_path / "ours").census
    assert census.found == 2 and census.left_out["left out when packed"] == 1

    def to_plain(person: Annotation) -> dict:
        return written(person) | ({field: spoiled.tolist()} if person.record_id == whole.record_id else {})

    written = packing.to_plain
    monkeypatch.setattr(packing, "to_plain", to_plain)
    monkeypatch.setattr(packing, "_json", json.dumps)
    pack([*packed[:2], whole, *packed[3:]], tmp_path / "mine", "walk-test", SMALL)
    with pytest.raises(InputError, match="not finite"):
        shards.ShardSource(tmp_path / "mine", "walk", "test").sample(2, np.random.default_rng(0))
    source = open_packed(tmp_path / "mine")
    persons = source.persons(range(len(source)))
    assert len(source) == 3 and not persons.fallbacks
    predictions = true_prediction(crowd, source, range(len(source)), "crop")
    measure = source.protocol.measure
    rows = score(
        measure, range(len(source)), persons, predicted(measure, Body(crowd, "crop"), predictions, persons)
    )
    assert [str(name) for name in rows.ids[rows.unusable]] == [whole.record_id] and not rows.failed.any()
    assert np.isfinite(rows.mpjpe[~rows.unusable]).all()
