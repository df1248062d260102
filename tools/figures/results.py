"""The tables of docs/research/results.md.

    python -m tools.figures.results OUT --cache CACHE [--write docs/research/results.md]

For new weights. Runs `dpmesh eval run synthocc synthocc@detector` for every method, MediaPipe's comparison
(benchmarks/accuracy/mediapipe_pose.py score) and `dpmesh bench robustness`, and prints Markdown; --write puts it into
the file, between the marks "<!-- results: NAME -->" and "<!-- end -->", and the curves in images/ next to it.
Finished parts in OUT are kept, so an interrupted run resumes; an OUT of other weights or persons is refused.

--people N is a quick trial on the first N persons. Without it MediaPipe's comparison goes to benchmarks/results.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dpmesh.assets import sha256, weights_folder
from dpmesh.checkpoint import WEIGHTS
from dpmesh.data.synthocc.scenes import RANGES, SUBSETS
from dpmesh.errors import DPMeshError
from dpmesh.evaluate.baselines import METHODS, Method
from dpmesh.evaluate.evaluation import EvaluationConfig
from dpmesh.evaluate.report import mm, read
from dpmesh.evaluate.robustness import report as robustness
from dpmesh.evaluate.robustness.bench import RobustnessConfig
from dpmesh.evaluate.robustness.bench import run as run_bench
from dpmesh.evaluate.runner import run_evaluation

ORDER: tuple[Method, ...] = ("network", "flip", "lifter", "refine", "fit", "t-pose")
PROTOCOLS = {"synthocc": "noise model", "synthocc@detector": "shipped detector"}
MEASURES = ("MPJPE", "PA-MPJPE", "MPVE")
ROOT = Path(__file__).parents[2]
PEER = "benchmarks.accuracy.mediapipe_pose"
Results = dict[tuple[str, Method], dict[str, Any]]


def evaluated(config: EvaluationConfig, methods: Sequence[Method], processes: int) -> Results:
    """Every method on both sources of keypoints; the T-pose, which uses none, on one."""
    results: Results = {}
    for name in PROTOCOLS:
        for method in (m for m in methods if (name, m) != ("synthocc@detector", "t-pose")):
            own = EvaluationConfig(
                protocol=name,
                out=config.out,
                data=config.data,
                weights=config.weights,
                method=method,
                limit=config.limit,
            )
            path = run_evaluation(own, processes)
            assert path is not None  # not under torchrun
            results[name, method] = read(path)
    return results


def weights_of(name: str) -> str:
    return sha256(weights_folder(name) / WEIGHTS)


def peer_of(config: EvaluationConfig) -> dict[str, Any]:
    """The comparison with MediaPipe; computed again where the stored one is of other weights or persons."""
    path = (
        ROOT / "benchmarks" / "results" / "mediapipe.json"
        if config.limit is None
        else config.out / "mediapipe.json"
    )
    limit = min(config.limit or 480, 480)
    stored = json.loads(path.read_text()) if path.is_file() else {}
    if stored.get("sha256") != weights_of(config.weights) or stored.get("persons") != limit:
        words = ["score", "--weights", config.weights, "--people", str(limit), "--json", str(path)]
        cache = ["--cache", str(config.data)] if config.data is not None else []
        command = [sys.executable, "-m", PEER, *words, *cache]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return json.loads(path.read_text())


def baselines(results: Results, peer: dict[str, Any]) -> list[str]:
    """All methods in one table; the last two columns are on the joints and persons that MediaPipe has too."""
    first, shared = next(iter(results.values())), "where MediaPipe answers"
    detected, persons = peer["MediaPipe answers"], peer["persons"]
    lines = [
        f"{first['persons']['evaluated']} of {first['persons']['found']} persons; weights sha256"
        f" {peer['sha256'][:12]}…; mm. Starred: on the"
        f" 12 joints that MediaPipe has too, about the middle of the hips, over the {detected} of the first {persons}"
        f" persons that it detects.",
        "", f"| keypoints | method | {' | '.join(MEASURES)} | failures | MPJPE* | PA-MPJPE* |",
        "|---" * (len(MEASURES) + 5) + "|",
    ]  # fmt: skip
    for (name, method), one in results.items():
        cells = [mm(one["figures"]["mean"][m]["mean"]) for m in MEASURES]
        shared_figures = [mm(peer["rows"][name][method][shared][m]) for m in ("MPJPE", "PA-MPJPE")]
        keypoints = "none" if method == "t-pose" else PROTOCOLS[name]
        lines.append(
            _line([keypoints, METHODS[method], *cells, str(one["figures"]["failures"]), *shared_figures])
        )
    own = [mm(peer["MediaPipe"][shared][m]) for m in ("MPJPE", "PA-MPJPE")]
    missed = f"{persons - detected} of {persons}"
    lines.append(
        _line(["its own", f"MediaPipe Pose {peer['mediapipe']}, with the true box", *"–––", missed, *own])
    )
    return lines


def by_level(results: Results) -> list[str]:
    """One table: rows are subsets and levels, columns methods and sources of keypoints."""
    lines = [
        "MPJPE/PA-MPJPE in mm; starred: with the keypoints of the shipped detector.", "",
        _line(["subset, level", *(method + "*" * (name != "synthocc") for name, method in results)]),
        "|---" * (len(results) + 1) + "|",
    ]  # fmt: skip
    levels = (f"{subset} {level}" for subset in SUBSETS for level in range(1, len(RANGES)))
    for row in ("clean 0", *levels):
        cells = [one["figures"]["by_sequence"].get(row) for one in results.values()]
        if None not in cells:
            lines.append(_line([row, *(f"{c['MPJPE']:.0f}/{c['PA-MPJPE']:.0f}" for c in cells)]))
    return lines


def by_severity(config: EvaluationConfig, persons: int, map_persons: int) -> dict[str, Any]:
    """The bench's result, kept in OUT."""
    path = config.out / "robustness" / robustness.JSON
    report = json.loads(path.read_text()) if path.is_file() else None
    same = report is not None and report["models"][0]["sha256"] == weights_of(config.weights)
    if not same or report["persons"] | {"measured": persons, "map": map_persons} != report["persons"]:
        bench = RobustnessConfig(
            weights=(config.weights,), data=config.data, people=persons, map_people=map_persons
        )
        report = run_bench(bench)
        robustness.write(report, path.parent)
    return report


def written(text: str, name: str, lines: Sequence[str]) -> str:
    """`text` with `lines` between the marks of `name`."""
    mark, end = f"<!-- results: {name} -->\n", "<!-- end -->"
    before, middle, after = text.partition(mark)
    if not middle or end not in after:
        raise SystemExit(f"there is no {mark.strip()} ... {end}")
    return before + mark + "\n" + "\n".join(lines).strip("\n") + "\n\n" + end + after.partition(end)[2]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--people", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--methods", nargs="+", default=ORDER, choices=ORDER)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--bench-people", type=int, default=96, help="of the bench")
    parser.add_argument("--map-people", type=int, default=24, help="of its sliding box")
    parser.add_argument("--write", type=Path, metavar="FILE", help="docs/research/results.md")
    options = parser.parse_args()
    config = EvaluationConfig(
        protocol="synthocc",
        out=options.out,
        data=options.cache,
        weights=options.weights,
        limit=options.people,
    )
    try:
        results = evaluated(config, options.methods, options.processes)
    except DPMeshError as error:
        raise SystemExit(str(error)) from None
    most = options.people or options.bench_people
    bench = by_severity(config, min(options.bench_people, most), min(options.map_people, most))
    blocks = {
        "baselines": baselines(results, peer_of(config)),
        "levels": by_level(results),
    }
    for lines in (*blocks.values(), robustness.markdown(bench).replace(" / ", "/").splitlines()):
        print("\n".join(lines), end="\n\n")
    if options.write is not None:
        text = options.write.read_text()
        for name, lines in blocks.items():
            text = written(text, name, [line.replace("| ", "|") for line in lines])
        curves = Image.open(io.BytesIO(robustness.curves(bench)), formats=["PNG"]).convert("RGB")
        small = curves.quantize(32, dither=Image.Dither.NONE)  # a quarter of the bytes
        small.save(options.write.parents[1] / "images" / "robustness.png", optimize=True)
        options.write.write_text(text)


if __name__ == "__main__":
    main()
