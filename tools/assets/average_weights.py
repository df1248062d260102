"""The mean of several trained weights.

    python -m tools.assets.average_weights FOLDER FOLDER... --out OUT

FOLDERs (or shipped names) hold weights of one configuration, of which one was trained on from the other or all from the
same (the mean of unrelated weights is worse than each of them: measure it before use). OUT is a weights
folder like theirs; its provenance is a list of theirs with the files' sha256. As in "Model soups" (arXiv 2203.05482).
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpmesh.assets import sha256, weights_folder
from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import ConfigError, DPMeshError
from dpmesh.model import DPMesh


def averaged(folders: list[str]) -> tuple[DPMesh, dict[str, Any]]:
    """A model whose every number is the mean of theirs (what is no floating point number is the first's), and its
    provenance. Raises ConfigError where the configurations differ."""
    models = [DPMesh.from_pretrained(folder) for folder in folders]
    first = models[0]
    for folder, model in zip(folders, models, strict=True):
        if model.config != first.config:
            raise ConfigError(f"another configuration than {folders[0]}'s", where=folder)
    states = [model.state_dict() for model in models]

    def mean(name: str, value: Tensor) -> Tensor:
        return torch.stack([s[name] for s in states]).mean(0) if value.is_floating_point() else value

    made_of = [
        {"sha256": sha256(weights_folder(folder) / WEIGHTS), **model.provenance}
        for folder, model in zip(folders, models, strict=True)
    ]
    first.load_state_dict({name: mean(name, value) for name, value in states[0].items()})
    return first, {"mean of": made_of}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        model, provenance = averaged(options.folders)
        model.save_pretrained(options.out, provenance)
    except DPMeshError as error:
        raise SystemExit(str(error)) from None
    print(f"{options.out}: the mean of {', '.join(options.folders)}")


if __name__ == "__main__":
    main()
