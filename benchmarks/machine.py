"""The machine and the commit that a figure was measured on; printing and storing a benchmark's result."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def commit() -> str:
    """Short hash of this checkout's HEAD, wherever the benchmark was called, with a plus when files differ from it."""
    here = str(Path(__file__).parent)

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    )


def machine() -> str:
    """Processor, cores, load."""
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def report_result(measured: dict[str, Any], path: str | Path | None) -> None:
    """Print the figures under the commit and the machine, and write them to `path` (--json)."""
    text = json.dumps({"commit": commit(), "machine": machine(), **measured}, indent=1, ensure_ascii=False)
    print(text)
    if path:
        Path(path).write_text(text + "\n")
