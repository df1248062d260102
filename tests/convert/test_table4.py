"""Every row of the paper's Table 4 from the command line: its start converted, its config trained, two steps a stage.

What makes the rows narrow enough comes through the same settings as a user's (--set.model.NAME).
"""

import csv
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch as st

from dpmesh.ablations import configuration
from dpmesh.backbone.timm import load_timm
from dpmesh.checkpoint import read_config
from dpmesh.cli.main import main
from dpmesh.cli.train import changes
from dpmesh.config_io import to_dict
from dpmesh.data.poses import PoseBank
from dpmesh.model import DPMesh
from dpmesh.train.config import Settings
from dpmesh.train.config_file import read_settings

CONFIGS = Path(__file__).parents[2] / "configs"
TABLE4 = CONFIGS / "table4"
FILES = sorted(path.stem for path in TABLE4.glob("*.toml"))
ROWS = [name for name in FILES if not name.endswith("_no_nkr")]
DIFFUSION = [name for name in ROWS if "/start" in (TABLE4 / f"{name}.toml").read_text()]

PRIOR = {
    "pose_prior.tokens": 6, "pose_prior.codes": 10, "pose_prior.code_width": 5, "pose_prior.encoder_width": 8,
    "pose_prior.encoder_layers": 1, "pose_prior.decoder_width": 8,
}  # fmt: skip
EVERY = PRIOR | {
    "token_width": 4, "backbone.fused_channels": 32, "prompt.width": 12, "regressor.fused_channels": 32,
    "regressor.width": 16, "regressor.heads": 2, "regressor.inner": 24, "regressor.volume_inner": 24,
    "regressor.pose_code": 8, "regressor.encoder_layers": 1, "regressor.decoder_layers": 2,
    "regressor.volume_layers": 1,
}  # fmt: skip
UNET = EVERY | {
    "backbone.vae.channels": [8, 8, 16, 16], "backbone.vae.groups": 4, "backbone.vae.layers": 1,
    "backbone.unet.channels": [16, 16, 32, 32], "backbone.unet.groups": 8, "backbone.unet.heads": 2,
    "backbone.unet.layers": 1, "backbone.unet.context_width": 12, "lora_rank": 3,
}  # fmt: skip
TIMM = {
    "resnet50": {"backbone.model": "resnet10t"},
    "hrnet_w48": {"backbone.model": "hrnet_w18_small"},
    "vit_l16": {"backbone.model": "vit_tiny_patch16_224"},
    "swinv2_l": {
        "backbone.model": "swinv2_tiny_window8_256", "backbone.embed_dim": 24, "backbone.depths": [1, 1, 1, 1],
        "backbone.num_heads": [1, 2, 4, 8],
    },
}  # fmt: skip
RUN = {
    "body": "free", "data.group3d": [], "data.group2d": [], "data.validation": [], "data.overfit_people": 4,
    "workers": 0,
    "validation_people": 2, "log_every": 1, "preview_every": 0, "validate_every": 2, "precision": "32-true",
}  # fmt: skip


def narrow(name: str) -> dict[str, Any]:
    """Of a config's file."""
    row = name.removesuffix("_no_nkr")
    return EVERY | TIMM[row] if row in TIMM else UNET


def settings_words(values: dict[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--set.{name}", as_toml(value))]


def as_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def model_words(name: str) -> list[str]:
    return settings_words({f"model.{key}": value for key, value in narrow(name).items()})


def run_words(name: str) -> list[str]:
    stages = [stage.name for stage in read_settings(TABLE4 / f"{name}.toml").stages]
    two = {
        f"{s}.{key}": value
        for s in stages
        for key, value in {"epochs": 0, "steps": 2, "batch": 2, "decay_steps": 0}.items()
    }
    return [*settings_words(RUN | two), *model_words(name)]


@pytest.fixture(scope="module")
def laboratory(twin: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Stable Diffusion's file of the narrow widths, and the pose prior that the configs name, trained on
    poses with AMASS's names."""
    folder = tmp_path_factory.mktemp("laboratory")
    settings = read_settings(TABLE4 / "dpmesh.toml", changes(model_words("dpmesh")))
    layout = twin.Layout()
    layout.stable_diffusion("", configuration(settings.model), twin.SMALL, 0)
    st.save_file(twin.fill(layout, seed=1), folder / "sd.safetensors")
    poses = PoseBank.load("train").poses[:80]
    names = np.array([f"amass:ACCAD/s1/walk_{i}_poses" for i in range(8)])
    np.savez(folder / "amass.npz", poses=poses, lens=np.full(8, 10), names=names)
    prior = {"prior.steps": 2, "prior.batch": 8, "workers": 0, "prior.poses": str(folder / "amass.npz")}
    words = settings_words(
        prior | {"out": str(folder / "runs/paper_prior")} | {f"model.{k}": v for k, v in PRIOR.items()}
    )
    assert main(["train", str(CONFIGS / "paper_prior.toml"), *words]) == 0
    return folder


def convert(name: str, laboratory: Path, out: str) -> int:
    words = [word for key, value in narrow(name).items() for word in (f"--set.model.{key}", as_toml(value))]
    return main(["convert", "sd15", str(laboratory / "sd.safetensors"), out, "--config", name, *words])


def check(name: str, folder: Path, settings: Settings, stage: str) -> None:
    """The weights of a run are the config's model, load strictly and record its overrides; the losses are finite."""
    wanted = configuration(settings.model)
    plain, record = read_config(folder)
    assert plain == json.loads(json.dumps(to_dict(wanted)))
    assert DPMesh.from_pretrained(folder).config == wanted
    assert record["config"] == settings.model and record["config"]["regressor"]["width"] == 16
    with (folder.parent / f"log_{stage}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(math.isfinite(float(row["loss"])) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_row_from_its_start_to_its_weights(name: str, laboratory: Path, monkeypatch: pytest.MonkeyPatch):
    """With the files as they are, but for their widths, their lengths and the data."""
    monkeypatch.chdir(laboratory)
    timm, asked = load_timm("this test"), list[bool]()
    create = timm.create_model

    def without_hub(*args: Any, pretrained: bool = False, **more: Any) -> Any:
        asked.append(pretrained)
        return create(*args, pretrained=False, **more)

    monkeypatch.setattr(timm, "create_model", without_hub)
    path = TABLE4 / f"{name}.toml"
    settings = read_settings(path, changes(run_words(name)))
    if name in DIFFUSION:
        assert convert(str(path), laboratory, settings.start) == 0
    for config in [c for c in (name, f"{name}_no_nkr") if c in FILES]:
        settings = read_settings(TABLE4 / f"{config}.toml", changes(run_words(config)))
        assert main(["train", str(TABLE4 / f"{config}.toml"), *run_words(config)]) == 0
        out = Path(settings.out)
        check(config, out / "weights", settings, "student")
        if config == name:
            check(config, out / "weights_teacher", settings, "teacher")
            assert asked.count(True) == (name not in DIFFUSION)  # by the teacher, once
    assert asked.count(True) == (name not in DIFFUSION)


def test_the_table_is_whole():
    """Fourteen rows; two of them are one model, trained once."""
    assert len(FILES) == 13 and len(DIFFUSION) == 4
    numbers = {
        "z0": (87.6, 54.9, 89.6, 60.7), "z0_cj": (75.1, 49.8, 73.7, 50.6), "z0_cj_added": (100.3, 62.0, 109.0, 73.4),
        "dpmesh": (73.6, 47.4, 70.9, 48.0), "dpmesh_no_nkr": (74.9, 48.2, 73.9, 49.9),
        "resnet50": (79.4, 51.8, 76.1, 50.9), "resnet50_no_nkr": (80.2, 52.4, 78.9, 52.8),
        "hrnet_w48": (77.2, 50.8, 75.6, 50.1), "hrnet_w48_no_nkr": (78.7, 50.9, 76.9, 51.8),
        "vit_l16": (75.2, 48.5, 73.1, 49.6), "vit_l16_no_nkr": (76.9, 49.3, 75.6, 52.0),
        "swinv2_l": (77.3, 48.5, 73.5, 49.8), "swinv2_l_no_nkr": (77.0, 48.8, 76.1, 52.2),
    }  # fmt: skip
    assert sorted(numbers) == FILES
    for name, (a, b, c, d) in numbers.items():
        text = (TABLE4 / f"{name}.toml").read_text()
        assert f"3DPW {a} / {b}, 3DPW-OC {c} / {d}." in text, name
        assert f"dpmesh train configs/table4/{name}.toml" in text


@pytest.mark.parametrize("name", FILES)
def test_rows_differ_in_what_they_compare_and_in_nothing_else(name: str):
    base = to_dict(read_settings(TABLE4 / "dpmesh.toml"))
    own = to_dict(read_settings(TABLE4 / f"{name}.toml"))
    compared = {"model", "start", "out", "prior"}
    if name.endswith("_no_nkr"):
        assert own["losses"].pop("nkr_contrast") == own["losses"].pop("nkr_mse") == 0
        del base["losses"]["nkr_contrast"], base["losses"]["nkr_mse"]
        base["stages"] = base["stages"][1:]
    assert {k: v for k, v in own.items() if k not in compared} == {
        k: v for k, v in base.items() if k not in compared
    }


def test_the_full_row_is_the_papers_teacher_and_student():
    full = to_dict(read_settings(TABLE4 / "dpmesh.toml"))
    for number, name in enumerate(("teacher", "student")):
        own = to_dict(read_settings(CONFIGS / f"paper_{name}.toml"))
        assert own["stages"] == (full["stages"][number],)
        apart = {"stages", "start", "out", "prior"} | ({"losses"} if name == "teacher" else set())
        assert {k: v for k, v in own.items() if k not in apart} == {
            k: v for k, v in full.items() if k not in apart
        }


@pytest.mark.parametrize(
    "name",
    [
        "paper-z0",
        "paper-z0+cj",
        "paper-z0+cj_added",
        "paper",
        "paper-straight_through",
        "paper-vposer",
        "paper-direct",
    ],
)
def test_a_start_for_every_row_with_a_unet(
    name: str, laboratory: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """By the configuration's name; a VQ-VAE's or VPoser's numbers are not made up."""
    kept = {k: v for k, v in UNET.items() if not k.startswith("pose_prior.") and k != "regressor.pose_code"}
    words = [word for k, v in kept.items() for word in (f"--set.model.{k}", as_toml(v))]
    source = str(laboratory / "sd.safetensors")
    assert main(["convert", "sd15", source, str(tmp_path / "out"), "--config", name, *words]) == 0
    printed = capsys.readouterr().out
    model = DPMesh.from_pretrained(tmp_path / "out")
    assert model.config == configuration({"name": name} | nested(kept))
    assert (
        ("told no keypoints" in printed)
        is (name == "paper-z0")
        is ("controlnet" not in dict(model.backbone.named_children()))
    )
    assert not model.pose_prior.state_dict() or not all(
        v.any() for v in model.pose_prior.state_dict().values()
    )
    if name not in ("paper", "paper-vposer"):
        return
    settings = {
        "body": "free",
        "data.group3d": [],
        "data.group2d": [],
        "data.validation": [],
        "start": str(tmp_path / "out"),
    }
    begun = settings_words(
        settings | {"prior": "", "out": str(tmp_path / "run"), "teacher.epochs": 0, "teacher.steps": 1}
    )
    changed = settings_words({"model.name": name} | {f"model.{k}": v for k, v in kept.items()})
    assert main(["train", str(CONFIGS / "paper_teacher.toml"), *begun, *changed]) == 1
    assert "was never trained" in capsys.readouterr().err


def nested(dotted: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in dotted.items():
        *path, last = name.split(".")
        table = result
        for step in path:
            table = table.setdefault(step, {})
        table[last] = value
    return result


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "paper-resnet50"], "has no U-Net"),
        (["--config", "paper-z9"], "there is no configuration 'paper-z9'"),
        (["--config", "absent.toml"], "absent.toml"),
        (["--config", "paper", "--set.lora_rank", "3"], "names begin with model"),
        (["--config", "paper", "--set.model.lora_rnk", "3"], "unknown setting 'lora_rnk'"),
        (["--config", "paper-z0", "--controlnet", "x"], "has no ControlNet"),
        (["--config", "embedded"], "do not fit"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str], said: str, laboratory: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(["convert", "sd15", str(laboratory / "sd.safetensors"), str(tmp_path / "out"), *words]) == 1
    error = capsys.readouterr().err
    assert said.lower() in error.lower() and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
