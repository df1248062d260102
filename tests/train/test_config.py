"""A training config refuses what it does not know; settings change from the command line by dotted names."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpmesh.ablations import configuration
from dpmesh.cli.main import main
from dpmesh.cli.train import changes
from dpmesh.config import EMBEDDED
from dpmesh.config_io import from_dict, to_dict
from dpmesh.errors import ConfigError
from dpmesh.pose_prior.prior import DirectConfig
from dpmesh.train import config as settings
from dpmesh.train.config import Settings
from dpmesh.train.config_file import RENAMED, read_settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.stages import ImageStage, PriorStage, StudentStage

CONFIGS = Path(__file__).parents[2] / "configs"
CHAIN = CONFIGS / "embedded_chain.toml"
ONE = (
    'model = "embedded"\n[[stages]]\nname = "x"\nbatch = 4\nsteps = 1\nlearning_rate = 1.0\nkind = "images"\n'
)


def test_configs_in_the_repository_are_valid():
    paths = sorted(CONFIGS.rglob("*.toml"))
    assert len(paths) >= 20
    for path in paths:
        assert read_settings(path).stages


def test_values_are_laid_over_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the file, from the command line, and over each other; the rest stays the named configuration's."""
    monkeypatch.setattr(
        settings, "check_buildable", lambda config: None
    )  # has tests of its own, and takes a second
    path = tmp_path / "c.toml"
    table = '[model]\nname = "embedded"\nbackbone.unet.channels = [24, 48, 72, 72]\n'
    path.write_text("\n".join((table, ONE.split("\n", 1)[1])))
    own = configuration(read_settings(path).model)
    unet = replace(EMBEDDED.diffusion.unet, channels=(24, 48, 72, 72))
    assert own == replace(EMBEDDED, backbone=replace(EMBEDDED.diffusion, unet=unet))
    words = ["--set.model.token_mode", "soft", "--set.model.backbone.unet.heads=4"]
    both = configuration(read_settings(path, changes(words)).model)
    assert both == replace(
        own, token_mode="soft", backbone=replace(own.diffusion, unet=replace(unet, heads=4))
    )
    fused = configuration(read_settings(path, changes(["--set.model.name", "fused"])).model)
    assert fused.name == "fused" and fused.diffusion.unet == unet
    assert read_settings(path, changes(["--set.model", "fused"])).model == "fused"  # the whole table
    other = configuration(
        read_settings(path, changes(["--set.model.pose_prior.kind", "direct", *NO_CODES])).model
    )
    assert other.pose_prior == DirectConfig()  # nothing of the VQ-VAE's
    path.write_text(ONE)
    plain = read_settings(path, changes(["--set.model.name", "fused"]))
    assert plain.model == "fused"  # a table of a name alone
    run_settings = read_settings(path, changes(words))
    assert from_dict(Settings, json.loads(json.dumps(to_dict(run_settings)))) == run_settings


NO_CODES = ["--set.model.regressor.pose_code", "126"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set.model.backbon.pretrained", "true"], "model: unknown setting 'backbon'"),
        (["--set.model.backbone.pretrained", "true"], "model.backbone: unknown setting 'pretrained'"),
        (["--set.model.backbone.unet.channels", "32"], "model.backbone.unet.channels: 32 is not a list"),
        (["--set.model.backbone.unet.channels", "[32, 64, 96]"], "must name 4 levels"),
        (["--set.model.backbone.unet.heads", "0"], "model.backbone.unet: "),
        (["--set.model.backbone.unet.map_sizes", "[7]"], "map_sizes=(7,) must hold 8 and 16"),
        (["--set.model.backbone.fused_groups", "7"], "a model with these sizes cannot work"),
        (["--set.model.regressor.joints", "14"], "must be 15"),
        (["--set.model.backbone.kind", "resnet"], "kind must be one of diffusion, timm"),
        (["--set.model.token_mode", "hard"], "'hard' is not one of"),
        (["--set.model.name", "embeded"], "there is no configuration 'embeded'"),
        (["--set.model.name.x", "1"], "unknown setting 'model.name.x'"),
        (["--set.model", "3"], "3 is not str or Mapping"),
        (["--set.model", '{ token_mode = "soft" }'], "it names no configuration"),
    ],
)
def test_a_value_that_the_model_lacks_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["train", str(CHAIN), *words]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_papers_values():
    """AdamW, batch 16, 1e-4 and a tenth of it in the last 5 epochs, weight decay 1e-6."""
    for name in ("teacher", "student"):
        settings = read_settings(CONFIGS / f"paper_{name}.toml")
        (stage,) = settings.stages
        assert stage.kind == name and settings.model == "paper"
        assert (stage.batch, stage.learning_rate, stage.schedule, stage.decay_steps) == (16, 1e-4, "step", 5)
        assert settings.weight_decay == 1e-6 and stage.epochs > 5


def test_values_from_the_command_line():
    words = ["--set.out", "x", "--set.seed=3", "--set.student.steps", "10", "--set.stages.0.batch", "7"]
    words += [
        "--set.losses.automatic",
        "true",
        "--set.data.motions",
        "all",
        "--set.pretrain.learning_rate",
        "1e-5",
    ]
    settings = read_settings(CHAIN, changes(words))
    prior, pretrain, _teacher, student = settings.stages
    assert (settings.out, settings.seed, settings.losses.automatic, settings.data.motions) == (
        "x",
        3,
        True,
        "all",
    )
    assert isinstance(prior, PriorStage) and prior.batch == 7
    assert isinstance(student, StudentStage) and student.steps == 10
    assert pretrain.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set.studnt.steps", "10"], "unknown setting 'studnt.steps'"),
        (["--set.student.stepz", "10"], "unknown setting 'stepz'"),
        (["--set.stages.9.steps", "10"], "unknown setting 'stages.9.steps'"),
        (["--set.stages.x", "10"], "unknown setting 'stages.x'"),
        (["--set.seed.steps", "10"], "unknown setting 'seed.steps'"),
        (["--set.student.steps", "ten"], "'ten' is not a int"),
        (["--set.student.steps"], "not understood"),
        (["--out", "x"], "not understood"),
        (["--set.data", "3"], "data"),
        (["--set.stages", "3"], "stages are tables"),
        (["--set.stages.0", "3"], "unknown setting 'stages.0'"),
        (["--set.losses.betas.x", "3"], "losses"),
        (["--set.processes", "0"], "processes=0"),
        (["--set.seed", "[" * 50_000], "is not a int"),
    ],
)
def test_a_wrong_name_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["train", str(CHAIN), *words]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model = "embedded"\nstages = []\n', "at least one"),
        (ONE + "stepz = 3\n", "unknown setting 'stepz'"),
        (ONE.replace('"images"', '"dreams"'), "kind must be one of"),
        (ONE.replace('kind = "images"\n', ""), "has no kind"),
        (ONE.replace("steps = 1", "steps = 1\nepochs = 2"), "either steps or epochs"),
        (ONE.replace("batch = 4", "batch = 4\naccumulate = 3"), "cannot be cut"),
        (ONE.replace('"x"', '"data"'), "names of their own"),
        (ONE + ONE.split("\n", 1)[1], "names of their own"),
        (
            ONE + ONE.split("\n", 1)[1].replace('"x"', '"p"').replace('"images"', '"prior"'),
            "must be the first",
        ),
        ('strategy = "fsdp"\n' + ONE + ONE.split("\n", 1)[1].replace('"x"', '"y"'), "one stage at a time"),
        ("ema_decay = 1.0\n" + ONE, "ema_decay=1.0 is not between 0 and 1"),
        ("processes = 0\n" + ONE, "processes=0 is not between 1"),
        ("workers = -1\n" + ONE, "workers=-1"),
        ("seed = -1\n" + ONE, "seed=-1"),
        ("validation_people = 0\n" + ONE, "validation_people=0"),
        ("checkpoint_every = nan\n" + ONE, "checkpoint_every: the number is not finite"),
        ("validate_every = -5\n" + ONE, "validate_every=-5"),
        ("weight_decay = inf\n" + ONE, "weight_decay: the number is not finite"),
        ("max_grad_norm = 0.0\n" + ONE, "max_grad_norm=0.0"),
        ("betas = [0.9]\n" + ONE, "must be two numbers"),
        ("betas = [0.9, 1.0]\n" + ONE, "betas=1.0"),
        ('out = ""\n' + ONE, "`out` is empty"),
        (ONE + "[losses]\njoints3d = -1.0\n", "joints3d=-1.0"),
        (ONE + "[losses]\npose = nan\n", "pose: the number is not finite"),
        (ONE + "[data]\noverfit_people = -2\n", "overfit_people=-2"),
        (ONE.replace("steps = 1", "steps = -1\nepochs = 2"), "steps=-1"),
        (ONE.replace("1.0", "inf"), "learning_rate: the number is not finite"),
        (ONE.replace("1.0", "0.0"), "learning_rate must be above 0"),
        (ONE + "p_shuffle_image = 1.5\n", "p_shuffle_image=1.5"),
        (ONE + "keypoint_batch = -8\n", "keypoint_batch=-8"),
        (ONE.replace('"images"', '"student"') + "p_drop_joint = 2.0\n", "p_drop_joint=2.0"),
        (ONE.replace('"images"', '"prior"') + "p_unquantised = -0.1\n", "p_unquantised=-0.1"),
        ('model = "embedded"\nstages = 3\n', "stages are tables of their own"),
        ('model = "embedded"\nstages = ["images"]\n', "stages are tables of their own"),
        ('model = "embedded"\n[stages]\nname = "x"\n', "stages are tables of their own"),
        ("model = " + "[" * 100_000 + "\n", "not a readable TOML file"),
        ("model = " + "{a=" * 3_000 + "\n", "not a readable TOML file"),
        ("model = 'x'\n" + "#" * 2**20, "larger than"),
    ],
)
def test_nonsense_is_refused(text: str, said: str, tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_settings(path)


@pytest.mark.parametrize(
    ("group", "split", "said"),
    [
        ("group3d", "test", "cannot be named in a training config"),
        ("validation", "test", "cannot be named in a training config"),
        ("group2d", "validation", "must be 'train' here"),
        ("validation", "train", "must be 'validation' here"),
    ],
)
def test_splits_that_training_may_not_see_are_refused(group: str, split: str, said: str, tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text(ONE + f'[[data.{group}]]\ndataset = "3dpw"\nroot = "x"\nsplit = "{split}"\n')
    with pytest.raises(ConfigError, match=said):
        read_settings(path)


def test_a_model_without_a_shipped_prior_needs_one(tmp_path: Path):
    for name in ("paper", "release"):
        path = tmp_path / "c.toml"
        path.write_text("allow_random_backbone = true\n" + ONE.replace("embedded", name))
        with pytest.raises(ConfigError, match="no pose prior for"):
            make_objective(TrainingContext.resolve(read_settings(path)), 0)


def test_a_stage_without_what_it_needs_is_refused(tmp_path: Path, child: Any):
    with pytest.raises(ConfigError, match="a student needs a teacher"):
        make_objective(TrainingContext.resolve(child.settings(tmp_path / "run", child.stage("student"))), 0)
    with pytest.raises(ConfigError, match="no U-Net whose own weights are trained"):
        make_objective(TrainingContext.resolve(child.settings(tmp_path / "run", child.stage("pretrain"))), 0)
    untrained = child.make_weights(tmp_path / "run", "tiny", 1)
    (tmp_path / "codeless").mkdir()
    model = make_objective(
        TrainingContext.resolve(child.settings(tmp_path / "run", child.stage("teacher"), start=untrained)), 0
    ).model
    model.pose_prior.codebook.codes.zero_()
    model.save_pretrained(tmp_path / "codeless", {})
    with pytest.raises(ConfigError, match="was never trained"):
        settings = child.settings(
            tmp_path / "run", child.stage("teacher"), start=str(tmp_path / "codeless"), prior=""
        )
        make_objective(TrainingContext.resolve(settings), 0)


def test_what_is_no_config_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name in ("fifo.toml", "bytes.toml", "none.toml", "x" * 300, "."):
        assert main(["train", str(tmp_path / name)]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_images_keep_their_options():
    stage = read_settings(CONFIGS / "embedded.toml").stages[1]
    assert isinstance(stage, ImageStage) and stage.keypoint_batch == 256


@pytest.mark.parametrize("old", RENAMED)
def test_a_former_name_is_refused_with_the_new_one(
    old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "c.toml"
    path.write_text(ONE)
    assert main(["train", str(path), f"--set.{old.replace('stages.', 'stages.0.')}", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{old} is now called {RENAMED[old]}" in error
    new = ".".join([*old.split(".")[:-1], RENAMED[old]])
    with pytest.raises(
        ConfigError
    ) as refused:  # the new name is a setting, of this kind of stage or of another
        read_settings(path, {new.replace("stages.", "stages.0."): "x"})
    assert "is now called" not in str(refused.value)
