"""Stored weights, looked through without building their model: one tensor at a time, however large the file."""

from pathlib import Path

import safetensors
import torch

from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import WeightsError


def refuse_bad_numbers(folder: Path) -> None:
    """Raise WeightsError where a stored number is NaN or infinite, or the file cannot be read."""
    path = folder / WEIGHTS
    try:
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not torch.isfinite(file.get_tensor(name)).all():
                    raise WeightsError(
                        f"{name} holds NaN or infinity",
                        where=str(folder),
                        fix="Take other weights; these come from a training that diverged, or are damaged.",
                    )
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{WEIGHTS} cannot be read ({error})", where=str(folder)) from None
