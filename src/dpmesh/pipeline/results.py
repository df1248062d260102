"""What a result folder holds: the formats by name, and whether an earlier run already made them.

Light to import: the command line asks before it loads a model.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dpmesh.errors import ConfigError

FORMATS = ("overlay", "glb", "obj", "npz", "json")

Colouring = Literal["person", "sigma"]
"""What the overlay's bodies are coloured by: whose they are, or how sure each joint is."""

_FILES = {
    "overlay": ("overlay.png", "side.png"),
    "glb": ("scene.glb",),
    "npz": ("scene.npz",),
    "json": ("scene.json",),
}
"""OBJ has no fixed list: a file for each person, none for nobody."""


def check_formats(formats: Sequence[str]) -> None:
    """Raise ConfigError for a name that is not in FORMATS."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(
                f"unknown format {name!r}", where="formats", fix=f"Choose of {', '.join(FORMATS)}."
            )


def is_complete(folder: Path, formats: Sequence[str]) -> bool:
    """Whether these formats are already here. A folder gets its name only when whole."""
    return folder.is_dir() and all((folder / file).is_file() for f in formats for file in _FILES.get(f, ()))


def of_picture(folder: Path, picture: Path) -> bool:
    """Whether a result was made from this picture (by sha256); True where one of the two does not tell."""
    try:
        recorded = json.loads((folder / "scene.json").read_text("utf-8"))["source_sha256"]
        return recorded in ("", hashlib.sha256(picture.read_bytes()).hexdigest())
    except (OSError, ValueError, KeyError, TypeError):
        return True
