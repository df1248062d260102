"""Pose priors in folders (config.json, model.safetensors; see checkpoint.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from dpmesh.assets import shipped
from dpmesh.checkpoint import (
    CONFIG,
    WEIGHTS,
    Provenance,
    building,
    check_stored,
    load_weights,
    read_config,
    write_weights,
)
from dpmesh.config_io import from_dict, to_dict
from dpmesh.errors import WeightsError
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder
from dpmesh.pose_prior.vqvae import PoseVQVAE, PoseVQVAEConfig

Prior = TypeVar("Prior", PoseVQVAE, VPoserDecoder)

MOVING = ("codebook.uses", "codebook.sums")
"""Moving averages of the codebook. Only training needs them, so they are not stored."""


def save_prior(
    model: PoseVQVAE | VPoserDecoder, folder: Path, provenance: Provenance, *, half: bool = False
) -> None:
    """Write config.json and model.safetensors, atomically. half: store fp16. Raises OutputError."""
    state = {name: value for name, value in model.state_dict().items() if name not in MOVING}
    write_weights(folder, state, to_dict(model.config), provenance, half=half)


def load_prior(folder: Path | None = None) -> PoseVQVAE:
    """The VQ-VAE in `folder`, or the shipped one, in evaluation mode and fp32.

    Raises AssetError for a missing shipped file, WeightsError where the weights do not fit the config.
    """
    if folder is None:
        folder = shipped(f"prior/{CONFIG}").parent
        shipped(f"prior/{WEIGHTS}")
    model = load_any_prior(folder)
    if not isinstance(model, PoseVQVAE):
        raise WeightsError("this pose prior is not a VQ-VAE", where=str(folder))
    return model


def load_any_prior(folder: Path) -> PoseVQVAE | VPoserDecoder:
    """A prior written by save_prior, in evaluation mode and fp32. Raises WeightsError."""
    plain, _ = read_config(folder)
    with building(folder / CONFIG):
        if plain.get("kind") == VPoserConfig().kind:
            config = from_dict(VPoserConfig, plain, where=str(folder / CONFIG))
            model: PoseVQVAE | VPoserDecoder = _fitting(lambda: VPoserDecoder(config), folder)
        else:
            sizes = from_dict(PoseVQVAEConfig, plain, where=str(folder / CONFIG))
            model = _fitting(lambda: PoseVQVAE(sizes), folder)
        load_weights(model, folder, unstored=MOVING)
    return model.eval()


def _fitting(make: Callable[[], Prior], folder: Path) -> Prior:
    """Build a prior after its shapes, without values, were compared with the stored ones: a config that does not fit
    costs no memory."""
    with torch.device("meta"):
        check_stored(make().state_dict(), folder, unstored=MOVING)
    return make()
