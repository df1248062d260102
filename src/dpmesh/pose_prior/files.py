"""A prior in a folder: config.json (sizes, provenance) and model.safetensors."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch as st

from dpmesh.assets import shipped
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.pose_prior.vqvae import PoseVQVAE, PoseVQVAEConfig

MOVING = ("codebook.uses", "codebook.sums")  # the moving averages: needed to go on training only


def save_prior(model: PoseVQVAE, folder: Path, provenance: dict[str, Any]) -> None:
    """Write config.json and model.safetensors (fp32), each aside and then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k not in MOVING}
    (folder / "model.safetensors.part").write_bytes(st.save(state))
    config = {"config": dataclasses.asdict(model.config), "provenance": provenance}
    (folder / "config.json.part").write_text(json.dumps(config, indent=1) + "\n")
    for name in ("model.safetensors", "config.json"):
        os.replace(folder / f"{name}.part", folder / name)


def load_prior(folder: Path | None = None) -> PoseVQVAE:
    """The prior in `folder` (the shipped one without), in evaluation mode, fp32.

    Raises AssetError for a missing shipped file, WeightsError where the weights do not fit the config.
    """
    config_file = folder / "config.json" if folder else shipped("prior/config.json")
    weights_file = folder / "model.safetensors" if folder else shipped("prior/model.safetensors")
    try:
        config = PoseVQVAEConfig(**json.loads(config_file.read_text())["config"])
        state = st.load(weights_file.read_bytes())
    except (OSError, KeyError, TypeError, ValueError, ConfigError) as error:
        raise WeightsError(f"cannot be read ({error})", where=str(config_file.parent)) from error
    model = PoseVQVAE(config)
    own = model.state_dict()
    expected = set(own) - set(MOVING)
    wrong = sorted(expected ^ set(state)) or sorted(k for k in expected if own[k].shape != state[k].shape)
    if wrong:
        raise WeightsError(f"weights do not fit the config, first {wrong[0]}", where=str(weights_file))
    model.load_state_dict({**own, **{name: value.float() for name, value in state.items()}})
    return model.eval()
