"""The loop learns, resumes to the same numbers, and refuses what it should."""

import csv
from pathlib import Path

import pytest
import torch

from dpmesh.cli.train import changes
from dpmesh.errors import ConfigError
from dpmesh.model import DPMesh
from dpmesh.train import loop
from dpmesh.train.objective import Objective
from dpmesh.train.settings import Settings, Stage, read_settings

KEYPOINTS = Stage(name="k", source="keypoints", steps=6, batch=4, learning_rate=1e-3, warmup=2)
IMAGES = Stage(
    name="i", source="images", steps=3, batch=2, learning_rate=1e-3, warmup=1, no_features=0.2, scrambled=0.2
)


def settings(out: Path, **changed: object) -> Settings:
    values = {
        "model": "embedded", "stages": (KEYPOINTS, IMAGES), "out": str(out), "precision": "32-true", "workers": 0,
        "validate_every": 1000, "validation_people": 2, "log_every": 1, "checkpoint_every": 1e9,
    }  # fmt: skip
    return Settings(**{**values, **changed})  # type: ignore[arg-type]


def losses(out: Path, stage: str) -> dict[int, float]:
    with (out / f"log_{stage}.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def test_a_killed_run_goes_on_with_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    weights = loop.train(settings(whole))
    assert DPMesh.from_pretrained(weights).config.name == "embedded"

    class Killed(Exception):
        pass

    calls = {"n": 0}
    forward = Objective.forward

    def dying(self, batch, seed):
        calls["n"] += 1
        if calls["n"] == 8:  # the second step of the second stage
            raise Killed
        return forward(self, batch, seed)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "forward", dying)
        with pytest.raises(Killed):
            loop.train(settings(torn, checkpoint_every=0.0))
    loop.train(settings(torn))
    assert losses(torn, "k") == losses(whole, "k")
    again = losses(torn, "i")
    assert {step: again[step] for step in (1, 2, 3)} == losses(whole, "i")


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self, batch, seed):
        return torch.tensor(float("nan"), requires_grad=True), {}

    monkeypatch.setattr(Objective, "forward", broken)
    with pytest.raises(loop.DivergedError, match="at step 0 of stage k"):
        loop.train(settings(tmp_path / "nan"))


def test_a_checkpoint_that_is_no_checkpoint_is_refused(tmp_path: Path):
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="torn"):
        loop.train(settings(tmp_path))


def test_configs_in_the_repository_are_valid():
    for path in (Path(__file__).parents[2] / "configs").glob("embedded*.toml"):
        assert read_settings(path).stages


def test_unknown_settings_are_refused(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text('model = "embedded"\nstages = []\nsteps = 3\n')
    with pytest.raises(ConfigError, match="unknown setting 'steps'"):
        read_settings(path)
    path.write_text(
        'model = "embedded"\n[[stages]]\nname = "x"\nsource = "dreams"\nsteps=1\nbatch=1\nlearning_rate=1.0\n'
    )
    with pytest.raises(ConfigError, match="not one of"):
        read_settings(path)


def test_changes_from_the_command_line():
    assert changes(["--set.out", "x", "--set.seed", "3"]) == {"out": "x", "seed": 3}
    with pytest.raises(ConfigError, match="not understood"):
        changes(["--out", "x"])


def test_a_model_without_a_shipped_prior_needs_weights_to_start_from(tmp_path: Path):
    for name in ("paper", "release"):
        with pytest.raises(ConfigError, match="no pose prior for"):
            loop.train(settings(tmp_path, model=name))
