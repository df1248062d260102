"""A run gives bit-identical results however it is distributed or interrupted, and counts each person once."""

import os
import pickle
import queue
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpmesh.assets import SHIPPED, sha256
from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import ConfigError, DPMeshError, InputError
from dpmesh.evaluate import runner
from dpmesh.evaluate.evaluation import EvaluationConfig, weights_checksums
from dpmesh.evaluate.folder import PARTS
from dpmesh.evaluate.report import read
from dpmesh.evaluate.results import ARRAYS, NO_MPVE, Rows, concatenate, load, save
from dpmesh.evaluate.runner import evaluate, merge, run_evaluation, run_parts, work
from dpmesh.io import LOCK

PROTOCOL = "3dpw-crowd@as-run"
PERSONS = 12
SOME = 3
"""Persons for the shipped model, which takes its time."""


def same(a: Rows, b: Rows) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.fallbacks == b.fallbacks


def about(twin):
    """The ground truth with noise that differs between persons."""

    def predict(name: str):
        vertices, origin = twin.truth[name]
        seed = np.frombuffer(name.encode(), np.uint8).sum()
        return vertices + np.random.default_rng(seed).normal(0, 0.02, vertices.shape), origin

    return predict


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_processes_share_the_persons_exactly(twin, opened, tmp_path: Path, world: int):
    """Each makes its own parts and no other's, all of them every part, in whatever order they come."""
    run = opened(PROTOCOL, about(twin), batch=2, part=4)
    whole = evaluate(run, range(PERSONS))
    place = run.config.folder / PARTS
    place.mkdir(parents=True)
    made: list[str] = []
    for rank in reversed(range(world)):
        alone = replace(run, config=replace(run.config, out=tmp_path / str(rank)))
        run_parts(alone, rank, world)
        for path in (alone.config.folder / PARTS).glob("*"):
            made.append(path.name)
            path.rename(place / path.name)
    assert sorted(made) == [f"part-{i:05d}.npz" for i in range(3)]
    same(merge(run), whole)


def test_a_part_too_few_or_twice_is_refused(twin, opened):
    run = opened(PROTOCOL, about(twin), batch=2, part=4)
    run_parts(run, 0, 1)
    first, second = (run.config.folder / PARTS / f"part-0000{i}.npz" for i in (0, 1))
    rows, header = load(first)
    save(second, rows, {**header, "part": 1})
    with pytest.raises(InputError, match="every person exactly once"):
        merge(run)
    second.unlink()
    with pytest.raises(InputError, match=r"a part of the run is missing.*Run the command again"):
        merge(run)


def test_parts_of_another_run_are_refused(twin, opened):
    run = opened(PROTOCOL, about(twin), batch=2, part=4)
    run_parts(run, 0, 1)
    for other, message in (
        (opened(PROTOCOL, about(twin), batch=4, part=4), "another batch"),
        (opened(PROTOCOL, about(twin), batch=2, part=4, limit=6), "another persons .12; now 6"),
        (replace(run, weights_record={**run.weights_record, "sha256": "1" * 64}), "another weights"),
        (replace(run, weights_record={**run.weights_record, "body": {"sha256": "1"}}), "another body"),
        (replace(run, protocol=replace(run.protocol, version=2)), "hash"),
    ):
        with pytest.raises(InputError, match=rf"another run.*{message}.*--overwrite"):
            run_parts(other, 0, 1)
    (run.config.folder / PARTS / "part-00000.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"part-00000\.npz"):
        run_parts(run, 0, 1)


def test_rows_come_back_as_they_were(twin, opened, tmp_path: Path):
    run = opened(PROTOCOL, about(twin), batch=4)
    rows = evaluate(run, range(8))
    save(tmp_path / "r.npz", rows, {"a": 1})
    loaded, header = load(tmp_path / "r.npz")
    same(loaded, rows)
    assert header == {"a": 1} and [p.name for p in tmp_path.glob("*.npz")] == ["r.npz"]
    same(concatenate([evaluate(run, range(4, 8)), evaluate(run, range(0, 4))]), rows)


def test_nonsense_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="batch=0"):
        EvaluationConfig(protocol=PROTOCOL, out=tmp_path, batch=0)


# The shipped model, through the command line's own door


@pytest.fixture(scope="module")
def settings(twin, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return {"protocol": PROTOCOL, "data": twin.data, "batch": 1, "part": 1, "limit": SOME}


@pytest.fixture(scope="module")
def whole(twin, settings: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, uninterrupted; the folder of its result."""
    before = os.environ.get("DPMESH_ASSETS")
    os.environ["DPMESH_ASSETS"] = str(twin.root / "assets")
    try:
        path = run_evaluation(
            EvaluationConfig(out=tmp_path_factory.mktemp("whole"), **settings), say=lambda _: None
        )
    finally:
        os.environ.pop("DPMESH_ASSETS") if before is None else os.environ.update(DPMESH_ASSETS=before)
    assert path is not None
    return path.parent


def words(settings: dict, out: Path) -> list[str]:
    return [
        "eval", "run", settings["protocol"], "--data", str(settings["data"]), "--out", str(out), "--batch", "1",
        "--save-every", "1", "--people", str(SOME),
    ]  # fmt: skip


def test_what_a_result_holds(whole: Path):
    found = read(whole)
    persons = found["persons"]
    assert persons == {
        "evaluated": SOME, "failures": 0, "unusable": 0, "partial": True, "found": 12, "published": 1923,
        "difference": 12 - 1923,
    }  # fmt: skip
    assert found["protocol"]["hash"] == "fba9b1aac604500f" and len(found["weights"]["sha256"]) == 64
    assert found["weights"]["provenance"] and found["package"]
    assert found["fallbacks"] == {NO_MPVE: SOME}
    assert (
        found["figures"]["mean"]["MPJPE"]["count"] == SOME
        and found["figures"]["mean"]["MPVE"]["mean"] is None
    )
    text = (whole / "result.md").read_text()
    assert "partial: the first 3 of 12 persons" in text and "1911 persons fewer than published" in text
    found = sorted(p.name for p in whole.iterdir() if p.name != LOCK)
    assert found == ["result.json", "result.md", "rows.npz", "worst"]
    rows = load(whole / "rows.npz")[0]
    worst = sorted(p.name for p in (whole / "worst").iterdir())
    assert len(worst) == SOME and worst[0].startswith(
        "01_" + str(rows.ids[rows.mpjpe.argmax()]).replace("/", "_")
    )


@pytest.mark.slow
def test_two_processes_give_the_same(twin, whole: Path, settings: dict, tmp_path: Path):
    path = run_evaluation(EvaluationConfig(out=tmp_path, **settings), processes=2, say=lambda _: None)
    assert path is not None
    same(load(path.parent / "rows.npz")[0], load(whole / "rows.npz")[0])
    assert read(path)["figures"] == read(whole)["figures"]


@pytest.mark.slow
def test_killed_then_finished_by_torchrun(twin, whole: Path, settings: dict, tmp_path: Path):
    """SIGKILL, then two processes of torchrun: what was saved is taken as it is, the rest is made."""
    parts = tmp_path / PROTOCOL / PARTS
    run = subprocess.Popen(
        [sys.executable, "-m", "dpmesh", *words(settings, tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 240
    while len(list(parts.glob("part-*.npz"))) < 1 and time.monotonic() < until:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    kept = sorted(parts.glob("part-*.npz"))
    assert 1 <= len(kept) <= SOME and not (tmp_path / PROTOCOL / "result.json").exists()
    rows, header = load(kept[0])
    save(kept[0], replace(rows, mpjpe=rows.mpjpe + 1000), header)  # a mark: is it made again?
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "dpmesh", *words(settings, tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("→ ") == 1  # one process reports
    finished, wanted = load(tmp_path / PROTOCOL / "rows.npz")[0], load(whole / "rows.npz")[0]
    mark = 1000.0 * (np.arange(SOME) < 1)
    np.testing.assert_allclose(finished.mpjpe, wanted.mpjpe + mark, rtol=1e-12)
    same(replace(finished, mpjpe=wanted.mpjpe), wanted)


def test_a_finished_result_is_kept_without_overwrite(twin, whole: Path, settings: dict):
    before = (whole / "result.json").stat().st_mtime_ns
    printed: list[str] = []
    run_evaluation(EvaluationConfig(out=whole.parent, **settings), say=printed.append)
    assert (whole / "result.json").stat().st_mtime_ns == before and "kept" in printed[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": SOME - 1}, "other limit"),
        ({"body": "some.npz"}, "other body"),
        ({"weights": "there/is/none"}, "other weights"),
    ],
)
def test_a_finished_result_of_another_run_is_refused(
    twin, whole: Path, settings: dict, change: dict, message: str
):
    before = (whole / "result.json").read_bytes()
    with pytest.raises(InputError, match=rf"{message}.*--overwrite"):
        run_evaluation(EvaluationConfig(out=whole.parent, **(settings | change)))
    assert (whole / "result.json").read_bytes() == before


def test_what_uses_no_network_is_known_by_what_it_uses(tmp_path: Path):
    """So that the slow fit need not be made again for new weights, and is for a new pose prior."""
    (tmp_path / WEIGHTS).write_bytes(b"other weights")
    methods = ("network", "lifter", "blank", "refine", "flip", "fit", "t-pose")
    old, new = (
        {
            m: weights_checksums(EvaluationConfig(protocol=PROTOCOL, out=tmp_path, weights=w, method=m))[
                "sha256"
            ]
            for m in methods
        }
        for w in ("embedded", str(tmp_path))
    )
    assert [m for m in methods if old[m] == new[m]] == ["fit", "t-pose"]
    assert old["fit"] == sha256(SHIPPED / "prior" / WEIGHTS) and not old["t-pose"]
    assert (
        len({old[m] for m in ("network", "lifter", "blank", "refine", "flip")}) == 1
        and old["network"] != old["fit"]
    )


def test_a_worker_reports_its_error(twin, settings: dict, tmp_path: Path):
    """It goes through a pipe, so it must survive pickling; starting processes for it would take ten seconds."""
    errors: queue.Queue = queue.Queue()
    work(EvaluationConfig(out=tmp_path, weights=str(tmp_path / "none"), **settings), 0, 2, errors)
    error = pickle.loads(pickle.dumps(errors.get_nowait()))  # noqa: S301
    assert isinstance(error, DPMeshError) and "no such folder and no such shipped weights" in str(error)
    assert error.where == str(tmp_path / "none") and error.fix


def test_a_failing_worker_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Also one that is killed and reports no error."""
    for error, message in (
        (InputError("no light"), "no light"),
        (None, "was killed.*finished parts are kept"),
    ):
        monkeypatch.setattr(runner, "multiprocessing", Workers(error))
        with pytest.raises(InputError, match=message):
            runner.spawn_workers(EvaluationConfig(protocol=PROTOCOL, out=tmp_path), 2, lambda _: None)


class Workers:
    """Stands for multiprocessing: the first worker succeeds, the second reports `error` or is killed."""

    def __init__(self, error: DPMeshError | None) -> None:
        self.error = error
        self.Queue, self.made = queue.Queue, 0

    def get_context(self, _: str) -> "Workers":
        return self

    def Process(self, target: object, args: tuple) -> "Workers.One":
        return Workers.One(args[1], args[3], self.error)

    class One:
        def __init__(self, rank: int, errors: queue.Queue, error: DPMeshError | None) -> None:
            self.rank, self.errors, self.error = rank, errors, error
            self.exitcode = None if rank == 0 or error else -9

        def start(self) -> None:
            if self.rank == 0 or self.error:
                self.errors.put(self.error if self.rank else None)

        def terminate(self) -> None:
            self.exitcode = self.exitcode or -15

        def join(self) -> None:
            self.exitcode = self.exitcode or 0
