"""What converting a whole released checkpoint costs: python benchmarks/convert.py [--folder DIR] [--json OUT.json]

Makes a file of the release's real size and layout (tools/released_twin.py: 3,573 names, 5.7 GB of random numbers) in
a temporary folder, converts it with LoRA kept and merged, loads the result, and deletes everything. Every step is a
process of its own; its peak counts the pages of mapped files too. Needs 11 GB of disk and 6 GB of memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import commit, machine

LIMIT_GIB, LIMIT_CPU_S = 9.0, 90.0
ROOT = Path(__file__).parents[1]
LOAD = "import sys; from dpmesh.model import DPMesh; print(len(DPMesh.from_pretrained(sys.argv[1]).state_dict()))"


def measure(*words: str) -> dict[str, float]:
    """CPU seconds (user and system), wall seconds and peak memory of a command, on one thread."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "wall_s": round(time.perf_counter() - start, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="where to make the temporary folder")
    parser.add_argument("--json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        file, out = Path(temporary) / "twin.pth.tar", Path(temporary) / "out"
        made = measure(str(ROOT / "tools" / "released_twin.py"), str(file))
        convert = ("-m", "dpmesh.cli.main", "convert", "released", str(file), str(out))
        result: dict[str, Any] = {
            "commit": commit(),
            "machine": machine(),
            "file_gb": round(file.stat().st_size / 1e9, 2),
            "making_it": made,
            "convert": measure(*convert),
            "out_gb": round((out / "model.safetensors").stat().st_size / 1e9, 2),
            "load": measure("-c", LOAD, str(out)),
            "convert_merged": measure(*convert, "--merge-lora", "--overwrite"),
            "limits": {"peak_gib": LIMIT_GIB, "cpu_s": LIMIT_CPU_S},
        }
    steps = [result["convert"], result["convert_merged"]]
    result["within"] = all(step["peak_gib"] <= LIMIT_GIB and step["cpu_s"] <= LIMIT_CPU_S for step in steps)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
