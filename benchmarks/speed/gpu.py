"""`release` on a GPU.

    python -m benchmarks.speed.full_model --device cuda [--json FILE], or --dry-run on a CPU

bf16 weights. Latency of one person: as it comes, with torch.compile's "reduce-overhead" (CUDA graphs of the backbone),
and with the whole forward in one CUDA graph. Throughput of 64 people as a share of the card's measured matrix rate.
Peak memory of inference and of a training step of 16 people. Random weights; the training step has a substitute for the
losses, whose cost is negligible compared with the model's.

The dry run goes through the same functions at narrow widths on a CPU, so that they are known to run; its figures mean
nothing, and it leaves out what only CUDA has (events, graphs, its allocator's peak).
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.speed.model_inputs import inputs
from dpmesh.config import RELEASE, DPMeshConfig, narrow
from dpmesh.fuse import optimise_for_inference
from dpmesh.model import DPMesh
from dpmesh.profiling import build_on_meta, count_flops
from dpmesh.types import Inputs, Prediction

LIMITS = {"latency_ms": 12.0, "share_of_matrix_rate": 0.45}
PEOPLE, TRAINED = 64, 16


def measure(*, dry_run: bool = False) -> dict[str, Any]:
    device, config = ("cpu", narrow(RELEASE)) if dry_run else ("cuda", RELEASE)
    people, trained = (2, 2) if dry_run else (PEOPLE, TRAINED)
    flop = count_flops(build_on_meta(replace(config, lora_rank=0)))["total"]
    rate = matrix_rate(device, 256 if dry_run else 8192)
    model = build(config, device)
    one, many = inputs(1, device), inputs(people, device)
    result: dict[str, Any] = {
        "device": "cpu, a dry run: these figures mean nothing" if dry_run else torch.cuda.get_device_name(),
        "matrix_tflop_per_s": round(rate / 1e12, 1),
        "gflop": round(flop / 1e9, 1),
    }
    with torch.inference_mode():
        latency = {"eager": milliseconds(lambda: model(one), device)}
        if device == "cuda":
            latency["graph"] = milliseconds(graphed(model, one), device)
        result["peak_gib_batch_1"] = peak(lambda: model(one), device)
        batch_ms = milliseconds(lambda: model(many), device)
        result[f"peak_gib_batch_{people}"] = peak(lambda: model(many), device)
    del model
    with torch.no_grad():  # not inference_mode: a captured graph keeps its tensors
        compiled = build(config, device, {"backend": "eager"} if dry_run else {"mode": "reduce-overhead"})
        latency["compiled"] = milliseconds(lambda: compiled(one), device)
    del compiled
    result |= {
        "latency_ms": latency,
        f"batch_{people}_ms": batch_ms,
        "people_per_s": round(people / batch_ms * 1e3, 1),
        "share_of_matrix_rate": round(flop * people / (batch_ms / 1e3) / rate, 3),
        f"peak_gib_training_step_batch_{trained}": training_peak(config, device, trained),
        "limits": LIMITS,
    }
    best, share = min(latency.values()), result["share_of_matrix_rate"]
    result["within"] = best <= LIMITS["latency_ms"] and share >= LIMITS["share_of_matrix_rate"]
    return result


def build(config: DPMeshConfig, device: str, compile: dict[str, Any] | bool = False) -> DPMesh:
    torch.manual_seed(0)
    with torch.device(device):
        model = DPMesh(config)
    return optimise_for_inference(model.to(device), dtype=torch.bfloat16, compile=compile)


def milliseconds(work: Callable[[], object], device: str, repetitions: int = 20) -> float:
    """The median, after three times that do not count. On a GPU by its own events, waiting for each."""
    times: list[float] = []
    for i in range(3 + (repetitions if device == "cuda" else 1)):
        if device == "cuda":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            began.record()
            work()
            ended.record()
            torch.cuda.synchronize()
            spent = began.elapsed_time(ended)
        else:
            start = time.perf_counter()
            work()
            spent = (time.perf_counter() - start) * 1e3
        if i >= 3:
            times.append(spent)
    return round(statistics.median(times), 3)


def graphed(model: DPMesh, data: Inputs) -> Callable[[], Prediction]:
    """The whole forward as one CUDA graph; calling it runs it on the numbers that are in `data` then."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(
        stream
    ):  # libraries choose their kernels and make their buffers before the capture
        for _ in range(3):
            model(data)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        prediction = model(data)

    def replay() -> Prediction:
        graph.replay()
        return prediction

    return replay


def matrix_rate(device: str, size: int) -> float:
    """FLOP/s of one large bf16 product, the median of many."""
    a, b = (torch.rand(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / (milliseconds(lambda: a @ b, device) / 1e3)


def peak(work: Callable[[], object], device: str) -> float | None:
    """GiB that torch's allocator held at most, the weights among it; None where there is no such thing."""
    if device != "cuda":
        work()
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def training_peak(config: DPMeshConfig, device: str, people: int) -> float | None:
    """Forward under bf16 autocast, backward, AdamW: the second step, when the optimiser has its moments."""
    torch.manual_seed(0)
    with torch.device(device):
        model = DPMesh(config)
    model.to(device).train()
    moved = [p for p in model.parameters() if p.requires_grad]
    optimizer, data = torch.optim.AdamW(moved), inputs(people, device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            prediction = model(data)
        outputs = (prediction.joints3d, prediction.joints2d / 256, prediction.betas)
        loss = sum(one.float().square().mean() for one in outputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    return peak(step, device)
