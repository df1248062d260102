"""The record in a result folder: verb, image, options, formats and files of the result.

A folder counts as a result of this package only with a record, and only the files that it names are ever replaced.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dpmesh.errors import DPMeshError, OutputError
from dpmesh.inference.options import RecordedOptions, differences
from dpmesh.io import read_json

MARKER = ".dpmesh.json"
SCHEMA = "dpmesh.result/1"
SCENE_SCHEMA = "dpmesh.scene/1"
FIXED = {
    "overlay": ("overlay.png", "side.png"),
    "glb": ("scene.glb",),
    "npz": ("scene.npz",),
    "json": ("scene.json",),
    "obj": (),
    "attention": (),
}
"""Format -> the files that it always has. OBJ and attention have files per person."""
_EACH = {
    "obj": re.compile(r"person_\d{2,6}\.(obj|mtl)"),
    "attention": re.compile(r"person_\d{2,6}(\.npz|_joints\.png|_mean\.png)"),
}
_LARGEST = 256 * 2**20
"""Most bytes of a record, or of a scene.json used as one."""


@dataclass(frozen=True)
class Record:
    """A result as its folder has it."""

    verb: str
    """"predict" or "attention"."""
    image: str
    """sha256 of the image file; empty for an image without a file."""
    options: RecordedOptions | None
    """None: from a version that did not record them."""
    formats: tuple[str, ...]
    """Formats that are complete."""
    files: tuple[str, ...]
    """Files that this package wrote."""
    pending: tuple[str, ...] = ()
    """Files that were being replaced; not empty after an interrupted run."""
    colour: str = ""
    """Of overlay and side view; empty without them."""
    plane: str = ""
    """"image" or "none": what the GLB has behind the people; empty without a GLB."""
    source: str = ""
    """The image's path as the user wrote it."""
    version: str = ""

    @property
    def owned(self) -> frozenset[str]:
        """Names that may be replaced."""
        return frozenset((*self.files, *self.pending))

    def as_bytes(self) -> bytes:
        plain = {"schema": SCHEMA, **vars(self)}
        return (json.dumps(plain, indent=1) + "\n").encode()


def installed() -> str:
    """The version of this package; empty where it runs without being installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dpmesh")
    except PackageNotFoundError:
        return ""


def format_of(file: str) -> str | None:
    """The format of a file, by its name; None for a name that this package never writes."""
    for name, files in FIXED.items():
        if file in files:
            return name
    return next((name for name, pattern in _EACH.items() if pattern.fullmatch(file)), None)


def read_record(folder: Path) -> Record | None:
    """The record of a result folder; None for a folder without one. Raises OutputError where it is damaged."""
    for name, read in ((MARKER, _from_marker), ("scene.json", _from_scene)):
        path = folder / name
        if path.is_symlink() or not os.path.isfile(path):
            continue
        try:
            plain = read_json(path, _LARGEST, OutputError)
        except DPMeshError:
            if name == MARKER:
                raise
            continue
        if isinstance(plain, dict) and (record := read(cast("dict[str, Any]", plain), folder)) is not None:
            return record
    return None


def _from_marker(plain: Mapping[str, Any], folder: Path) -> Record | None:
    if plain.get("schema") != SCHEMA:
        return None
    options = plain.get("options")
    return Record(
        verb=_text(plain, "verb"),
        image=_text(plain, "image"),
        options=cast("dict[str, object]", options) if isinstance(options, dict) else None,
        formats=tuple(name for name in _texts(plain, "formats") if name in FIXED),
        files=_names(plain, "files"),
        pending=_names(plain, "pending"),
        colour=_text(plain, "colour"),
        plane=_text(plain, "plane"),
        source=_text(plain, "source"),
        version=_text(plain, "version"),
    )


def _from_scene(plain: Mapping[str, Any], folder: Path) -> Record | None:
    """Of a folder without a marker, from an older version: its files are recognised by their names."""
    if plain.get("schema") != SCENE_SCHEMA or "source_sha256" not in plain:
        return None
    files = tuple(sorted(name for name in os.listdir(folder) if format_of(name) in (*FIXED,)[:5]))
    formats = tuple(f for f in ("overlay", "glb", "npz", "json") if set(FIXED[f]) <= set(files))
    options = plain.get("options")
    return Record(
        verb="predict",
        image=_text(plain, "source_sha256"),
        options=cast("dict[str, object]", options) if isinstance(options, dict) else None,
        formats=formats + (("obj",) if any(name.endswith(".obj") for name in files) else ()),
        files=files,
        source=_text(plain, "source"),
    )


def _text(plain: Mapping[str, Any], name: str) -> str:
    value = plain.get(name)
    return value if isinstance(value, str) else ""


def _texts(plain: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = plain.get(name)
    return tuple(v for v in cast("list[Any]", value) if isinstance(v, str)) if isinstance(value, list) else ()


def _names(plain: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Only names that this package writes: a foreign record cannot name a file of the user."""
    return tuple(file for file in _texts(plain, name) if format_of(file) is not None)


def complete_formats(record: Record, folder: Path) -> tuple[str, ...]:
    """Formats that are complete and whose files all exist."""
    gone = {format_of(name) for name in record.files if not os.path.isfile(folder / name)}
    return tuple(name for name in record.formats if name not in gone)


def unlike(record: Record, wanted: Record) -> str:
    """Why a recorded result differs from the wanted one, for an error message; empty where it does not.

    wanted: as it would be recorded, with the requested formats.
    """
    if not wanted.image:
        return "exists already"
    if record.image != wanted.image:
        of = f" ({record.source})" if record.source else ""
        return f"holds the result of another image{of}"
    if record.options is None:
        return "holds a result of an older version, which did not record its options"
    by_name = any(isinstance(record.options.get(name), dict) for name in ("keypoints", "boxes"))
    if by_name and Path(record.source).name != Path(wanted.source).name:
        return f"holds the result of {Path(record.source).name}, whose people were looked up by that name"
    changes = differences(record.options, wanted.options or {})
    if record.colour and wanted.colour and record.colour != wanted.colour:
        changes.append(f"--colour was {record.colour}, is {wanted.colour}")
    plane = (record.plane or "none") if "glb" in record.formats else ""
    if plane and wanted.plane and plane != wanted.plane:
        was, now = ("on" if kind == "image" else "off" for kind in (plane, wanted.plane))
        changes.append(f"--glb-image was {was}, is {now}")
    return f"holds a result of other options ({'; '.join(changes)})" if changes else ""
