"""The loop learns, resumes after a kill with equal losses, survives a torn checkpoint and a full disk, stops at NaN."""

import csv
import json
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dpmesh.errors import ConfigError, OutputError
from dpmesh.train import divergence
from dpmesh.train import trainer as loop
from dpmesh.train.checkpoints import latest_checkpoint, save_checkpoint
from dpmesh.train.objectives.mesh import MeshObjective


def lines(out: Path, stage: str) -> list[dict[str, str]]:
    """Without what depends on the clock."""
    with (out / f"log_{stage}.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "samples_per_s"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def stages(child: ModuleType) -> list[dict[str, Any]]:
    small = {"batch": 2, "steps": 4, "accumulate": 2}
    return [child.stage("teacher", **small), child.stage("student", **small)]


@pytest.fixture(scope="module")
def whole(child: ModuleType, stages: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    loop.train(child.settings(out, *stages, ema_decay=0.9))
    return out


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_losses(
    child: ModuleType, stages: list[dict[str, Any]], whole: Path
):
    """SIGKILL, twice: while the teacher trains and while the student does."""
    out = whole.parent / "killed"
    for at in ((0, 2), (1, 1)):
        plain = {"stages": stages, "ema_decay": 0.9, "checkpoint_every": 0.0, "dies": at}
        words = [sys.executable, child.__file__, "train", str(out), json.dumps(plain)]
        done = subprocess.run(words, capture_output=True, timeout=300)
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    state = latest_checkpoint(out)
    assert state is not None and (state["stage"], state["step"]) == (1, 1)
    loop.train(child.settings(out, *stages, ema_decay=0.9, checkpoint_every=0.0))
    for stage in ("teacher", "student"):
        assert lines(out, stage) == lines(whole, stage)
    one, other = ((folder / "weights/model.safetensors").read_bytes() for folder in (out, whole))
    assert one == other


def test_a_torn_checkpoint_is_reported_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for step in (1, 2):
        save_checkpoint(tmp_path, {"stage": 0, "step": step, "weights": torch.arange(1000.0)})
    assert latest_checkpoint(tmp_path)["step"] == 2  # type: ignore[index]
    last = tmp_path / "last.ckpt"
    stored = bytearray(last.read_bytes())
    for torn in (stored[: len(stored) // 2], _flipped(stored)):
        last.write_bytes(torn)
        assert latest_checkpoint(tmp_path)["step"] == 1  # type: ignore[index]
        assert "torn" in caplog.text
        caplog.clear()
    (tmp_path / "before.ckpt").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="every checkpoint is torn"):
        latest_checkpoint(tmp_path)
    assert latest_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("pickled", [b"\x80\x02e.", b"\x80\x02K\x01K\x01b.", b"\x80\x02}.", b"\x80\x02"])
def test_whole_archives_that_are_no_checkpoint(tmp_path: Path, pickled: bytes):
    """Every checksum is right; the unpickler's stack runs empty, a number gets a state, nothing is in it."""
    save_checkpoint(tmp_path, {"stage": 0, "step": 1})
    with zipfile.ZipFile(tmp_path / "last.ckpt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
    with pytest.raises(ConfigError, match="no checkpoint of a training"):
        latest_checkpoint(tmp_path)


def test_a_checkpoint_that_does_not_unpack_is_torn(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("last/data.pkl", bytes(500))
        start = 30 + len("last/data.pkl")
    stored = bytearray((tmp_path / "last.ckpt").read_bytes())
    stored[start] |= 7  # a kind of block that does not exist
    (tmp_path / "last.ckpt").write_bytes(stored)
    with pytest.raises(ConfigError, match="every checkpoint is torn"):
        latest_checkpoint(tmp_path)


def _flipped(stored: bytearray) -> bytes:
    """One bit in the midst of the numbers."""
    changed = bytearray(stored)
    changed[stored.index(torch.arange(1000.0).numpy().tobytes()) + 1003] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(("behind", "checkpoint_every", "steps"), [(0, 0.0, 2), (1, 0.0, 2), (1, 1e9, 3)])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_people(
    child: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    behind: int,
    checkpoint_every: float,
    steps: int,
):
    """behind: as on a GPU, which is asked one step later, and before anything is written."""
    monkeypatch.setitem(divergence.BEHIND, "cpu", behind)
    forward, ran = MeshObjective.forward, list[int]()

    def broken(self: MeshObjective, batch: Any, part: Any) -> Any:
        loss, terms = forward(self, batch, part)
        ran.append(part.step)
        return loss * (float("nan") if part.step == 1 else 1.0), terms

    monkeypatch.setattr(MeshObjective, "forward", broken)
    out = tmp_path / "run"
    with pytest.raises(loop.DivergedError, match="at step 1 of stage teacher, people synthetic/"):
        loop.train(
            child.settings(
                out, child.stage("teacher", batch=2), checkpoint_every=checkpoint_every, log_every=3
            )
        )
    assert ran == [0, 1, 2][:steps]
    state = latest_checkpoint(out)
    if behind:
        assert state is None  # it was asked for at step 0, and would have been written at step 1
    else:
        assert state is not None and state["step"] == 1
        assert all(torch.isfinite(value).all() for value in state["objective"].values())
    assert not (out / "weights").exists()
    record = json.loads((out / "diverged.json").read_text())
    assert record["step"] == 1
    assert record["record_ids"] == ["synthetic/1/2", "synthetic/1/3"]  # the second two of four people


def test_an_average_of_the_weights_is_kept(whole: Path, child: ModuleType, stages: list[dict[str, Any]]):
    """What is kept is neither the start nor the last step's weights."""
    out = whole.parent / "plain"
    loop.train(child.settings(out, stages[0]))
    plain, averaged = (
        (folder / name / "model.safetensors").read_bytes()
        for folder, name in ((out, "weights"), (whole, "weights_teacher"))
    )
    assert lines(out, "teacher") == lines(whole, "teacher")
    assert plain != averaged


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path):
    save_checkpoint(tmp_path, {"stage": 0, "step": 1, "weights": torch.arange(1000.0)})
    before = (tmp_path / "last.ckpt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            save_checkpoint(tmp_path, {"stage": 0, "step": 2, "weights": torch.arange(1_000_000.0)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == before
