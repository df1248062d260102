"""VPoser's decoder, version 1.0: a latent of 32 numbers to 21 joint rotations (Pavlakos et al., CVPR 2019)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.assets import find_asset
from dpmesh.checkpoint import refuse_misfits
from dpmesh.config_io import check_sizes
from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import rotation_from_6d
from dpmesh.tensor_files import read_tensors

_DECODER = "bodyprior_dec_"


@dataclass(frozen=True, kw_only=True, slots=True)
class VPoserConfig:
    """VPoser's decoder. Defaults: version 1.0."""

    kind: Literal["vposer"] = "vposer"
    """Distinguishes the priors in a config file."""
    latent: int = 32
    """Numbers of the latent."""
    hidden: int = 512
    """Width of the hidden layers."""
    joints: int = 21
    """Joints 1 to `joints` are decoded; the others stay identity."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.joints > 23:
            raise ConfigError(f"joints={self.joints}: SMPL has 23 besides the root", where="VPoserConfig")


class VPoserDecoder(nn.Module):
    """The decoder, with fixed weights. Layer names equal those of the VPoser package, so its files load directly."""

    def __init__(self, config: VPoserConfig) -> None:
        super().__init__()
        self.config = config
        self.bodyprior_dec_fc1 = nn.Linear(config.latent, config.hidden)
        self.bodyprior_dec_fc2 = nn.Linear(config.hidden, config.hidden)
        self.bodyprior_dec_out = nn.Linear(config.hidden, config.joints * 6)
        self.requires_grad_(False)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one person."""
        return (self.config.latent,)

    def decode_latent(self, latent: Float[Tensor, "b l"]) -> Float[Tensor, "b 23 3 3"]:
        """Rotations of joints 1 to 23; the hands stay identity."""
        x = F.leaky_relu(self.bodyprior_dec_fc1(latent), 0.2)
        x = self.bodyprior_dec_out(F.leaky_relu(self.bodyprior_dec_fc2(x), 0.2))
        body = rotation_from_6d(x.reshape(-1, self.config.joints, 6))
        hands = torch.eye(3, device=x.device, dtype=x.dtype).expand(x.shape[0], 23 - self.config.joints, 3, 3)
        return torch.cat([body, hands], dim=1)


def imported_vposer(config: VPoserConfig) -> VPoserDecoder | None:
    """The imported VPoser's decoder (`dpmesh assets import`) in evaluation mode, fp32; None if there is none.

    Raises WeightsError, as read_vposer.
    """
    path = find_asset("vposer")
    return None if path is None else read_vposer(path, config)


def read_vposer(path: Path, config: VPoserConfig) -> VPoserDecoder:
    """The decoder of a VPoser 1.0 snapshot. Raises WeightsError for a file that cannot be read, is unsafe, or has other
    sizes."""
    decoder = VPoserDecoder(config)
    tensors = {name.rpartition("vposer.")[2]: value for name, value in read_tensors(path).items()}
    kept = {name: value.float() for name, value in tensors.items() if name.startswith(_DECODER)}
    own = decoder.state_dict()
    refuse_misfits(
        {name: tuple(value.shape) for name, value in own.items()},
        {name: tuple(value.shape) for name, value in kept.items()},
        str(path),
    )
    decoder.load_state_dict(kept)
    return decoder.eval()
