"""The model at full size beside the same composed of diffusers' modules: python benchmarks/full_model.py [--json FILE]

The peer is what a user would write: AutoencoderKL, ControlNetModel and UNet2DConditionModel as they come, hooks for
features and attention maps, then our fusion and regressor. `release`, batch 1, one thread, CPU seconds, one
repetition of each in turn. All share one set of random weights (the low-rank updates are zero, so the peer needs none;
ours computes them). The floor is the counted FLOP of the merged model at the measured speed of one large product.

Peak memory is of a process of its own for each (--alone), which reads the weights from a folder as a user does.
Wants 13 GiB of memory and 6 GiB of disk.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from machine import commit, machine
from oracle import relative, their_controlnet, their_unet, their_vae, watch
from torch import Tensor, nn

from dpmesh.backbone.diffusion import Features
from dpmesh.configurations import RELEASE
from dpmesh.cost import count_flops, without_numbers
from dpmesh.diffusion.packed import PackedLinear
from dpmesh.geometry import CROP
from dpmesh.geometry.heatmap import draw_heatmaps
from dpmesh.model import DPMesh, Inputs
from dpmesh.optimise import optimised

WAYS = ("plain", "optimised", "optimised bf16", "diffusers")
PARTS = ("vae", "controlnet", "unet", "fusion")


class Peer(nn.Module):
    """`release` of diffusers' modules, their weights in the order in which diffusers has them; the rest is `ours`'."""

    def __init__(self, ours: DPMesh) -> None:
        super().__init__()
        config = RELEASE.backbone
        with torch.device("meta"):
            self.vae, self.unet = their_vae(config.vae), their_unet(config.unet)
            self.controlnet = their_controlnet(config.unet)
        del self.vae.decoder, self.vae.post_quant_conv, self.unet.conv_norm_out, self.unet.conv_out
        self.unet.conv_norm_out, self.unet.conv_out = None, nn.Identity()  # the head that nobody wants
        for name in ("vae", "controlnet", "unet"):
            state = ours.backbone.get_submodule(name).state_dict()
            plain = {
                n.replace(".linear.", "."): v.contiguous() for n, v in state.items() if ".lora_" not in n
            }
            self.get_submodule(name).load_state_dict(plain, strict=True, assign=True)
        self.eval().requires_grad_(False)
        self.ours = [ours]  # in a list: no part of this module

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        (ours,), config = self.ours, RELEASE.backbone.unet
        prompt = ours.prompt(inputs.joints, inputs.visible)
        latent = self.vae.encode(inputs.crop).latent_dist.mode()
        hint = draw_heatmaps(inputs.joints, inputs.visible)
        joined = torch.cat([latent, hint], dim=1)
        down, middle = self.controlnet(joined, config.timestep, prompt, hint, return_dict=False)
        kept, remove = watch(self.unet, config)
        self.unet(
            latent,
            config.timestep,
            prompt,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        )
        remove()
        maps = {size: kept.map(size) for size in config.map_sizes}
        fused = ours.backbone.fusion(kept.features(), maps)
        answer = ours.regress(Features(fused, maps), inputs.joints, inputs.visible)
        parameters = ours.parameters_of(answer, inputs.focal)
        return fused, ours.body(parameters.betas, parameters.rotations, parameters.transl).vertices


def contiguous(model: nn.Module) -> None:
    """Weights row by row, in place."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()


def build(way: str, folder: Path) -> nn.Module:
    if way == "optimised bf16":
        return optimised(DPMesh.from_pretrained(folder, dtype=torch.bfloat16))
    model = DPMesh.from_pretrained(folder).requires_grad_(False)
    return optimised(model) if way == "optimised" else model


def answer(model: nn.Module, data: Inputs) -> tuple[Tensor, Tensor]:
    """Fused features and vertices."""
    if isinstance(model, Peer):
        return model(data)
    found = model(data, features=True)
    return found.features.fused, found.vertices


class Clock:
    """CPU seconds in each part of the backbone, by hooks."""

    def __init__(self, model: nn.Module) -> None:
        home = model if isinstance(model, Peer) else model.backbone
        self.spent: dict[str, float] = {}
        for name in ("vae", "controlnet", "unet"):
            part = home.get_submodule("vae.encoder" if name == "vae" else name)
            part.register_forward_pre_hook(lambda *_, name=name: self.start(name))
            part.register_forward_hook(lambda *_, name=name: self.stop(name))

    def start(self, name: str) -> None:
        self.spent[name] = -time.process_time()

    def stop(self, name: str) -> None:
        self.spent[name] += time.process_time()


def inputs() -> Inputs:
    g = torch.Generator().manual_seed(0)
    return Inputs(
        torch.rand(1, 3, CROP, CROP, generator=g),
        torch.rand(1, 30, 2, generator=g) * CROP,
        torch.ones(1, 30),
        torch.full((1,), 1000.0),
    )


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of one large product, the best of twenty."""
    layer = PackedLinear(nn.Linear(1280, 1280, bias=False).to(dtype))
    x = torch.rand(1024, 1280).to(dtype)
    return 2 * 1024 * 1280**2 / min(seconds(lambda: layer(x)) for _ in range(20)) / 1e9


def make(folder: Path) -> None:
    """Random weights in a folder; where a layer starts at zero, random numbers too, but for the low-rank updates."""
    torch.manual_seed(0)
    model = DPMesh.from_config(RELEASE)
    net = model.backbone.controlnet
    for conv in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        nn.init.normal_(conv.weight, std=conv.in_channels**-0.5)
    model.save_pretrained(folder, {})


def alone(way: str, folder: Path) -> None:
    """One forward pass in this process, and what it took: GiB at most, after loading and in all."""
    if way == "diffusers":
        ours = DPMesh.from_pretrained(folder).requires_grad_(False)
        contiguous(ours)
        model: nn.Module = Peer(ours)
    else:
        model = build(way, folder)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with torch.inference_mode():
        answer(model, inputs())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"loading_gib": round(loaded, 2), "peak_gib": round(peak, 2)}))


def peaks(folder: Path) -> dict[str, dict[str, float]]:
    found = {}
    for way in WAYS:
        words = [sys.executable, __file__, "--alone", way, "--folder", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
        print(way, found[way], flush=True)
    return found


def race(folder: Path, repetitions: int) -> dict[str, dict[str, object]]:
    """Every way once in turn, after a first time that does not count; the best and the median of each."""
    models = {way: build(way, folder) for way in WAYS[:3]}
    models["diffusers"] = Peer(models["plain"])
    clocks = {way: Clock(model) for way, model in models.items()}
    data, times = inputs(), {way: list[tuple[float, dict[str, float]]]() for way in WAYS}
    with torch.inference_mode():
        answers = {way: answer(model, data) for way, model in models.items()}
        for _ in range(repetitions):
            for way, model in models.items():
                spent = seconds(lambda model=model: answer(model, data))
                times[way].append((spent, dict(clocks[way].spent)))
                print(way, round(spent, 2), flush=True)
    found: dict[str, dict[str, object]] = {}
    for way, spent in times.items():
        total, parts = min(spent, key=lambda one: one[0])
        rounded = {name: round(s, 2) for name, s in parts.items()}
        found[way] = {
            "cpu_s": [round(s, 2) for s, _ in spent],
            "best_s": round(total, 2),
            "parts_s": {**rounded, "rest": round(total - sum(parts.values()), 2)},
            "fused_error": relative(answers[way][0], answers["diffusers"][0]),
            "vertices_error": relative(answers[way][1], answers["diffusers"][1]),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", help="write the result there")
    parser.add_argument("--alone", choices=WAYS, help="one forward pass of one way: its peak memory")
    parser.add_argument("--folder", type=Path, help="where the weights are (--alone), or shall be")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alone:
        return alone(options.alone, options.folder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "config.json").is_file():
            subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, cwd=Path(__file__).parent)
        memory = peaks(folder)
        started = machine()
        times = race(folder, options.repetitions)
    flop = count_flops(without_numbers(replace(RELEASE, lora_rank=0)))
    rates = {"fp32": matrix_rate(torch.float32), "bf16": matrix_rate(torch.bfloat16)}
    base = float(str(times["diffusers"]["best_s"]))
    result = {
        "commit": commit(),
        "machine": started,
        "torch": torch.__version__,
        "gflop": round(flop["total"] / 1e9, 1),
        "gflop_as_released": round(count_flops(without_numbers(RELEASE))["total"] / 1e9, 1),
        "matrix_gflop_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "floor_s": {name: round(flop["total"] / 1e9 / rate, 2) for name, rate in rates.items()},
        "ways": {
            way: {
                **times[way],
                "of_diffusers": round(float(str(times[way]["best_s"])) / base, 3),
                **memory[way],
            }
            for way in WAYS
        },
    }
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


MAKE = "import sys, pathlib, full_model; full_model.make(pathlib.Path(sys.argv[1]))"
"""In a process of its own, whose memory is then given back."""

if __name__ == "__main__":
    main()
