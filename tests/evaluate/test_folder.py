"""A result's folder: one evaluation at a time, nothing of others is replaced, differences are named."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.assets import SHIPPED
from dpmesh.checkpoint import CONFIG, WEIGHTS
from dpmesh.errors import InputError, OutputError, WeightsError
from dpmesh.evaluate import processes
from dpmesh.evaluate.folder import WORST, clear, differences, refuse_foreign
from dpmesh.evaluate.processes import evaluate_job
from dpmesh.evaluate.report import RESULT, ROWS, TEXT, read
from dpmesh.evaluate.results import load
from dpmesh.evaluate.runner import PARTS, Job, Opened, evaluate, open_job, run_parts, weights_record
from dpmesh.io import LOCK, folder_lock

PROTOCOL = "3dpw-crowd@as-run"


@pytest.fixture
def run(twin, opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A model that answers the truth; evaluate_job opens it for whatever it is asked."""
    made = opened(PROTOCOL, lambda name: twin.truth[name], batch=4, part=8, data=twin.data)
    made = replace(made, job=replace(made.job, data=twin.data))
    monkeypatch.setattr(processes, "open_job", lambda job, rank=0: replace(made, job=job))
    monkeypatch.setattr(processes, "draw_worst", lambda *_: [])
    return made


def quiet(_: str) -> None:
    return None


def evaluated(run: Opened) -> Path:
    path = evaluate_job(run.job, say=quiet)
    assert path is not None
    return path.parent


def _hold(folder: str, ready, go) -> None:
    with folder_lock(Path(folder), "evaluation"):
        ready.set()
        go.wait(60)


def test_the_second_evaluation_of_a_folder_is_refused(run: Opened):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(run.job.folder), ready, go))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(OutputError, match="another evaluation is writing here"):
            evaluate_job(run.job, say=quiet)
    finally:
        go.set()
        other.join()
    assert evaluated(run) == run.job.folder  # it ends with its process


def test_a_run_that_makes_nothing_leaves_no_folder(run: Opened, monkeypatch: pytest.MonkeyPatch):
    def fail(job: Job, rank: int = 0) -> Opened:
        raise InputError("no light")

    monkeypatch.setattr(processes, "open_job", fail)
    with pytest.raises(InputError, match="no light"):
        evaluate_job(run.job, say=quiet)
    assert not run.job.out.exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (RESULT, "was not written by dpmesh eval"),
        (TEXT, "was not written by dpmesh eval"),
        (ROWS, "not a readable .npz"),
        (f"{PARTS}/thesis.txt", "holds 'thesis.txt', which no evaluation wrote"),
        (f"{WORST}/holiday.jpg", "holds 'holiday.jpg'"),
        (f"{WORST}/01_holiday.jpg", "holds '01_holiday.jpg'"),
        (f"{PARTS}/part-00000.npz", "holds 'part-00000.npz', which no evaluation wrote"),
        ("notes.txt", "holds 'notes.txt' and no result of dpmesh eval"),
        (PARTS, "is no folder"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_no_evaluation_wrote_stays(run: Opened, name: str, told: str, overwrite: bool):
    path = run.job.folder / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}')
    with pytest.raises(InputError, match=rf"{told}.*--out|{told}.*Delete|is not a result|not a result"):
        evaluate_job(run.job, overwrite=overwrite, say=quiet)
    assert path.read_text() == '{"mine": 1}'
    assert not (run.job.folder / LOCK).exists()


@pytest.mark.parametrize("inner", [PARTS, WORST])
def test_an_empty_folder_of_somebody_stays(run: Opened, inner: str):
    (run.job.folder / inner).mkdir(parents=True)
    with pytest.raises(
        InputError, match=rf"holds '{inner}' and no result of dpmesh eval\. Choose another --out"
    ):
        evaluate_job(run.job, say=quiet)
    assert [path.name for path in run.job.folder.iterdir()] == [inner]


def test_other_files_beside_a_result_stay(run: Opened):
    run_parts(run, 0, 1)
    part = (run.job.folder / PARTS / "part-00000.npz").read_bytes()
    (run.job.folder / LOCK).touch()  # of the run that was killed here
    folder = evaluated(run)
    (folder / "notes.txt").write_text("mine")
    for place in (PARTS, WORST):
        (folder / place).mkdir()
    (folder / PARTS / "part-00000.npz").write_bytes(part)
    evaluate_job(run.job, overwrite=True, say=quiet)
    assert sorted(p.name for p in folder.iterdir() if p.name != LOCK) == [
        "notes.txt", "result.json", "result.md", "rows.npz",
    ]  # fmt: skip


def test_clear_takes_only_our_files(run: Opened):
    run_parts(run, 0, 1)
    folder = run.job.folder
    ours = {p.name for p in (folder / PARTS).iterdir()}
    assert ours
    foreign = ("mine", "part-1.npz", "part-99999.npz", ".part-00001.npz.backup.part")
    for name in (".part-00001.npz.0a1b2c3d.part", *foreign):
        (folder / PARTS / name).write_text("")
    with pytest.raises(InputError, match="which no evaluation wrote"):
        refuse_foreign(folder)
    clear(folder, PARTS)
    assert {p.name for p in (folder / PARTS).iterdir()} == set(foreign)


def test_a_difference_to_the_finished_result_is_named(run: Opened, twin, tmp_path: Path):
    found = read(evaluated(run))
    job = run.job
    found["weights"] |= {"sha256": "", "body": "the free body"}
    found["weights"].pop("config_sha256", None)
    own = tmp_path / "weights"
    own.mkdir()
    (own / CONFIG).write_bytes((SHIPPED / "embedded" / CONFIG).read_bytes())
    bare = replace(job, weights=str(own))  # its weights have no file, so no sum
    assert differences(bare, found) == []
    edited = json.loads(json.dumps(found))
    edited["data"]["files"]["3DPW_latest_validation.json"] = "0" * 64
    assert differences(bare, edited) == ["data"]
    assert differences(replace(bare, data=None), edited) == []  # nothing to compare with
    assert differences(replace(bare, limit=3), found) == ["limit"]
    assert differences(replace(bare, body="none.npz"), found) == ["body"]
    assert differences(replace(bare, method="blank"), found) == ["method"]
    assert differences(replace(bare, protocol="3dpw-crowd"), found) == ["protocol", "data"]
    found["weights"]["body"] = {"sha256": "1"}
    assert differences(bare, found) == ["body"]
    found["weights"] |= {"config_sha256": weights_record(bare)["config_sha256"], "body": "the free body"}
    assert differences(bare, found) == []
    (own / CONFIG).write_bytes((own / CONFIG).read_bytes() + b" ")
    assert differences(bare, found) == ["weights"]
    del found["weights"]["config_sha256"]  # as an earlier version wrote it
    (own / WEIGHTS).write_bytes(b"other")
    assert differences(bare, found) == ["weights"]


def test_a_result_that_was_changed_is_refused(run: Opened):
    folder = evaluated(run)
    found = json.loads((folder / RESULT).read_text())
    found["protocol"]["definition"]["focal"] = "given"
    (folder / RESULT).write_text(json.dumps(found))
    with pytest.raises(InputError, match="the protocol's definition is not that of its hash"):
        evaluate_job(run.job, say=quiet)


def test_a_killed_run_goes_on_and_keeps_its_lock_file_only(run: Opened):
    run_parts(run, 0, 1)
    kept = load(run.job.folder / PARTS / "part-00000.npz")[0]
    folder = evaluated(run)
    np.testing.assert_array_equal(load(folder / ROWS)[0].mpjpe[: len(kept)], kept.mpjpe)
    assert not (folder / PARTS).exists()


def test_a_record_at_fault_is_counted_apart_and_named(run: Opened, monkeypatch: pytest.MonkeyPatch):
    """A pose that overflows in single precision: its mesh has no finite number."""
    name = run.source.source.records[2].id
    run.source.source.records[2].truth.pose[5] = 1e39
    found = read(evaluated(run))
    run.source.source.records[2].truth.pose[5] = 0
    assert found["persons"]["unusable"] == 1 and found["persons"]["failures"] == 0
    assert found["data"]["unusable"] == [name]
    mean = found["figures"]["mean"]["MPJPE"]
    assert (
        mean["failures"] == 0 and mean["count"] == len(run.source) - 1 and mean["mean"] < 2
    )  # where as-run bodies stand
    text = (run.job.folder / TEXT).read_text()
    assert f"1 records have numbers that are not finite and are in no figure ({name})" in text
    assert "0 predictions" not in text


def test_ids_of_any_length_are_written(run: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from dpmesh.evaluate import worst_cases as worst

    persons = run.source.persons([0])
    long = "ä/" + "x" * 260
    rows = replace(evaluate(run, range(1)), ids=np.array([long]))
    monkeypatch.setattr(worst, "draw", lambda *_: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(run.source, "persons", lambda _: replace(persons, ids=(long,)))
    run.source.last = persons
    (path,) = worst.draw_worst(run, rows)
    assert path.is_file() and len(path.name) < 120 and "/" not in path.name


def test_files_have_the_rights_of_the_umask(run: Opened):
    import os

    before = os.umask(0o027)
    try:
        folder = evaluated(run)
    finally:
        os.umask(before)
    assert {(folder / n).stat().st_mode & 0o777 for n in (RESULT, TEXT, ROWS)} == {0o640}


def test_weights_that_are_not_numbers_are_one_line(twin, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    weights = load_file(SHIPPED / "embedded" / WEIGHTS)
    name = sorted(weights)[3]
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_bytes((SHIPPED / "embedded" / CONFIG).read_bytes())
    job = Job(protocol=PROTOCOL, out=tmp_path / "out", data=twin.data, weights=str(tmp_path))
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        open_job(job)


def test_3dpw_is_found_where_training_looks(twin, tmp_path: Path):
    """PW3D/data, as 3DCrowdNet has it, besides 3DPW/ and the root itself."""
    for layout, inner in (("a", "PW3D/data"), ("b", "3DPW"), ("c", "")):
        place = tmp_path / layout / inner
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(twin.data / "3DPW") if inner else (tmp_path / layout).symlink_to(twin.data / "3DPW")
    from dpmesh.evaluate.registry import data_files, entry, open_set

    files = [data_files(entry("3dpw"), tmp_path / layout) for layout in "abc"]
    assert files[0] == files[1] == files[2] and files[0]
    assert len(open_set("3dpw", tmp_path / "a")[1]) == len(open_set("3dpw", tmp_path / "b")[1])
    with pytest.raises(InputError, match=r"PW3D/data or .*neither 3DPW_latest_test\.json nor sequenceFiles"):
        data_files(entry("3dpw"), tmp_path)
