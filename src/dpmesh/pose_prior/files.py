"""A prior in a folder, as all weights are kept (checkpoint.py)."""

from pathlib import Path

from dpmesh.assets import shipped
from dpmesh.checkpoint import CONFIG, WEIGHTS, Provenance, load_weights, read_config, write_weights
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.plain import from_plain, to_plain
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder
from dpmesh.pose_prior.vqvae import PoseVQVAE, PoseVQVAEConfig

MOVING = ("codebook.uses", "codebook.sums")
"""The moving averages: needed to go on training only, so no file has them."""


def save_prior(
    model: PoseVQVAE | VPoserDecoder, folder: Path, provenance: Provenance, *, half: bool = False
) -> None:
    """Write config.json and model.safetensors (fp16 if half), each aside and then renamed."""
    state = {name: value for name, value in model.state_dict().items() if name not in MOVING}
    write_weights(folder, state, to_plain(model.config), provenance, half=half)


def load_prior(folder: Path | None = None) -> PoseVQVAE:
    """The VQ-VAE in `folder` (the shipped one without), in evaluation mode, fp32.

    Raises AssetError for a missing shipped file, WeightsError where the weights do not fit the config.
    """
    if folder is None:
        folder = shipped(f"prior/{CONFIG}").parent
        shipped(f"prior/{WEIGHTS}")
    model = load_any_prior(folder)
    if not isinstance(model, PoseVQVAE):
        raise WeightsError("this pose prior is no VQ-VAE", where=str(folder))
    return model


def load_any_prior(folder: Path) -> PoseVQVAE | VPoserDecoder:
    """What save_prior left, in evaluation mode, fp32. Raises WeightsError."""
    plain, _ = read_config(folder)
    try:
        if plain.get("kind") == VPoserConfig().kind:
            decoder = VPoserDecoder(from_plain(VPoserConfig, plain, where=str(folder / CONFIG)))
            load_weights(decoder, folder)
            return decoder.eval()
        model = PoseVQVAE(from_plain(PoseVQVAEConfig, plain, where=str(folder / CONFIG)))
    except ConfigError as error:
        raise WeightsError(error.what, where=str(folder)) from error
    load_weights(model, folder, unstored=MOVING)
    return model.eval()
