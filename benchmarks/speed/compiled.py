"""torch.compile on a CPU.

    python -m benchmarks.speed.compiled [--weights NAME|FOLDER] [--json FILE]

`embedded` with its shipped weights (or weights in a folder), optimised, plainly and compiled by torch's inductor with
frozen weights: seconds until the first prediction, CPU seconds of the next, and the largest difference. Needs a C++
compiler. One thread, interleaved. The other mode, "reduce-overhead", captures CUDA graphs: benchmarks/speed/gpu.py.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.accuracy.oracle import relative
from benchmarks.machine import commit, machine
from benchmarks.speed.full_model import seconds
from benchmarks.speed.model_inputs import inputs
from dpmesh.fuse import optimise_for_inference
from dpmesh.model import DPMesh


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = machine()
    plain = optimise_for_inference(DPMesh.from_pretrained(options.weights))
    fast = optimise_for_inference(
        DPMesh.from_pretrained(options.weights), compile={"options": {"freezing": True}}
    )
    data = inputs()
    with torch.no_grad():  # freezing wants no_grad, not inference_mode
        expected, wall = plain(data), time.perf_counter()
        got = fast(data)
        wall = time.perf_counter() - wall
        times = [(seconds(lambda: plain(data)), seconds(lambda: fast(data))) for _ in range(20)]
    best = [min(one) for one in zip(*times, strict=True)]
    result = {
        "commit": commit(),
        "machine": started,
        "torch": torch.__version__,
        "weights": options.weights,
        "compiling_wall_s": round(wall, 1),
        "optimised_ms": round(best[0] * 1e3, 1),
        "compiled_ms": round(best[1] * 1e3, 1),
        "of_optimised": round(best[1] / best[0], 3),
        "vertices_error": relative(got.vertices, expected.vertices),
        "limit_error": 1e-4,
    }
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
