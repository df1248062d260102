"""Weights in a folder: config.json (config, provenance) and model.safetensors. Strict, atomic, nothing unpickled."""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch as st
import torch
from torch import nn

from dpmesh.errors import OutputError, WeightsError

Provenance = dict[str, Any]
"""Where weights come from: commit, data, steps, figures, licence. Plain JSON."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_weights(
    model: nn.Module, folder: Path, config: dict[str, Any], provenance: Provenance, *, half: bool = False
) -> None:
    """Write both files aside, then rename them; raises OutputError where that is impossible."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    text = json.dumps({"config": config, "provenance": provenance}, indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{WEIGHTS}.part").write_bytes(st.save(state))
        (folder / f"{CONFIG}.part").write_text(text)
        for name in (WEIGHTS, CONFIG):
            os.replace(folder / f"{name}.part", folder / name)
    except OSError as error:
        raise OutputError(f"weights cannot be written ({error})", where=str(folder)) from error


def read_config(folder: Path) -> tuple[dict[str, Any], Provenance]:
    """The config as plain data, and the provenance."""
    try:
        found = json.loads((folder / CONFIG).read_text())
        return dict(found["config"]), dict(found["provenance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"no readable {CONFIG} ({error})",
            where=str(folder),
            fix="Give a folder that save_pretrained wrote.",
        ) from error


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the stored tensors into the model; raises WeightsError with the first names that do not fit."""
    try:
        state = st.load((folder / WEIGHTS).read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{WEIGHTS} cannot be read ({error})", where=str(folder)) from error
    own = model.state_dict()
    lists = {
        "missing": sorted(set(own) - set(state)),
        "unexpected": sorted(set(state) - set(own)),
        "mis-shaped": sorted(n for n in set(own) & set(state) if own[n].shape != state[n].shape),
    }
    if any(lists.values()):
        told = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in lists.items() if names
        )
        raise WeightsError(f"weights do not fit the model: {told}", where=str(folder / WEIGHTS))
    with torch.no_grad():
        model.load_state_dict({name: value.to(own[name].dtype) for name, value in state.items()})
