"""The files that the package ships: where they are, and whether they are what they were built as."""

import hashlib
import json
from pathlib import Path

from dpmesh.errors import AssetError

SHIPPED = Path(__file__).parent / "shipped"


def shipped(name: str) -> Path:
    """Path of a shipped file such as "body/free_body.npz"; raises AssetError where it is missing."""
    path = SHIPPED / name
    if not path.is_file():
        raise AssetError("a file of the package is missing", where=str(path), fix="Install again: pip install --force-reinstall dpmesh.")
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()


def verify(name: str) -> Path:
    """Path of a shipped file after comparing it with shipped/checksums.json; raises AssetError on a difference."""
    path = shipped(name)
    expected: dict[str, str] = json.loads(shipped("checksums.json").read_text())
    if sha256(path) != expected.get(name):
        raise AssetError("a file of the package is not the one that was shipped", where=str(path), fix="Install again: pip install --force-reinstall dpmesh.")
    return path
