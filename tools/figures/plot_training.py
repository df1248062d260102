"""Curves of a training run.

    python -m tools.figures.plot_training RUN_FOLDER OUT.png (needs matplotlib, a development tool).

A panel for each stage, in the order of validation.csv: its loss at every logged step, and the validation figures.
"""

import csv
import sys
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

SHOWN = {"mpjpe_mm": "MPJPE mm", "denoise": "noise, MSE", "MPJPE": "MPJPE mm", "PA-MPJPE": "PA-MPJPE mm"}
"""Columns of validation.csv that are drawn, and what they are called."""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    validation = read(run / "validation.csv")
    stages = list(dict.fromkeys(row["stage"] for row in validation))
    figure, panels = plt.subplots(1, len(stages), figsize=(3.1 * len(stages), 2.6), layout="constrained")
    for stage, left in zip(stages, panels if len(stages) > 1 else [panels], strict=True):
        rows = read(run / f"log_{stage}.csv")
        left.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], color="0.6", lw=1)
        left.set(title=stage, xlabel="step")
        left.set_ylabel("loss (grey)", color="0.4")
        right = left.twinx()
        judged = [row for row in validation if row["stage"] == stage]
        for (column, label), colour in zip(SHOWN.items(), ("C0", "C2", "C0", "C1"), strict=True):
            points = [(int(r["step"]), float(r[column])) for r in judged if r.get(column)]
            if points:
                right.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.2, color=colour, label=label)
        right.set_ylim(0, 1.3 * max(np.max(line.get_ydata()) for line in right.get_lines()))
        right.legend(fontsize=7, loc="upper right", frameon=False)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=80)
    Image.open(drawn, formats=["PNG"]).convert("RGB").quantize(32).save(out, optimize=True)


if __name__ == "__main__":
    main()
