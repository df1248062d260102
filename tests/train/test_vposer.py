"""A user's VPoser is the pose prior of a `release` that is trained from scratch; without one an error names it."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from dpmesh import assets
from dpmesh.cli.main import main
from dpmesh.config import PRESETS
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.pose_prior.vposer import VPoserConfig, imported_vposer
from dpmesh.train.context import TrainingContext, make_objective


def snapshot(hidden: int = 512) -> dict[str, torch.Tensor]:
    """Names and sizes of VPoser 1.0's, random numbers."""
    g = torch.Generator().manual_seed(0)
    sizes = {"fc1": (hidden, 32), "fc2": (hidden, hidden), "out": (126, hidden)}
    state = {"bodyprior_enc_fc1.weight": torch.randn(hidden, 63, generator=g)}
    for name, (out, width) in sizes.items():
        state[f"bodyprior_dec_{name}.weight"] = torch.randn(out, width, generator=g) * width**-0.5
        state[f"bodyprior_dec_{name}.bias"] = torch.randn(out, generator=g)
    return state


@pytest.fixture
def vposer_settings(child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(tmp_path / "assets"))
    config = replace(
        child.TINY, name="tiny-vposer", pose_prior=VPoserConfig(),
        regressor=replace(child.TINY.regressor, pose_code=32),
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "tiny-vposer", config)
    return child.settings(tmp_path / "run", child.stage("images"), model="tiny-vposer", prior="")


def test_what_was_imported_is_the_prior(vposer_settings: Any, tmp_path: Path):
    with pytest.raises(ConfigError, match="no pose prior for") as caught:
        make_objective(TrainingContext.resolve(vposer_settings), 0)
    assert "dpmesh assets import" in caught.value.fix
    state = snapshot()
    torch.save(state, tmp_path / "snapshot.pt")
    assert main(["assets", "import", str(tmp_path / "snapshot.pt")]) == 0
    prior = make_objective(TrainingContext.resolve(vposer_settings), 0).model.pose_prior
    code = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    x = code
    for name in ("fc1", "fc2"):
        x = F.leaky_relu(
            F.linear(x, state[f"bodyprior_dec_{name}.weight"], state[f"bodyprior_dec_{name}.bias"]), 0.2
        )
    x = F.linear(x, state["bodyprior_dec_out.weight"], state["bodyprior_dec_out.bias"]).view(3, 21, 3, 2)
    decoded = prior.decode_latent(code)
    torch.testing.assert_close(decoded[:, :21, :, 0], F.normalize(x[..., 0], dim=-1), atol=1e-5, rtol=1e-4)


def test_another_vposer_is_refused_by_name(vposer_settings: Any, tmp_path: Path):
    torch.save(snapshot(hidden=100), tmp_path / "snapshot.pt")
    assert main(["assets", "import", str(tmp_path / "snapshot.pt")]) == 0
    with pytest.raises(WeightsError, match=r"bodyprior_dec_fc1\.bias 100 instead of 512"):
        imported_vposer(VPoserConfig())
