"""The files that the package ships: where they are. ASSETS.md says what they are; tests/test_assets.py compares."""

import hashlib
from pathlib import Path

from dpmesh.errors import AssetError

SHIPPED = Path(__file__).parent / "shipped"


def shipped(name: str) -> Path:
    """Path of a shipped file such as "body/free_body.npz"; raises AssetError where it is missing."""
    path = SHIPPED / name
    if not path.is_file():
        raise AssetError(
            "a file of the package is missing",
            where=str(path),
            fix="Install again: pip install --force-reinstall dpmesh.",
        )
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
