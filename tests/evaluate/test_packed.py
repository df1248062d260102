"""A folder of records is measured as a protocol: on whom, in which frame, by which hash; and the bench takes it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packed_people import COUNT, SMALL, Body, Crowd, people, true_prediction

from dpmesh.cli.main import main
from dpmesh.data.pack import pack
from dpmesh.data.shards import ShardSource
from dpmesh.errors import ConfigError, InputError
from dpmesh.evaluate.packed import PackedSource, open_packed
from dpmesh.evaluate.protocol import OWN_JOINTS, Measure
from dpmesh.evaluate.registry import entry, open_set
from dpmesh.evaluate.report import read
from dpmesh.evaluate.results import predicted, score
from dpmesh.evaluate.robustness.report import JSON
from dpmesh.geometry import CROP


@pytest.mark.parametrize("camera", ["crop", "image"])
def test_the_true_body_has_no_error_and_the_unknown_are_not_counted(
    crowd: Crowd, records: Path, camera: str
) -> None:
    protocol, source = open_set(str(records), None)
    assert isinstance(source, PackedSource) and len(source) == 3  # without the second and the fourth
    assert dict(source.census.left_out) == {"3D joints not known, or not all": 2}
    assert len(source.census.files) == 3 and source.census.persons == 3
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
    sample = ShardSource(records, "walk", "test").sample(0, np.random.default_rng(0))  # true joints
    both = (whole.visible[0] > 0) & (sample.visible > 0)
    off = np.linalg.norm(whole.joints[0] - sample.joints, axis=1)[both]
    assert 0.5 < np.median(off) < 25 and whole.joints.max() < CROP
    assert np.isnan(whole.joint_visible).sum() == 0 and whole.focal_crop[0] == pytest.approx(sample.focal)


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
