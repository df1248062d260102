"""What a training lacks is an error before its first step, and all of it is listed by --check; nonsense is refused."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dpmesh.ablations import configuration
from dpmesh.cli import train as cli
from dpmesh.config import PAPER
from dpmesh.diffusion.vae import VAEEncoder
from dpmesh.errors import ConfigError
from dpmesh.train import preflight
from dpmesh.train.config import Settings, model_name
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import Part, batches
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.optimizers import make_optimizer
from dpmesh.train.preflight import cost_of
from dpmesh.train.requirements import how_to_make


def findings(settings: Settings) -> preflight.Findings:
    return preflight.check_settings(settings, world=1, here=1, device=torch.device("cpu"))


def test_everything_that_is_missing_is_reported_at_once(
    child: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """All that the paper's student names is missing; each line has its next step, and nothing is written."""
    monkeypatch.setenv("DPMESH_ASSETS", str(tmp_path / "none"))
    here = {"root": str(tmp_path / "data"), "fits": "none"}
    data = {
        "group3d": [{"dataset": "h36m", **here}],
        "group2d": [{"dataset": "coco", **here}],
        "validation": [{"dataset": "3dpw", "split": "validation", **here}],
        "overfit_people": 0,
    }
    student = child.stage("student", teacher=str(tmp_path / "teacher"), epochs=2, steps=0)
    settings = child.settings(
        tmp_path / "run", student, start=str(tmp_path / "start"), prior=str(tmp_path / "nowhere"), data=data,
        validate_every=1, body="smpl", tensorboard=True,
    )  # fmt: skip
    assert cli.check_training(settings) == 1
    printed = capsys.readouterr().out
    for part in ("Human3", "MSCOCO", "3DPW", str(tmp_path / "start"), str(tmp_path / "teacher"), "nowhere"):
        assert part in printed, (part, printed)
    assert "no SMPL body was imported" in printed
    missing = [line for line in printed.splitlines() if line.startswith("missing: ")]
    assert len(missing) >= 7 and len(set(missing)) == len(missing)
    assert f"{len(missing)} things are missing" in printed
    assert not (tmp_path / "run").exists()


def test_no_missing_file_hides_another(
    child: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Everything is missing; then 3DPW's folder without its files. Every command can be copied."""
    monkeypatch.setenv("DPMESH_ASSETS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    data = {
        "group3d": [{"dataset": name, "root": "data"} for name in ("h36m", "muco")],
        "group2d": [{"dataset": name, "root": "data"} for name in ("coco", "crowdpose")],
        "validation": [{"dataset": "3dpw", "split": "validation", "root": "sets"}],
        "overfit_people": 0,
    }
    teacher = child.stage("teacher", epochs=20, steps=0)
    settings = child.settings(
        tmp_path / "run", teacher, start="weights/start", data=data, validate_every=1, body="smpl"
    )

    def lines() -> list[str]:
        assert cli.check_training(settings) == 1
        return capsys.readouterr().out.splitlines()

    listed = lines()
    missing = [line.removeprefix("missing: ") for line in listed if line.startswith("missing: ")]
    for part in (
        "data/Human36M: Human3.6M", "data/MuCo: MuCo", "data/MSCOCO: MSCOCO", "data/CrowdPose: CrowdPose",
        "sets/PW3D/data or sets/3DPW", "dpmesh data pack sets data", "dpmesh convert sd15 FOLDER weights/start",
        *(f"dpmesh assets import {n}" for n in ("SMPL_NEUTRAL.pkl", "SMPL_MALE.pkl", "SMPL_FEMALE.pkl")),
        "dpmesh assets import J_regressor_h36m_correct.npy",
    ):  # fmt: skip
        assert any(part in line for line in missing), (part, missing)
    assert len(missing) == 10 and not any("--data" in line for line in listed)
    assert "stage teacher (teacher): 20 epochs, batch 4" in listed[0] and "numbers are trained" in listed[1]
    (tmp_path / "sets/3DPW/imageFiles").mkdir(parents=True)
    listed = lines()
    assert any("3DPW's 3DPW_latest_validation.json or sequenceFiles is not here" in line for line in listed)
    (tmp_path / "sets/3DPW/imageFiles").rename(tmp_path / "sets/3DPW/sequenceFiles")
    listed = lines()
    assert any("3DPW's imageFiles is not here" in line for line in listed)


def test_weights_that_are_not_there_name_what_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert how_to_make("runs/paper_teacher/weights", PAPER) == (
        "Train it first: dpmesh train configs/paper_teacher.toml."
    )
    assert how_to_make("runs/mine/prior", PAPER) == ("Train it first (the config whose `out` is runs/mine).")
    assert "dpmesh convert released CHECKPOINT weights/3dpw" in how_to_make(
        "weights/3dpw", configuration("release")
    )


def test_what_is_there_is_counted(child: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stages = [child.stage("teacher"), child.stage("student")]
    settings = child.settings(tmp_path / "run", *stages, ema_decay=0.9)
    assert cli.check_training(settings) == 0
    printed = capsys.readouterr().out
    assert "stage teacher (teacher): 3 steps of 4" in printed and "everything is there" in printed
    cost = cost_of(TrainingContext.resolve(settings), 1, 1)
    objective = make_objective(TrainingContext.resolve(child.settings(tmp_path / "run", stages[0])), 0)
    trained = [p for p in objective.parameters() if p.requires_grad]
    assert cost.trained == cost.teacher == sum(p.numel() for p in trained)
    assert cost.weights == sum(p.numel() for p in objective.parameters())
    assert cost.checkpoint == 4 * 4 * cost.trained  # weights, Adam's two, the average


def test_too_little_memory_or_disk_is_reported(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = child.settings(tmp_path / "run", child.stage("teacher"))
    monkeypatch.setattr(preflight, "free_memory", lambda _device, _here: 1000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _path: type("", (), {"free": 1000}))
    memory, disk = findings(settings).problems
    assert "in each process" in str(memory) and "are needed for checkpoints and weights" in str(disk)


@pytest.mark.parametrize(
    ("stage", "more", "said"),
    [
        ({"batch": 3, "accumulate": 2}, {}, "cannot be cut"),
        ({"kind": "prior", "poses": "nowhere.npz"}, {}, "nowhere.npz"),
        ({}, {"start": "nowhere"}, "these start weights do not exist"),
        ({}, {"model": "nothing"}, "no configuration 'nothing'"),
        ({}, {"prior": "nowhere"}, "this folder of a pose prior does not exist"),
        ({"kind": "uncertainty"}, {"model": "embedded", "prior": ""}, "no weights whose predictions"),
        ({"kind": "student"}, {}, "a student needs a teacher"),
    ],
)
def test_one_thing_that_is_missing(
    child: ModuleType, tmp_path: Path, stage: dict[str, Any], more: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=said) if said == "cannot be cut" else _nothing():
        problems = findings(
            child.settings(tmp_path / "run", {**child.stage("teacher"), **stage}, **more)
        ).problems
        assert said in "\n".join(map(str, problems)), problems


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_a_backbone_that_stays_random_is_refused(child: ModuleType, tmp_path: Path):
    """Low-rank updates on random numbers teach nothing; a model that trains all of its backbone may begin so."""
    for kind in ("teacher", "images"):
        settings = child.settings(tmp_path / "run", child.stage(kind), allow_random_backbone=False)
        with pytest.raises(ConfigError, match="keeps the U-Net under its low-rank updates as it is"):
            make_objective(TrainingContext.resolve(settings), 0)
        assert any("random numbers" in str(problem) for problem in findings(settings).problems)
    settings = child.settings(
        tmp_path / "run", child.stage("teacher"), model="reading", allow_random_backbone=False
    )
    assert not findings(settings).problems and make_objective(TrainingContext.resolve(settings), 0)


def test_without_factors_no_teacher_is_loaded(child: ModuleType, tmp_path: Path):
    nothing = {"nkr_contrast": 0.0, "nkr_mse": 0.0}
    settings = child.settings(tmp_path / "run", child.stage("student", teacher="nowhere"), losses=nothing)
    objective = make_objective(TrainingContext.resolve(settings), 0)
    assert isinstance(objective, MeshObjective) and objective.teaching is None
    assert not findings(settings).problems
    batch = next(batches(settings.stages[0], settings, range(1)))[2]
    assert "nkr_mse" not in objective(batch, Part(1, 0))[1]


def test_one_frozen_encoder_sees_the_crop_once(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The student's latent serves the teacher, with the same numbers; an encoder of its own makes its own."""
    own = child.make_weights(tmp_path / "run", "tiny", 1)
    settings = child.settings(tmp_path / "run", child.stage("student", teacher=own), start=own)
    batch = next(batches(settings.stages[0], settings, range(1)))[2]
    calls, forward = list[int](), VAEEncoder.forward
    monkeypatch.setattr(VAEEncoder, "forward", lambda self, x: calls.append(1) or forward(self, x))

    def terms(objective: Any) -> tuple[int, dict[str, torch.Tensor]]:
        calls.clear()
        values = objective(batch, Part(1, 0))[1]
        return len(calls), values

    objective = make_objective(TrainingContext.resolve(settings), 0)
    assert isinstance(objective, MeshObjective) and objective.teaching is not None
    assert objective.teaching.one_encoder
    once, alike = terms(objective)
    objective.teaching.one_encoder = False
    twice, apart = terms(objective)
    assert (once, twice) == (1, 2)
    for name, value in apart.items():
        if name.startswith("nkr"):  # without gradients the encoder rounds otherwise
            torch.testing.assert_close(alike[name], value, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(alike[name], value), name
    other = child.make_weights(tmp_path / "run", "tiny", 2)
    with_other = make_objective(
        TrainingContext.resolve(
            child.settings(tmp_path / "run", child.stage("student", teacher=other), start=own)
        ),
        0,
    )
    assert isinstance(with_other, MeshObjective) and with_other.teaching is not None
    assert not with_other.teaching.one_encoder  # other numbers: each encodes the crop itself
    assert terms(with_other)[0] == 2


def test_the_optimisers_decays_are_settings(child: ModuleType, tmp_path: Path):
    settings = child.settings(tmp_path / "run", child.stage("teacher"), betas=[0.8, 0.999])
    optimizer = make_optimizer(
        make_objective(TrainingContext.resolve(settings), 0).groups(), 1e-3, settings, sharded=False
    )
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.999)}


def test_a_model_with_overrides_is_named_in_short(child: ModuleType, tmp_path: Path):
    """By its name and the changed keys, never by the whole table; of a prior the size that differs is named."""
    changed = {"name": "tiny", "pose_prior": {"codes": 12}, "lora_rank": 4, "token_width": 5}
    own = child.make_weights(tmp_path / "run", "tiny", 1)
    with_start = child.settings(tmp_path / "run", child.stage("teacher"), model=changed, start=own)
    text = "\n".join(map(str, findings(with_start).problems))
    name = "'tiny' with another pose_prior.codes, lora_rank, token_width"
    assert f"these are not weights of {name}, but of 'tiny'" in text
    assert f"this is no pose prior of {name}: codes is 10, not 12. Train one" in text and "{" not in text
    assert model_name("paper") == "'paper'" and model_name({"name": "paper"}) == "'paper'"
    many = {"name": "paper", **dict.fromkeys("abcde", 1)}
    assert model_name(many) == "'paper' with another a, b, c and 2 more"


def test_what_ends_in_a_bracket_has_a_full_stop():
    error = ConfigError("seed was 1, is 2 after the stage was finished (4 steps)", fix="Take the old values.")
    assert str(error).endswith("(4 steps). Take the old values.")
