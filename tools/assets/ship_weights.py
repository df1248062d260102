"""Copies trained weights into the package.

    python -m tools.assets.ship_weights RUN [--note TEXT]

RUN is the folder of a finished training run. (To end a run early, set `steps` to its current step and start it again.)
Its weights become src/dpmesh/shipped/embedded in fp16, with their provenance inside; the lines for ASSETS.md are
printed.
"""

import argparse
import csv
from pathlib import Path

from dpmesh.assets import SHIPPED, sha256
from dpmesh.model import DPMesh

TARGET = SHIPPED / "embedded"
ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--note", default="", help="a remark for the provenance")
    options = parser.parse_args()
    model = DPMesh.from_pretrained(options.run / "weights")
    with (options.run / "validation.csv").open() as file:
        validation = list(csv.DictReader(file))
    provenance = {
        **model.provenance,
        "data": "synthetic people only (dpmesh.data.synthetic); motions from mocap.cs.cmu.edu and DeepMimic",
        "validation": validation[-1],
        "licence": "Apache-2.0; acknowledge mocap.cs.cmu.edu, created with funding from NSF EIA-0196217",
        "note": options.note,
    }
    model.save_pretrained(TARGET, provenance, half=True)
    for file in sorted(TARGET.iterdir()):
        name = file.relative_to(ROOT)
        print(
            f"| {name} | trained on synthetic people | Apache-2.0 | {sha256(file)} | tools/assets/ship_weights.py |"
        )


if __name__ == "__main__":
    main()
