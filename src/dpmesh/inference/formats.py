"""The formats of a result by name, and what is asked of a result that may be there already.

Light to import: the command line asks before it loads a model.
"""

from collections.abc import Sequence
from typing import Literal

from dpmesh.errors import ConfigError
from dpmesh.inference.options import RecordedOptions
from dpmesh.inference.record import Record, installed

FORMATS = ("overlay", "glb", "obj", "npz", "json")

Colouring = Literal["person", "sigma"]
"""What the overlay's bodies are coloured by: whose they are, or how sure each joint is."""


def check_formats(formats: Sequence[str]) -> None:
    """Raise ConfigError for a name that is not in FORMATS."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(
                f"unknown format {name!r}", where="formats", fix=f"Choose of {', '.join(FORMATS)}."
            )


def wanted_scene(
    sha256: str, source: str, options: RecordedOptions, formats: Sequence[str], colour: Colouring = "person"
) -> Record:
    """What the record of a scene says that has all of `formats`. Raises ConfigError for an unknown format."""
    check_formats(formats)
    drawn = colour if "overlay" in formats else ""
    chosen = tuple(name for name in FORMATS if name in formats)
    return Record("predict", sha256, options, chosen, (), colour=drawn, source=source, version=installed())


def wanted_attention(sha256: str, source: str, options: RecordedOptions) -> Record:
    """The same of `dpmesh attention`."""
    return Record("attention", sha256, options, ("attention",), (), source=source, version=installed())
