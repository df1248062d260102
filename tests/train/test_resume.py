"""The inputs of a run are recorded with its checkpoints: it resumes with the same, names what differs, and a
checkpoint is small, whole and made of numbers, or it is not written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dpmesh.errors import ConfigError, OutputError, WeightsError
from dpmesh.io import LOCK, folder_lock
from dpmesh.train import trainer as loop
from dpmesh.train.checkpoints import latest_checkpoint, save_checkpoint
from dpmesh.train.config import Settings
from dpmesh.train.record import write_config


@pytest.fixture(scope="module")
def base(child: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's run that was stopped after two of four steps."""
    out = tmp_path_factory.mktemp("base") / "run"
    child.make_weights(out, "tiny", 1)
    save = loop.save_checkpoint

    def and_stop(place: Path, state: dict[str, Any]) -> None:
        save(place, state)
        if state["step"] == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", and_stop)
        with pytest.raises(KeyboardInterrupt):
            loop.train(as_begun(child, out))
    return out


@pytest.fixture(scope="module")
def done(child: ModuleType, base: Path) -> Path:
    """The same, finished."""
    out = base.with_name("done")
    shutil.copytree(base, out)
    loop.train(as_begun(child, out))
    return out


def as_begun(child: ModuleType, out: Path, stage: dict[str, Any] | None = None, **more: Any) -> Settings:
    merged = {**child.stage("teacher", batch=2, steps=4), **(stage or {})}
    start = child.make_weights(out, "tiny", 1)
    return child.settings(out, merged, **{"start": start, "checkpoint_every": 0.0, **more})


def copied(folder: Path, to: Path) -> Path:
    """With the other files of the folder."""
    for neighbour in folder.parent.iterdir():
        if neighbour.name in (folder.name, "prior", "tiny_1", "tiny_2"):
            shutil.copytree(neighbour, to / neighbour.name)
    return to / folder.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"losses": {"betas": 0.5}}, "losses.betas was 0.05, is 0.5"),
        ({"stage": {"learning_rate": 0.5}}, "teacher.learning_rate was 0.001, is 0.5"),
        ({"stage": {"steps": 9}}, "teacher.steps was 4, is 9 in the middle"),
        ({"stage": {"kind": "images"}}, "teacher.kind was 'teacher', is 'images'"),
        ({"data": {"overfit_people": 3}}, "data.overfit_people was 4, is 3"),
        ({"seed": 2}, "seed was 1, is 2"),
        ({"betas": [0.9, 0.999]}, "betas was"),
        ({"precision": "bf16-mixed"}, "precision was 32-true, is bf16-mixed"),
        ({"start": ""}, "start is no longer set"),
    ],
)
def test_a_run_goes_on_only_as_it_was_begun(
    child: ModuleType, base: Path, tmp_path: Path, changes: dict[str, Any], said: str
):
    out = copied(base, tmp_path)
    before = (out / "last.ckpt").read_bytes()
    with pytest.raises(ConfigError, match="was started with other settings") as error:
        loop.train(as_begun(child, out, **changes))
    assert said in str(error.value)
    assert (out / "last.ckpt").read_bytes() == before and not (out / "weights").exists()


def test_other_weights_under_the_same_name_are_noticed(child: ModuleType, base: Path, tmp_path: Path):
    out = copied(base, tmp_path)
    path = out.parent / "tiny_1" / "model.safetensors"
    stored = load_file(path)
    save_file(
        {name: value + 1 if value.is_floating_point() else value for name, value in stored.items()}, path
    )
    with pytest.raises(ConfigError, match="the content of start has changed"):
        loop.train(as_begun(child, out))


def test_what_does_not_change_the_numbers_may_change(
    child: ModuleType, base: Path, done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Another place, other intervals and workers; the weights are the undisturbed run's."""
    out = copied(base, tmp_path)
    more = {
        "log_every": 3,
        "workers": 1,
        "preview_every": 3,
        "activation_checkpointing": True,
        "checkpoint_every": 1e9,
    }
    weights = loop.train(as_begun(child, out, **more))
    one, other = ((folder / "model.safetensors").read_bytes() for folder in (weights, done / "weights"))
    assert one == other


def test_a_rate_that_stands_still_may_do_so_for_longer(child: ModuleType, base: Path, tmp_path: Path):
    out = copied(base, tmp_path)
    state = latest_checkpoint(out)
    assert state is not None
    record = state["record"]["stages"][0]
    record["settings"] |= {"stage.schedule": "step", "stage.decay_steps": 1}
    record["decay_steps"] = 1
    save_checkpoint(out, state)
    longer = {"schedule": "step", "decay_steps": 1}
    with pytest.raises(ConfigError, match=r"teacher\.steps was 4, is 2"):
        loop.train(as_begun(child, out, {**longer, "steps": 2}))
    loop.train(as_begun(child, out, {**longer, "steps": 6}))
    end = latest_checkpoint(out)
    assert end is not None and end["record"]["stages"][0]["steps"] == 6


def test_a_finished_run_is_reported_and_lost_weights_are_an_error(
    child: ModuleType, done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = copied(done, tmp_path)
    caplog.set_level("INFO")
    assert loop.train(as_begun(child, out)) == out / "weights"
    assert "every stage is finished already, nothing was trained" in caplog.text
    with pytest.raises(
        ConfigError, match=r"teacher.steps was 4, is 9 after the stage was finished \(4 steps\)"
    ):
        loop.train(as_begun(child, out, {"steps": 9}))
    path = out / "weights/model.safetensors"
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1
    path.write_bytes(stored)
    with pytest.raises(WeightsError, match="not the weights that the finished run left"):
        loop.train(as_begun(child, out))
    shutil.rmtree(out / "weights")
    with pytest.raises(WeightsError, match="its weights are gone"):
        loop.train(as_begun(child, out))


def test_a_checkpoint_has_what_is_trained_and_is_not_copied_into_memory(base: Path):
    state = latest_checkpoint(base)
    assert state is not None
    names = set(state["objective"])
    assert any(".lora_" in name for name in names) and "model.backbone.fusion.mix.0.weight" in names
    kept = {name for name in names if name.startswith(("model.backbone.vae", "model.backbone.unet"))}
    assert all(".lora_" in name for name in kept)
    assert not any(name.startswith("model.pose_prior") and name.endswith("weight") for name in names)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "last.ckpt" in line]
    spans = [[int(end, 16) for end in line[0].split("-")] for line in maps]
    for value in state["objective"].values():  # in the mapped file, which processes share
        assert any(low <= value.data_ptr() < high for low, high in spans)


def test_a_run_records_its_settings_inputs_and_commit(child: ModuleType, done: Path):
    record = json.loads((done / "config.json").read_text())
    assert record["settings"]["losses"]["joints3d"] == 10.0 and record["commit"]
    (stage,) = record["stages"]
    assert stage["settings"]["stage.learning_rate"] == 1e-3 and stage["steps"] == 4
    assert set(stage["inputs"]) == {"start", "prior"} and len(stage["left"]) == 64
    provenance = json.loads((done / "weights/config.json").read_text())["provenance"]
    assert provenance["losses"]["joints3d"] == 10.0 and provenance["stage"]["learning_rate"] == 1e-3
    assert provenance["data"]["augment"]["noise"] is True and provenance["commit"] == record["commit"]
    assert provenance["inputs"] == stage["inputs"]


def test_a_checkpoint_without_a_record_or_of_nonsense_is_one_line(
    child: ModuleType, base: Path, tmp_path: Path
):
    out = copied(base, tmp_path)
    for state in (
        {"stage": 0, "step": 1, "objective": {"x": torch.ones(1)}, "optimizer": {}},
        {"stage": 0, "step": 1, "record": {"stages": [{}]}},
        {"step": "x"},
    ):
        save_checkpoint(out, state)
        with pytest.raises(ConfigError):
            loop.train(as_begun(child, out))


def test_nothing_is_written_of_a_state_that_is_no_number(
    child: ModuleType, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = copied(base, tmp_path)
    advance = loop.StageRun.optimizer_step

    def broken(run: loop.StageRun) -> None:
        advance(run)
        if run.step == run.steps:
            run.groups[0].parameters[0].data.view(-1)[0] = float("inf")

    monkeypatch.setattr(loop.StageRun, "optimizer_step", broken)
    for more in ({}, {"checkpoint_every": 1e9}):  # at a checkpoint, at the end
        with pytest.raises(loop.DivergedError, match="so nothing was written"):
            loop.train(as_begun(child, out, log_every=0, **more))
        state = latest_checkpoint(out)
        assert state is not None and state["step"] == 3 and not (out / "weights").exists()


def test_a_second_training_in_the_folder_is_refused(child: ModuleType, base: Path, tmp_path: Path):
    out = copied(base, tmp_path)
    with folder_lock(out, "training"), pytest.raises(OutputError, match="another training is writing here"):
        loop.train(as_begun(child, out))


@pytest.mark.parametrize("what", ["start", "prior", "teacher"])
def test_weights_that_hold_nan_are_refused_by_name(child: ModuleType, base: Path, tmp_path: Path, what: str):
    out = copied(base, tmp_path).with_name("new")
    settings = as_begun(child, out)
    if what == "teacher":
        other = child.make_weights(out, "tiny", 2)
        student = child.stage("student", batch=2, teacher=other)
        settings = child.settings(out, student, start=settings.start)
    folder = {
        "start": settings.start,
        "prior": settings.prior,
        "teacher": getattr(settings.stages[0], "teacher", ""),
    }[what]
    path = Path(folder) / "model.safetensors"
    stored = load_file(path)
    name = "codebook.codes" if what == "prior" else "regressor.down.0.weight"
    name = name if name in stored else next(n for n, v in stored.items() if v.dim() > 1)
    stored[name].flatten()[0] = float("nan")
    save_file(stored, path)
    with pytest.raises(WeightsError, match="holds NaN or infinity") as error:
        loop.train(replace(settings, workers=0))
    assert folder in str(error.value) and name in str(error.value)


@pytest.mark.parametrize(
    "name", ["config.json", "weights/model.safetensors", "log_teacher.csv", "validation.csv", "notes.txt"]
)
def test_a_folder_of_something_else_is_refused_before_anything_is_written(
    child: ModuleType, tmp_path: Path, name: str
):
    out = tmp_path / "run"
    settings = as_begun(child, out)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match=r"and no training of dpmesh\. Choose another `out`\."):
        loop.train(settings)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
    assert (out / name).read_text() == '{"mine": 1}'


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed as soon as its log has a line, and while it had nothing but its lock."""
    out = tmp_path / "run"
    settings = as_begun(child, out, {"steps": 2}, checkpoint_every=1e9)
    out.mkdir()
    (out / LOCK).touch()
    (out / ".config.json.0a1b2c3d.part").write_text("{")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dpmesh.train.logging.TrainingLog.step", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(settings)
    (out / "log_teacher.csv").write_text("stage,step,loss\n")
    assert not list(out.glob("*.ckpt"))
    assert (loop.train(settings) / "model.safetensors").is_file()


def test_a_table_of_something_else_is_one_line(child: ModuleType, tmp_path: Path):
    out = tmp_path / "run"
    settings = as_begun(child, out)
    write_config(out, settings, [])
    (out / "validation.csv").write_text("name,age\nx,1\n")
    with pytest.raises(
        ConfigError, match=r"validation\.csv: is no table of a training\. Choose another `out`"
    ):
        loop.train(settings)
    assert (out / "validation.csv").read_text() == "name,age\nx,1\n"
