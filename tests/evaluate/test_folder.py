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
from dpmesh.evaluate import runner
from dpmesh.evaluate.evaluation import Evaluation, EvaluationConfig, open_evaluation, weights_checksums
from dpmesh.evaluate.folder import PARTS, WORST, clear, differences, refuse_foreign
from dpmesh.evaluate.report import RESULT, ROWS, TEXT, read
from dpmesh.evaluate.results import load
from dpmesh.evaluate.runner import evaluate, run_evaluation, run_parts
from dpmesh.io import LOCK, folder_lock

PROTOCOL = "3dpw-crowd@as-run"


@pytest.fixture
def run(twin, opened: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """A model that predicts the ground truth; run_evaluation opens it for every protocol."""
    made = opened(PROTOCOL, lambda name: twin.truth[name], batch=4, part=8, data=twin.data)
    made = replace(made, config=replace(made.config, data=twin.data))
    monkeypatch.setattr(runner, "open_evaluation", lambda config, rank=0: replace(made, config=config))
    monkeypatch.setattr(runner, "draw_worst", lambda *_: [])
    return made


def quiet(_: str) -> None:
    return None


def evaluated(run: Evaluation) -> Path:
    path = run_evaluation(run.config, say=quiet)
    assert path is not None
    return path.parent


def _hold(folder: str, ready, go) -> None:
    with folder_lock(Path(folder), "evaluation"):
        ready.set()
        go.wait(60)


def test_the_second_evaluation_of_a_folder_is_refused(run: Evaluation):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(run.config.folder), ready, go))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(OutputError, match="another evaluation is writing here"):
            run_evaluation(run.config, say=quiet)
    finally:
        go.set()
        other.join()
    assert evaluated(run) == run.config.folder  # it ends with its process


def test_a_run_that_makes_nothing_leaves_no_folder(run: Evaluation, monkeypatch: pytest.MonkeyPatch):
    def fail(config: EvaluationConfig, rank: int = 0) -> Evaluation:
        raise InputError("no light")

    monkeypatch.setattr(runner, "open_evaluation", fail)
    with pytest.raises(InputError, match="no light"):
        run_evaluation(run.config, say=quiet)
    assert not run.config.out.exists()


@pytest.mark.parametrize(
    ("name", "message"),
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
def test_what_no_evaluation_wrote_stays(run: Evaluation, name: str, message: str, overwrite: bool):
    path = run.config.folder / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}')
    with pytest.raises(InputError, match=rf"{message}.*--out|{message}.*Delete|is not a result|not a result"):
        run_evaluation(run.config, overwrite=overwrite, say=quiet)
    assert path.read_text() == '{"mine": 1}'
    assert not (run.config.folder / LOCK).exists()


@pytest.mark.parametrize("inner", [PARTS, WORST])
def test_an_empty_folder_of_the_users_is_kept(run: Evaluation, inner: str):
    (run.config.folder / inner).mkdir(parents=True)
    with pytest.raises(
        InputError, match=rf"holds '{inner}' and no result of dpmesh eval\. Choose another --out"
    ):
        run_evaluation(run.config, say=quiet)
    assert [path.name for path in run.config.folder.iterdir()] == [inner]


def test_other_files_next_to_a_result_are_kept(run: Evaluation):
    run_parts(run, 0, 1)
    part = (run.config.folder / PARTS / "part-00000.npz").read_bytes()
    (run.config.folder / LOCK).touch()  # of the run that was killed here
    folder = evaluated(run)
    (folder / "notes.txt").write_text("mine")
    for place in (PARTS, WORST):
        (folder / place).mkdir()
    (folder / PARTS / "part-00000.npz").write_bytes(part)
    run_evaluation(run.config, overwrite=True, say=quiet)
    assert sorted(p.name for p in folder.iterdir() if p.name != LOCK) == [
        "notes.txt", "result.json", "result.md", "rows.npz",
    ]  # fmt: skip


def test_clear_takes_only_our_files(run: Evaluation):
    run_parts(run, 0, 1)
    folder = run.config.folder
    ours = {p.name for p in (folder / PARTS).iterdir()}
    assert ours
    foreign = ("mine", "part-1.npz", "part-99999.npz", ".part-00001.npz.backup.part")
    for name in (".part-00001.npz.0a1b2c3d.part", *foreign):
        (folder / PARTS / name).write_text("")
    with pytest.raises(InputError, match="which no evaluation wrote"):
        refuse_foreign(folder)
    clear(folder, PARTS)
    assert {p.name for p in (folder / PARTS).iterdir()} == set(foreign)


def test_a_difference_to_the_finished_result_is_named(run: Evaluation, twin, tmp_path: Path):
    record = read(evaluated(run))
    config = run.config
    record["weights"] |= {"sha256": "", "body": "the free body"}
    record["weights"].pop("config_sha256", None)
    own = tmp_path / "weights"
    own.mkdir()
    (own / CONFIG).write_bytes((SHIPPED / "embedded" / CONFIG).read_bytes())
    bare = replace(config, weights=str(own))  # its weights have no file, so no sum
    assert differences(bare, record) == []
    edited = json.loads(json.dumps(record))
    edited["data"]["files"]["3DPW_latest_validation.json"] = "0" * 64
    assert differences(bare, edited) == ["data"]
    assert differences(replace(bare, data=None), edited) == []  # nothing to compare with
    assert differences(replace(bare, limit=3), record) == ["limit"]
    assert differences(replace(bare, body="none.npz"), record) == ["body"]
    assert differences(replace(bare, method="blank"), record) == ["method"]
    assert differences(replace(bare, protocol="3dpw-crowd"), record) == ["protocol", "data"]
    record["weights"]["body"] = {"sha256": "1"}
    assert differences(bare, record) == ["body"]
    record["weights"] |= {"config_sha256": weights_checksums(bare)["config_sha256"], "body": "the free body"}
    assert differences(bare, record) == []
    (own / CONFIG).write_bytes((own / CONFIG).read_bytes() + b" ")
    assert differences(bare, record) == ["weights"]
    del record["weights"]["config_sha256"]  # as an earlier version wrote it
    (own / WEIGHTS).write_bytes(b"other")
    assert differences(bare, record) == ["weights"]


def test_a_result_that_was_changed_is_refused(run: Evaluation):
    folder = evaluated(run)
    record = json.loads((folder / RESULT).read_text())
    record["protocol"]["definition"]["focal"] = "given"
    (folder / RESULT).write_text(json.dumps(record))
    with pytest.raises(InputError, match="the protocol's definition does not match its hash"):
        run_evaluation(run.config, say=quiet)


def test_a_killed_run_goes_on_and_keeps_its_lock_file_only(run: Evaluation):
    run_parts(run, 0, 1)
    kept = load(run.config.folder / PARTS / "part-00000.npz")[0]
    folder = evaluated(run)
    np.testing.assert_array_equal(load(folder / ROWS)[0].mpjpe[: len(kept)], kept.mpjpe)
    assert not (folder / PARTS).exists()


def test_a_record_at_fault_is_counted_apart_and_named(run: Evaluation, monkeypatch: pytest.MonkeyPatch):
    """A pose that overflows in single precision: its mesh has no finite number."""
    name = run.source.source.records[2].id
    run.source.source.records[2].truth.pose[5] = 1e39
    result = read(evaluated(run))
    run.source.source.records[2].truth.pose[5] = 0
    assert result["persons"]["unusable"] == 1 and result["persons"]["failures"] == 0
    assert result["data"]["unusable"] == [name]
    mean = result["figures"]["mean"]["MPJPE"]
    assert (
        mean["failures"] == 0 and mean["count"] == len(run.source) - 1 and mean["mean"] < 2
    )  # where as-run bodies stand
    text = (run.config.folder / TEXT).read_text()
    assert f"1 records have numbers that are not finite and are in no figure ({name})" in text
    assert "0 predictions" not in text


def test_ids_of_any_length_are_written(run: Evaluation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from dpmesh.evaluate import worst_cases as worst

    persons = run.source.persons([0])
    long = "ä/" + "x" * 260
    rows = replace(evaluate(run, range(1)), ids=np.array([long]))
    monkeypatch.setattr(worst, "draw", lambda *_: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(run.source, "persons", lambda _: replace(persons, ids=(long,)))
    run.source.last = persons
    (path,) = worst.draw_worst(run, rows)
    assert path.is_file() and len(path.name) < 120 and "/" not in path.name


def test_files_have_the_rights_of_the_umask(run: Evaluation):
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
    config = EvaluationConfig(protocol=PROTOCOL, out=tmp_path / "out", data=twin.data, weights=str(tmp_path))
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        open_evaluation(config)


def test_evaluation_reads_3dpw_from_every_layout_that_training_reads(twin, tmp_path: Path):
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
