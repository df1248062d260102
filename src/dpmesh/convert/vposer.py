"""The VPoser that the user imported (`dpmesh assets import`), as a pose prior."""

from pathlib import Path

from dpmesh.assets import find_asset
from dpmesh.checkpoint import refuse_misfits
from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder
from dpmesh.tensor_files import read_tensors

_DECODER = "bodyprior_dec_"


def imported_vposer(config: VPoserConfig) -> VPoserDecoder | None:
    """The decoder in evaluation mode, fp32; None where no VPoser was imported. Errors as read_vposer."""
    path = find_asset("vposer")
    return None if path is None else read_vposer(path, config)


def read_vposer(path: Path, config: VPoserConfig) -> VPoserDecoder:
    """The decoder of a VPoser 1.0 snapshot; its encoder is not needed. Raises WeightsError for a file that cannot be
    read, is unsafe, or is a VPoser of other sizes."""
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
