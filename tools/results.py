"""The tables of docs/results.md: python tools/results.py OUT [--weights W] [--limit N] [--cache DIR]

Runs `dpmesh eval synthocc synthocc@detector` for every method and prints Markdown. What is finished in OUT is kept, so
it can be killed and started again. The baselines that do not use the weights are run too: they are cheap.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

from dpmesh.evaluate.methods import METHODS, Method
from dpmesh.evaluate.processes import evaluate_job
from dpmesh.evaluate.report import RESULT, read
from dpmesh.evaluate.run import Job
from dpmesh.evaluate.synthocc.scenes import RANGES, SUBSETS

ORDER: tuple[Method, ...] = ("network", "lifter", "refine", "fit", "t-pose")
PROTOCOLS = {"synthocc": "noise model", "synthocc@detector": "shipped detector"}


def tables(out: Path, methods: tuple[Method, ...]) -> str:
    found = {
        (name, method): read(folder)
        for name in PROTOCOLS
        for method in methods
        if (folder := out / (name if method == "network" else f"{name}+{method}")).joinpath(RESULT).is_file()
    }
    first = next(iter(found.values()))
    lines = [
        f"{first['persons']['evaluated']} of {first['persons']['found']} persons;"
        f" weights {first['weights']['sha256'][:12]}…",
        "", "| keypoints | method | MPJPE | PA-MPJPE | MPVE | failures |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for (name, method), one in found.items():
        mean = one["figures"]["mean"]
        cells = [f"{mean[m]['mean']:.1f}" for m in ("MPJPE", "PA-MPJPE", "MPVE")]
        lines.append(
            f"| {PROTOCOLS[name]} | {METHODS[method]} | {' | '.join(cells)} | {one['figures']['failures']} |"
        )
    for name, told in PROTOCOLS.items():
        mine = {method: one for (n, method), one in found.items() if n == name}
        for measure in ("MPJPE", "PA-MPJPE"):
            lines += ["", f"{measure} (mm), keypoints of the {told}:", "", "| subset, level | persons |"]
            lines[-1] += "".join(f" {method} |" for method in mine)
            lines.append("|---|---|" + "---|" * len(mine))
            lines += [_line(row, measure, mine) for row in _rows() if row in _sequences(mine)]
    return "\n".join(lines)


def _rows() -> list[str]:
    return ["clean 0", *(f"{subset} {level}" for subset in SUBSETS for level in range(1, len(RANGES)))]


def _sequences(mine: dict[Method, dict[str, Any]]) -> dict[str, Any]:
    return next(iter(mine.values()))["figures"]["by_sequence"] if mine else {}


def _line(row: str, measure: str, mine: dict[Method, dict[str, Any]]) -> str:
    cells = [one["figures"]["by_sequence"][row] for one in mine.values()]
    return f"| {row} | {cells[0]['persons']} | " + " | ".join(f"{c[measure]:.0f}" for c in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--methods", nargs="+", default=ORDER, choices=ORDER)
    parser.add_argument("--only-tables", action="store_true")
    options = parser.parse_args()
    methods = tuple(options.methods)
    for method in () if options.only_tables else methods:
        for name in PROTOCOLS:
            evaluate_job(
                Job(
                    protocol=name, out=options.out, data=options.cache, weights=options.weights, method=method,
                    limit=options.limit,
                )
            )  # fmt: skip
    print(tables(options.out, methods))


if __name__ == "__main__":
    main()
