"""Trained weights into the package: python tools/ship_weights.py RUN [--note TEXT]

RUN is a training run's folder. Its last checkpoint (finished or not) becomes src/dpmesh/shipped/embedded in fp16,
with its provenance inside; the line for ASSETS.md is printed.
"""

import argparse
import csv
import subprocess
from pathlib import Path

import torch

from dpmesh.assets import SHIPPED, sha256
from dpmesh.model import DPMesh

TARGET = SHIPPED / "embedded"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--note", default="", help="what the log does not tell")
    options = parser.parse_args()
    state = torch.load(options.run / "last.ckpt", weights_only=True)
    model = DPMesh.from_config("embedded")
    model.load_state_dict(
        {n.removeprefix("model."): v for n, v in state["objective"].items() if n.startswith("model.")}
    )
    with (options.run / "validation.csv").open() as file:
        validation = list(csv.DictReader(file))
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    provenance = {
        "commit": head.stdout.strip(),
        "config": "configs/embedded.toml",
        "stage": state["stage"],
        "step": state["step"],
        "data": "synthetic people only (dpmesh.data.synthetic); motions from mocap.cs.cmu.edu and DeepMimic",
        "validation": validation[-1],
        "licence": "Apache-2.0; acknowledge mocap.cs.cmu.edu, created with funding from NSF EIA-0196217",
        "note": options.note,
    }
    model.save_pretrained(TARGET, provenance, half=True)
    for file in sorted(TARGET.iterdir()):
        print(
            f"| {file} | trained on synthetic people | Apache-2.0 | {sha256(file)} | tools/ship_weights.py |"
        )


if __name__ == "__main__":
    main()
