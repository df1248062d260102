"""Cost of converting weights of full size.

    python -m benchmarks.speed.convert [--sd15] [--folder DIR] [--json OUT.json]

Makes a file of the release's real size and layout (tools/fixtures/released_twin.py: 3,573 names, 5.7 GB of random
numbers) in a temporary folder, converts it with LoRA kept and merged, loads the result, and deletes everything. Every
step is a process of its own; its peak counts the pages of mapped files too. Needs 11 GB of disk and 6 GB of memory.

With --sd15 instead Stable Diffusion 1.5 and a ControlNet, of random numbers: as folders, made by diffusers, and as one
file each in the original layout. Needs 16 GB of disk.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, machine

LIMIT_GIB, LIMIT_CPU_S = 9.0, 90.0
ROOT = Path(__file__).parents[2]
LOAD = "import sys; from dpmesh.model import DPMesh; print(len(DPMesh.from_pretrained(sys.argv[1]).state_dict()))"


FOLDERS = """
import sys, torch
from benchmarks.accuracy.oracle import PAPER, their_unet, their_vae
from diffusers import ControlNetModel
unet, vae = their_unet(PAPER.backbone.unet), their_vae(PAPER.backbone.vae)
unet.save_pretrained(sys.argv[1] + "/sd/unet"), vae.save_pretrained(sys.argv[1] + "/sd/vae")
ControlNetModel(cross_attention_dim=768).save_pretrained(sys.argv[1] + "/controlnet")
"""
FILES = """
import sys, torch, safetensors.torch
from tools.fixtures.released_twin import Layout, RELEASE, Sizes, fill
unet = RELEASE.backbone.unet
layout = Layout()
layout.controlnet("control_model.", unet, unet.latent_channels)
torch.save(fill(layout), sys.argv[1] + "/controlnet.pth")
layout = Layout()
layout.stable_diffusion("", RELEASE, Sizes(), 0)
safetensors.torch.save_file(fill(layout), sys.argv[1] + "/sd.safetensors")
"""
"""Scripts that run in processes of their own."""


def measure(*words: str) -> dict[str, float]:
    """CPU seconds (user and system), wall seconds and peak memory of a command, on one thread."""
    start = time.perf_counter()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    process = subprocess.Popen([sys.executable, *words], env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "wall_s": round(time.perf_counter() - start, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
    }


def released(temporary: Path) -> dict[str, Any]:
    file, out = temporary / "twin.pth.tar", temporary / "out"
    made = measure("-m", "tools.fixtures.released_twin", str(file))
    convert = ("-m", "dpmesh", "convert", "released", str(file), str(out))
    return {
        "file_gb": gigabytes(file),
        "making_it": made,
        "convert": measure(*convert),
        "out_gb": gigabytes(out / "model.safetensors"),
        "load": measure("-c", LOAD, str(out)),
        "convert_merged": measure(*convert, "--merge-lora", "--overwrite"),
    }


def stable_diffusion(temporary: Path) -> dict[str, Any]:
    out = temporary / "out"
    convert = ("-m", "dpmesh", "convert", "sd15")
    result: dict[str, Any] = {"making_folders": measure("-c", FOLDERS, str(temporary))}
    folder, control = temporary / "sd", temporary / "controlnet"
    result["convert_folders"] = measure(*convert, str(folder), str(out), "--controlnet", str(control))
    shutil.rmtree(folder)
    shutil.rmtree(control)
    result["load"] = measure("-c", LOAD, str(out))
    result["making_files"] = measure("-c", FILES, str(temporary))
    file, control = temporary / "sd.safetensors", temporary / "controlnet.pth"
    result["file_gb"], result["controlnet_gb"] = gigabytes(file), gigabytes(control)
    words = (str(file), str(out), "--controlnet", str(control), "--overwrite")
    result["convert_files"] = measure(*convert, *words)
    result["out_gb"] = gigabytes(out / "model.safetensors")
    return result


def gigabytes(file: Path) -> float:
    return round(file.stat().st_size / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sd15", action="store_true", help="Stable Diffusion and ControlNet instead")
    parser.add_argument("--folder", help="where to make the temporary folder")
    parser.add_argument("--json")
    options = parser.parse_args()
    result: dict[str, Any] = {"commit": commit(), "machine": machine()}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        result |= (stable_diffusion if options.sd15 else released)(Path(temporary))
    if not options.sd15:
        result["limits"] = {"peak_gib": LIMIT_GIB, "cpu_s": LIMIT_CPU_S}
        steps = [result["convert"], result["convert_merged"]]
        result["within"] = all(s["peak_gib"] <= LIMIT_GIB and s["cpu_s"] <= LIMIT_CPU_S for s in steps)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
