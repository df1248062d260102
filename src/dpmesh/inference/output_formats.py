"""The formats of a result by name, and the record that a finished result would have.

Light to import: the command line compares records before it loads a model.
"""

from collections.abc import Sequence
from typing import Literal

from dpmesh.errors import ConfigError
from dpmesh.inference.options import RecordedOptions
from dpmesh.inference.record import Record, installed

FORMATS = ("overlay", "glb", "obj", "npz", "json")
"""Of one result's folder."""

TABLES = ("jsonl", "parquet")
"""Of all people in a folder of results (people_table.py); made of each result's "json"."""

Colouring = Literal["person", "sigma"]
"""Of the bodies in overlay and side view: by person, or by the uncertainty of the joints."""


def check_formats(formats: Sequence[str]) -> None:
    """Raise ConfigError for a name that is not in FORMATS."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(
                f"unknown format {name!r}", where="formats", fix=f"Choose of {', '.join(FORMATS)}."
            )


def wanted_scene(
    sha256: str,
    source: str,
    options: RecordedOptions,
    formats: Sequence[str],
    colour: Colouring = "person",
    glb_image: bool = False,
) -> Record:
    """The record of a scene that has all of `formats`. Raises ConfigError for an unknown format."""
    check_formats(formats)
    return Record(
        verb="predict",
        image=sha256,
        options=options,
        formats=tuple(name for name in FORMATS if name in formats),
        files=(),
        colour=colour if "overlay" in formats else "",
        plane=("image" if glb_image else "none") if "glb" in formats else "",
        source=source,
        version=installed(),
    )


def wanted_attention(sha256: str, source: str, options: RecordedOptions) -> Record:
    """The same for `dpmesh attention`."""
    return Record("attention", sha256, options, ("attention",), (), source=source, version=installed())
