"""`release` from scratch: Stable Diffusion as start, the user's VPoser as pose prior (docs/guide/training.md)."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch as st
import torch

from dpmesh import assets
from dpmesh.ablations import configuration
from dpmesh.cli.main import main
from dpmesh.cli.train import changes
from dpmesh.errors import ConfigError
from dpmesh.model import DPMesh
from dpmesh.train.config_file import read_settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.objectives.mesh import MeshObjective

CONFIG = Path(__file__).parents[2] / "configs" / "release_finetune.toml"
NARROW: dict[str, Any] = {
    "backbone.vae.channels": [8, 8, 16, 16], "backbone.vae.groups": 4, "backbone.vae.layers": 1,
    "backbone.unet.channels": [16, 16, 32, 32], "backbone.unet.groups": 8, "backbone.unet.heads": 2,
    "backbone.unet.layers": 1, "backbone.unet.context_width": 12, "backbone.fused_channels": 32, "prompt.width": 12,
    "regressor.fused_channels": 32, "regressor.width": 16, "regressor.heads": 2, "regressor.inner": 24,
    "regressor.volume_inner": 24, "lora_rank": 3,
}  # fmt: skip
TRAINED_TOO = {"frozen": '["vae"]'}
"""The ControlNet as well, which `release` keeps as it is."""
RUN: dict[str, Any] = {
    "start": "weights/release_start", "body": "free", "data.group3d": [], "data.group2d": [], "data.validation": [],
    "data.overfit_people": 4, "workers": 0, "validation_people": 2, "log_every": 1, "preview_every": 0,
    "validate_every": 0,
    "precision": "32-true", "finetune.batch": 2, "finetune.epochs": 0, "finetune.steps": 1,
}  # fmt: skip


def as_set(values: dict[str, Any]) -> list[str]:
    """Of convert."""
    return [word for key, value in values.items() for word in (f"--set.model.{key}", str(value))]


def as_dotted(values: dict[str, Any]) -> list[str]:
    """Of train."""
    return [word for key, value in values.items() for word in (f"--set.{key}", str(value))]


def words(more: dict[str, Any]) -> list[str]:
    return as_dotted(RUN | {f"model.{key}": value for key, value in (NARROW | more).items()})


def convert(more: dict[str, Any]) -> int:
    files = ["sd.safetensors", RUN["start"], "--controlnet", "control.pth"]
    return main(["convert", "sd15", *files, "--config", "release", *as_set(NARROW | more)])


@pytest.fixture
def laboratory(twin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with files in the layouts of Stable Diffusion (narrow), its ControlNet and VPoser 1.0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(tmp_path / "assets"))
    table: dict[str, Any] = {"name": "release"}
    for dotted, value in NARROW.items():
        *path, last = dotted.split(".")
        at = table
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    narrow = configuration(table)
    layout = twin.Layout()
    layout.stable_diffusion("", narrow, twin.SMALL, 0)
    st.save_file(twin.fill(layout, seed=1), tmp_path / "sd.safetensors")
    layout = twin.Layout()
    layout.controlnet("control_model.", narrow.diffusion.unet, 4)
    torch.save(twin.fill(layout, seed=2), tmp_path / "control.pth")
    layout = twin.Layout()
    layout.vposer("bodyprior_", 32, 512, 21)
    torch.save(twin.fill(layout, seed=3), tmp_path / "TR00_E096.pt")
    return tmp_path


@pytest.mark.slow
def test_with_the_imported_vposer(laboratory: Path, capsys: pytest.CaptureFixture[str]):
    assert convert({}) == 0
    settings = read_settings(CONFIG, changes(words({})))
    with pytest.raises(ConfigError, match="pose prior in these weights was never trained") as caught:
        make_objective(TrainingContext.resolve(settings), 0)
    assert "dpmesh assets import" in caught.value.fix
    assert main(["assets", "import", "TR00_E096.pt"]) == 0
    assert main(["train", str(CONFIG), *words({})]) == 0

    start = st.load_file(f"{RUN['start']}/model.safetensors")
    model = DPMesh.from_pretrained("runs/release_finetune/weights")
    assert model.config.camera == "image" and model.config.frozen == ("vae", "controlnet")
    own, vposer = model.state_dict(), torch.load("TR00_E096.pt", weights_only=True)
    for name in own:
        if name.startswith("pose_prior."):
            assert torch.equal(own[name], vposer[name.removeprefix("pose_prior.")]), name
    moved = {name for name in own if not torch.equal(own[name], start[name])}
    assert any(name.startswith("regressor.") for name in moved)
    assert any("lora_up" in name for name in moved)
    assert not any(name.startswith(("backbone.vae.", "backbone.controlnet.")) for name in moved)


def test_with_its_controlnet_trained(laboratory: Path):
    assert main(["assets", "import", "TR00_E096.pt"]) == 0 and convert(TRAINED_TOO) == 0
    objective = make_objective(TrainingContext.resolve(read_settings(CONFIG, changes(words(TRAINED_TOO)))), 0)
    assert isinstance(objective, MeshObjective)
    parts = {name for name, value in objective.model.named_parameters() if value.requires_grad}
    assert "backbone.controlnet.conv_in.weight" in parts
    assert not any(name.startswith(("backbone.vae.", "pose_prior.")) for name in parts)


def test_without_start_weights_it_is_refused(laboratory: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", str(CONFIG), *as_dotted(RUN | {"start": '""'})]) == 1
    assert "without start weights that is random numbers" in capsys.readouterr().err
