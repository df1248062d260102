"""The fuzzing script: a short run with a fixed seed, and each kind of fault is reported."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def fuzz(*words: str, script: Path = RUN) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, timeout=300)


def test_short_run() -> None:
    done = fuzz("--mutations", "8", "--seed", "1", "--processes", "1", "--patience", "60")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


BROKEN = {
    "key": ("raise KeyError('x')", "KeyError"),
    "crash": ("os.kill(os.getpid(), 11)", "SIGSEGV"),
    "hang": ("time.sleep(600)", "hangs"),
    "memory": ("bytearray(2**34)", "MemoryError"),
    "code": ("os.mknod('dpmesh-fuzz-was-run')", "code of the file was run"),
    "empty": ("raise DPMeshError('')", "a message of 0 characters"),
    "seed": ("raise DPMeshError('no')", "the undamaged seed is refused"),
}


def test_faults_are_reported(tmp_path: Path) -> None:
    """Readers with one fault each, added to the script."""
    script = tmp_path / "broken.py"
    calls = "\n".join(
        f"def {name}(folder):\n    {body}\nrun.KINDS[{name!r}] = run.Kind(seeds, {name})"
        for name, (body, _) in BROKEN.items()
    )
    script.write_text(
        f"""import os, sys, time
sys.path.insert(0, {str(RUN.parent)!r})
import run
from dpmesh.errors import DPMeshError
def seeds():
    return [{{"a.json": b"[1]"}}]
{calls}
sys.exit(run.main())
"""
    )
    done = fuzz(
        "--kinds", ",".join(BROKEN), "--mutations", "1", "--patience", "2", "--processes", "1", script=script
    )
    assert done.returncode == 1, done.stderr
    for name, (_, message) in BROKEN.items():
        part = done.stdout[done.stdout.index(f"{name}: ") :]
        assert message in part and f"{name}:0:" in part, done.stdout
