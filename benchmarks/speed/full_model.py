"""The model at full size compared with the same model composed of diffusers' modules.

    python -m benchmarks.speed.full_model [--json FILE]

The peer is what a user would write: AutoencoderKL, ControlNetModel and UNet2DConditionModel as they come, hooks for
features and attention maps, then our fusion and regressor. `release`, batch 1, one thread, CPU seconds (so that a
second program on the machine counts little), one repetition of each in turn. All share one set of random weights (the
low-rank updates are zero, so the peer needs none; ours computes them). The floor is the counted FLOP of the merged
model at the measured speed of one large product.

Peak memory is of a process of its own for each (--alone), which reads the weights from a folder as a user does.
Wants 13 GiB of memory and 6 GiB of disk. With --device cuda: benchmarks/speed/gpu.py, which has other questions.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import report_result
from benchmarks.speed.model_inputs import inputs
from dpmesh.config import RELEASE
from dpmesh.fuse import optimise_for_inference
from dpmesh.model import DPMesh
from dpmesh.profiling import build_on_meta, count_flops
from dpmesh.types import Inputs

ROOT = Path(__file__).parents[2]
WAYS = ("plain", "optimised", "optimised bf16", "diffusers")
LIMITS = {
    "plain": {"of_diffusers": 0.8},  # for less memory: optimise
    "optimised": {"of_diffusers": 0.8, "peak_gib": 5.2},
    "optimised bf16": {"of_diffusers": 0.8, "peak_gib": 3.0},
}


def build(way: str, folder: Path) -> nn.Module:
    """diffusers is imported only where it is measured: it is memory too."""
    if way == "diffusers":
        from benchmarks.speed.peer import Peer, contiguous

        ours = DPMesh.from_pretrained(folder).requires_grad_(False)
        contiguous(ours)
        return Peer(ours)
    if way == "optimised bf16":
        return optimise_for_inference(DPMesh.from_pretrained(folder, dtype=torch.bfloat16))
    model = DPMesh.from_pretrained(folder).requires_grad_(False)
    return optimise_for_inference(model) if way == "optimised" else model


def outputs(model: nn.Module, data: Inputs) -> tuple[Tensor, Tensor]:
    """Fused features and vertices."""
    if not isinstance(model, DPMesh):
        return model(data)
    prediction = model(data, features=True)
    return prediction.features.fused, prediction.vertices


class Clock:
    """CPU seconds in each part of the backbone, by hooks."""

    def __init__(self, model: nn.Module) -> None:
        home = model.backbone if isinstance(model, DPMesh) else model
        self.spent: dict[str, float] = {}
        for name in ("vae", "controlnet", "unet"):
            part = home.get_submodule("vae.encoder" if name == "vae" else name)
            part.register_forward_pre_hook(lambda *_, name=name: self.start(name))
            part.register_forward_hook(lambda *_, name=name: self.stop(name))

    def start(self, name: str) -> None:
        self.spent[name] = -time.process_time()

    def stop(self, name: str) -> None:
        self.spent[name] += time.process_time()


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of one large product, as a linear layer or as a convolution: the best of twenty of the better."""
    weight, x = torch.rand(1280, 1280).to(dtype), torch.rand(1024, 1280).to(dtype)
    cells = x.T.reshape(1, 1280, 32, 32).contiguous(memory_format=torch.channels_last)
    kernel = weight[..., None, None].contiguous(memory_format=torch.channels_last)
    ways = (lambda: F.linear(x, weight), lambda: F.conv2d(cells, kernel))
    best = min(seconds(way) for _ in range(20) for way in ways)
    return 2 * 1024 * 1280**2 / best / 1e9


def make(folder: Path) -> None:
    """Random weights in a folder; where a layer starts at zero, random numbers too, but for the low-rank updates."""
    torch.manual_seed(0)
    model = DPMesh.from_config(RELEASE)
    net = model.backbone.controlnet
    for conv in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        nn.init.normal_(conv.weight, std=conv.in_channels**-0.5)
    model.save_pretrained(folder, {})


def high_water() -> float:
    """GiB that this process ever held at once. Not ru_maxrss, which begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def alone(way: str, folder: Path) -> None:
    """One forward pass in this process, and what it took: GiB at most, after loading and in all."""
    begun = high_water()
    model = build(way, folder)
    loaded = high_water()
    with torch.inference_mode():
        outputs(model, inputs())
    gib = {"before_gib": begun, "loading_gib": loaded, "peak_gib": high_water()}
    print(json.dumps({name: round(value, 2) for name, value in gib.items()}))


def peaks(folder: Path) -> dict[str, dict[str, float]]:
    memory = {}
    for way in WAYS:
        words = [sys.executable, "-m", "benchmarks.speed.full_model", "--alone", way, "--folder", str(folder)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        memory[way] = json.loads(done.stdout.splitlines()[-1])
        print(way, memory[way], flush=True)
    return memory


def race(folder: Path, repetitions: int) -> dict[str, dict[str, Any]]:
    """Run every way once in turn, after a warm-up; the best and the median of each.

    Equal weights in the same memory order are shared."""
    from benchmarks.accuracy.oracle import relative
    from benchmarks.speed.peer import Peer

    plain = DPMesh.from_pretrained(folder).requires_grad_(False)
    same = {id(p): p for p in plain.parameters() if p.dim() > 1}  # biases change when the timestep is folded
    models = {
        "plain": plain,
        "optimised": optimise_for_inference(copy.deepcopy(plain, same)),
        "optimised bf16": build("optimised bf16", folder),
        "diffusers": Peer(plain),
    }
    clocks = {way: Clock(model) for way, model in models.items()}
    data, times = inputs(), {way: list[tuple[float, dict[str, float]]]() for way in WAYS}
    with torch.inference_mode():
        reference = {way: outputs(model, data) for way, model in models.items()}
        for _ in range(repetitions):
            for way, model in models.items():
                spent = seconds(lambda model=model: outputs(model, data))
                times[way].append((spent, dict(clocks[way].spent)))
                print(way, round(spent, 2), flush=True)
    result: dict[str, dict[str, Any]] = {}
    for way, spent in times.items():
        total, parts = min(spent, key=lambda one: one[0])
        rounded = {name: round(s, 2) for name, s in parts.items()}
        result[way] = {
            "cpu_s": [round(s, 2) for s, _ in spent],
            "best_s": round(total, 2),
            "median_s": round(statistics.median(s for s, _ in spent), 2),
            "parts_s": {**rounded, "rest": round(total - sum(parts.values()), 2)},
            **{
                f"{name}_error_to_{base}": float(f"{relative(reference[way][i], reference[base][i]):.2g}")
                for i, name in enumerate(("fused", "vertices"))
                for base in ("diffusers", "plain")
            },
        }
    return result


def summary(times: dict[str, dict[str, Any]], memory: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The measurements with ratios, floors and limits."""
    flop = count_flops(build_on_meta(replace(RELEASE, lora_rank=0)))["total"] / 1e9
    rates = {"fp32": matrix_rate(torch.float32), "bf16": matrix_rate(torch.bfloat16)}
    base = times["diffusers"]
    ways: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        ratios = {
            "of_diffusers": round(times[way]["best_s"] / base["best_s"], 3),
            "of_diffusers_median": round(times[way]["median_s"] / base["median_s"], 3),
        }
        ways[way] = {**times[way], **ratios, **memory[way], "limits": LIMITS.get(way, {})}
        ways[way]["within"] = all(ways[way][name] <= limit for name, limit in LIMITS.get(way, {}).items())
    return {
        "gflop": round(flop, 1),
        "gflop_as_released": round(count_flops(build_on_meta(RELEASE))["total"] / 1e9, 1),
        "matrix_gflop_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "floor_s": {name: round(flop / rate, 2) for name, rate in rates.items()},
        "ways": ways,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", help="write the result there")
    parser.add_argument("--alone", choices=WAYS, help="one forward pass of one way: its peak memory")
    parser.add_argument("--folder", type=Path, help="where the weights are (--alone), or shall be")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dry-run", action="store_true", help="what --device cuda does, small and on the CPU"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alone:
        return alone(options.alone, options.folder)
    started = {"torch": torch.__version__}
    if options.device == "cuda" or options.dry_run:
        from benchmarks.speed import gpu

        result = {**started, **gpu.measure(dry_run=options.dry_run)}
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder or Path(temporary)
            if not (folder / "config.json").is_file():
                words = [sys.executable, "-c", MAKE, str(folder)]
                subprocess.run(words, check=True, cwd=ROOT)
            memory = peaks(folder)
            result = {**started, **summary(race(folder, options.repetitions), memory)}
    report_result(result, options.json)


MAKE = (
    "import sys, pathlib; from benchmarks.speed import full_model; full_model.make(pathlib.Path(sys.argv[1]))"
)
"""Run in a process of its own, so that its memory is freed."""

if __name__ == "__main__":
    main()
