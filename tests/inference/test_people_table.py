"""The table of all people, read by pandas and pyarrow."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpmesh.errors import ConfigError, DPMeshError, InputError, OutputError
from dpmesh.inference.people_rows import COLUMNS
from dpmesh.inference.people_table import PROVENANCE, SCHEMA, plan_tables, write_tables
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.inference.staging import CLAIM, STAGING, claim_of

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
BOTH = ("jsonl", "parquet")


@pytest.fixture
def scenes(predictor: Callable[..., Predictor]) -> list[Scene]:
    """Two people, no person, one person, each with a source and a digest."""
    made = [predictor()(IMAGE), predictor([])(IMAGE), predictor([(0.1, 0.1, 0.4, 0.9)])(IMAGE)]
    return [
        replace(scene, source=f"photos/{name}.jpg", source_sha256=name * 64)
        for scene, name in zip(made, "abc", strict=True)
    ]


@pytest.fixture
def out(scenes: list[Scene], tmp_path: Path) -> Path:
    for scene in scenes:
        scene.save(tmp_path / "out", formats=["json"])
    return tmp_path / "out"


def lines(out: Path) -> pd.DataFrame:
    return pd.read_json(out / "people.jsonl", lines=True)


def test_a_row_for_each_person_in_pandas(out: Path, scenes: list[Scene]) -> None:
    assert write_tables(out, BOTH) == 3
    people = [(scene, number) for scene in scenes for number in range(len(scene))]
    for table in (lines(out), pd.read_parquet(out / "people.parquet")):
        assert list(table.columns) == list(COLUMNS)
        assert table["image"].tolist() == ["photos/a.jpg", "photos/a.jpg", "photos/c.jpg"]
        assert table["result"].tolist() == ["a", "a", "c"] and table["person"].tolist() == [0, 1, 0]
        assert table["joint_sigma"].isna().all()  # this model predicts none
        for (_, row), (scene, number) in zip(table.iterrows(), people, strict=True):
            person = scene[number]
            assert row["score"] == pytest.approx(person.score) and row["focal"] == pytest.approx(
                scene.K[0, 0]
            )
            assert row["run"] == table["run"][0] and row["focal_source"] == "diagonal"
            for name in ("box", "body_pose", "betas", "transl"):
                np.testing.assert_allclose(np.asarray(row[name], float), getattr(person, name), atol=1e-6)
            for name in ("joints3d", "joints2d", "keypoints2d"):
                values = np.array([np.asarray(part, float) for part in row[name]])
                np.testing.assert_allclose(values, getattr(person, name), rtol=1e-6, atol=1e-6)


def test_parquet_is_typed_and_has_the_provenance_once(out: Path, scenes: list[Scene]) -> None:
    sigma = np.linspace(0.01, 0.3, 30, dtype=np.float32)
    person = replace(scenes[0][0], joint_sigma=sigma)
    replace(scenes[0], people=(person, scenes[0][1])).save(out, formats=["json"], overwrite=True)
    write_tables(out, BOTH)
    file = pq.read_table(out / "people.parquet")
    kinds = {name: file.schema.field(name).type for name in ("body_pose", "joints3d", "score", "person")}
    assert kinds["body_pose"] == pa.list_(pa.float32(), 69)
    assert kinds["joints3d"] == pa.list_(pa.list_(pa.float32(), 3), 30)
    assert kinds["score"] == pa.float32() and kinds["person"] == pa.int32()
    np.testing.assert_allclose(file["joint_sigma"][0].as_py(), sigma, atol=1e-7)
    assert file["joint_sigma"][1].as_py() is None
    inside = json.loads(pq.read_metadata(out / "people.parquet").metadata[b"dpmesh"])
    stored = json.loads((out / PROVENANCE).read_text())
    assert inside == stored and stored["schema"] == "dpmesh.people/1"
    assert set(stored["runs"]) == set(file["run"].to_pylist())
    assert stored["joint_names"][0] == "Pelvis" and len(stored["keypoint_names"]) == 17
    assert set(stored["columns"]) == set(file.column_names)


def test_rows_never_double(out: Path, scenes: list[Scene]) -> None:
    """However often it is written, and whatever became of the results."""
    write_tables(out)
    first = (out / "people.jsonl").read_bytes()
    assert write_tables(out) == 3 and (out / "people.jsonl").read_bytes() == first
    scenes[0].save(out, formats=["json"], overwrite=True)  # made again
    replace(scenes[2], options={"flip": True}).save(out, "d", ["json"])  # another run in the same folder
    replace(scenes[2], people=()).save(out, "c", ["json"], overwrite=True)  # now without people
    scenes[2].save(out, "e", ["npz"])  # no scene.json
    part = out / ".a.dpmesh-part"
    part.mkdir()
    for file in (out / "a").iterdir():
        (part / file.name).write_bytes(file.read_bytes())
    (part / CLAIM).write_bytes(claim_of(part))  # what a killed run leaves
    (out / "mine").mkdir()
    assert write_tables(out) == 3
    assert lines(out)["result"].tolist() == ["a", "a", "d"] and lines(out)["run"].nunique() == 2
    marker = out / "d" / ".dpmesh.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "pending": ["scene.json"]}))
    assert write_tables(out) == 2
    (out / "a" / "scene.json").unlink()
    assert write_tables(out) == 0 and (out / "people.jsonl").read_text() == ""


def test_results_at_any_depth(out: Path, scenes: list[Scene]) -> None:
    """Below folders and below other results, under names with dots, and named like a staging folder."""
    for folder in ("deep/er", "a", "deep.d/x.y", ""):
        scenes[2].save(out / folder, f"p.q{STAGING}", ["json"])
    scenes[2].save(out.parent / "elsewhere/sub", "r", ["json"])
    (out / "link").symlink_to(out.parent / "elsewhere")  # listed, but not entered
    inner = out / "deep" / "er" / f".s{STAGING}"
    inner.mkdir()
    (inner / CLAIM).write_bytes(claim_of(inner))
    (inner / ".dpmesh.json").write_bytes((out / "a" / ".dpmesh.json").read_bytes())
    (inner / "scene.json").write_bytes((out / "a" / "scene.json").read_bytes())
    assert write_tables(out, BOTH) == 7
    last = f"p.q{STAGING}"
    nested = ["a", "a", f"a/{last}", "c", f"deep/er/{last}", f"deep.d/x.y/{last}", last]
    for table in (lines(out), pd.read_parquet(out / "people.parquet")):
        assert table["result"].tolist() == nested


def test_a_folder_that_cannot_be_read(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "locked").mkdir()
    scandir = os.scandir

    def denied(path: str | Path) -> object:  # a mode would not stop root
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match="locked: the folder cannot be read"):
        write_tables(out)


def test_a_table_that_is_there_is_kept_up(out: Path, scenes: list[Scene]) -> None:
    """Also where a later run asks for another one, or for none."""
    write_tables(out, ["parquet"])
    scenes[0].save(out, "z", ["json"])
    assert plan_tables(out, ()) == ("parquet",) and write_tables(out, ["jsonl"]) == 5
    assert len(pd.read_parquet(out / "people.parquet")) == len(lines(out)) == 5


def test_names_that_are_no_text(out: Path, scenes: list[Scene]) -> None:
    source = os.fsdecode(b"photos/caf\xe9.jpg")
    replace(scenes[2], source=source).save(out, "c", ["json"], overwrite=True)
    write_tables(out, BOTH)
    for table in (lines(out), pd.read_parquet(out / "people.parquet")):
        assert table["image"].tolist()[2] == "photos/caf\\udce9.jpg"


@pytest.mark.parametrize("name", ["people.jsonl", PROVENANCE])
def test_files_of_the_user_stay(out: Path, name: str) -> None:
    (out / name).write_text("mine")
    with pytest.raises(OutputError, match="not written by dpmesh"):
        write_tables(out)
    assert (out / name).read_text() == "mine"
    for listed in ([["people.jsonl"]], "people.jsonl", {"people.jsonl": 1}, 5):  # no list of names
        (out / PROVENANCE).write_text(json.dumps({"schema": SCHEMA, "files": listed}))
        assert plan_tables(out, ()) == ()
    (out / PROVENANCE).unlink()
    assert plan_tables(out, ()) == () and plan_tables(out.parent / "new", BOTH) == BOTH


def test_a_damaged_result_is_an_error_and_the_old_table_stays(out: Path) -> None:
    write_tables(out, BOTH)
    before = {path.name: path.read_bytes() for path in out.glob("people.*l*")}
    path = out / "c" / "scene.json"
    plain = json.loads(path.read_text())
    for broken in (
        "{",
        json.dumps({**plain, "schema": "x"}),
        json.dumps({**plain, "image_size": "90"}),
        json.dumps({**plain, "people": [{**plain["people"][0], "betas": [1.0]}]}),
        json.dumps({**plain, "people": [{**plain["people"][0], "score": None}]}),
    ):
        path.write_text(broken)
        with pytest.raises(InputError, match=r"c/scene\.json"):
            write_tables(out)
    assert {path.name: path.read_bytes() for path in out.glob("people.*l*")} == before
    assert not list(out.glob(".people*"))


def test_parquet_without_pyarrow(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"dpmesh\[parquet\]"):
        plan_tables(out, ["parquet"])
    with pytest.raises(DPMeshError):
        write_tables(out, ["parquet"])
    assert not (out / PROVENANCE).exists() and write_tables(out) == 3
